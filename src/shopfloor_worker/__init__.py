"""The program inside the sandbox: starts the agent, reports what it does, takes messages, hands out the result.

Bare Python >= 3.9, standard library only. docs/worker-protocol.md is its contract.
"""

__version__ = "0.1.0"
