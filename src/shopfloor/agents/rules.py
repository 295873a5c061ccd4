"""The law of agents: what each adapter can do, which options and script actions exist, what a command is. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from shopfloor.kit.errors import Conflict, Malformed

MOST_COMMAND = 64 * 1024
COMMAND_NAME = re.compile(r"[a-z][a-z0-9_-]{0,59}")
SHIPPED = ("plan", "build", "test")


class Steer(StrEnum):
    """What becomes of a message to an agent that is busy."""

    NONE = "none"
    JOIN = "join"
    """The running turn takes it in."""
    QUEUE = "queue"
    """It is said after the running turn."""
    REPLACE = "replace"
    """The running turn is stopped for it."""


class Cost(StrEnum):
    """What an agent tells about its cost."""

    NONE = "none"
    USD = "usd"
    TOKENS = "tokens"


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What an adapter can do; faces show it, the platform never assumes more."""

    steer: Steer
    interrupt: bool
    resume: bool
    cost: Cost
    permissions: bool
    """Whether a profile can allow and deny single tools."""
    models: bool
    """Whether a model can be chosen."""


CAPABILITIES: Mapping[str, Capability] = {
    "claude": Capability(steer=Steer.JOIN, interrupt=True, resume=True, cost=Cost.USD, permissions=True, models=True),
    "codex": Capability(steer=Steer.JOIN, interrupt=True, resume=True, cost=Cost.TOKENS, permissions=True, models=True),
    "acp": Capability(steer=Steer.QUEUE, interrupt=True, resume=True, cost=Cost.USD, permissions=True, models=True),
    "openhands": Capability(
        steer=Steer.JOIN, interrupt=True, resume=True, cost=Cost.TOKENS, permissions=False, models=True
    ),
    "mini": Capability(
        steer=Steer.JOIN, interrupt=True, resume=False, cost=Cost.TOKENS, permissions=False, models=True
    ),
    "script": Capability(
        steer=Steer.JOIN, interrupt=True, resume=False, cost=Cost.USD, permissions=False, models=False
    ),
}
"""Of acp: what the protocol gives; each program's profile says more."""


def capability(adapter: str, *, steer: Steer | None = None, models: bool = True) -> Capability:
    """What an adapter can do with a program of a certain kind."""
    found = CAPABILITIES[adapter]
    return replace(found, steer=steer or found.steer, models=found.models and models)


class CannotBeSteered(Conflict):
    """This agent takes nothing in while it works."""

    hint = "Interrupt it with what it is to do instead, or wait for its end and retry the order with a prompt."


class CannotBeInterrupted(Conflict):
    """This agent cannot be interrupted."""

    hint = "Cancel the work order: its sandbox is ended, what was committed stays."


class CannotChooseModel(Malformed):
    """This agent's model cannot be chosen."""

    hint = "Leave the model out, or name it in the agent's profile where its program is set up."


def check_message(agent: str, can: Capability, *, interrupt: bool) -> None:
    """Whether a busy agent can be told something. Raises CannotBeSteered or CannotBeInterrupted."""
    if interrupt and not can.interrupt:
        raise CannotBeInterrupted(f"agent {agent!r} cannot be interrupted")
    if not interrupt and can.steer == Steer.NONE:
        raise CannotBeSteered(f"agent {agent!r} cannot be told anything while it works")


def check_model(agent: str, can: Capability, model: str | None) -> None:
    """Whether a model can be asked for. Raises CannotChooseModel."""
    if model and not can.models:
        raise CannotChooseModel(f"agent {agent!r} works with the model it is set up with, not with {model!r}")


OPTIONS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "claude": {
        "max_turns": (int,),
        "max_budget_usd": (int, float),
        "setting_sources": (str,),
        "guardian_priority": (str,),
    },
    "codex": {"effort": (str,)},
    "acp": {},
    "openhands": {"max_iterations": (int,)},
    "mini": {"max_turns": (int,)},
    "script": {"script": (dict, list)},
}
"""What a work order may say beside its profile, by adapter."""

VERBS = frozenset(
    {
        *("say", "think", "write", "append", "delete", "run", "delay", "wait_for_message"),
        *("usage", "fail", "crash", "exit", "ignore_interrupt"),
    }
)
QUALIFIERS = frozenset({"if_attempt"})


class BadScript(Malformed):
    """The script is not well formed."""

    hint = f"An action is a mapping with one of: {', '.join(sorted(VERBS))}."


class BadOption(Malformed):
    """The agent has no such option."""


class BadCommand(Malformed):
    """The command file is not usable."""


def check_script(script: Any) -> None:
    """Judge a script: a list of actions, or a mapping of step name to list. Raises BadScript naming the action."""
    lists = script if isinstance(script, dict) else {"": script}
    for step, actions in lists.items():
        where = f"script.{step}" if step else "script"
        if not isinstance(actions, list):
            raise BadScript(f"{where}: must be a list of actions")
        for number, action in enumerate(actions, 1):
            _check_action(f"{where}, action {number}", action)


def _check_action(where: str, action: Any) -> None:
    named = {action} if isinstance(action, str) else set(action) if isinstance(action, dict) else set()
    verbs = named - QUALIFIERS
    if len(verbs) != 1 or not verbs <= VERBS:
        raise BadScript(f"{where}: {sorted(map(str, named)) or action!r} is not one known action")
    if verbs & {"write", "append"}:
        given = action[verbs.pop()] if isinstance(action, dict) else None
        if not isinstance(given, dict) or not isinstance(given.get("path"), str):
            raise BadScript(f"{where}: needs a path and content")
        if given["path"].startswith("/") or ".." in given["path"].split("/"):
            raise BadScript(f"{where}: the path {given['path']!r} must lie inside the workspace")


def check_options(adapter: str, options: Mapping[str, Any]) -> None:
    """Judge what a work order says beside its profile. Raises BadOption or BadScript."""
    known = OPTIONS[adapter]
    for name, value in options.items():
        if name not in known:
            raise BadOption(
                f"agent_options.{name}: the {adapter} agent has no such option",
                hint=f"It has: {', '.join(known) or 'none'}.",
            )
        if not isinstance(value, known[name]) or isinstance(value, bool):
            kinds = " or ".join(kind.__name__ for kind in known[name])
            raise BadOption(f"agent_options.{name}: must be {kinds}")
    if adapter == "script" and "script" in options:
        check_script(options["script"])


@dataclass(frozen=True, kw_only=True)
class Command:
    """A prompt with a name: `.claude/commands/NAME.md` of the repository, or one of ours."""

    name: str
    body: str
    source: str
    """repository or shipped."""


_PLACE = re.compile(r"\$(ARGUMENTS|ORDER_ID)\b")


def fill(command: Command, arguments: str, order_id: str) -> str:
    """The prompt: what was asked for stands where the command says, else at its end."""
    values = {"ARGUMENTS": arguments.strip(), "ORDER_ID": order_id}
    prompt = _PLACE.sub(lambda match: values[match[1]], command.body)
    if "$ARGUMENTS" not in command.body and arguments.strip():
        prompt = f"{prompt}\n\nARGUMENTS: {values['ARGUMENTS']}"
    return prompt
