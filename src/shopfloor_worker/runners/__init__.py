"""Agents that are Python packages, run as programs of their own inside the sandbox, by the Python that has the package."""
