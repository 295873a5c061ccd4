"""Events in words: one line for a person, or nothing for what is noise to them."""

from collections.abc import Callable
from typing import IO, Any

from shopfloor.cli.render import clean, one_line, paint

Payload = dict[str, Any]
Line = tuple[str, str, str] | None
"""Symbol, style, text."""


def line(event: dict[str, Any], *, width: int = 160, stream: IO[str] | None = None) -> str | None:
    """The event as a line to print, with its time; None when it says nothing to a person."""
    told = tell(event)
    if told is None:
        return None
    symbol, style, text = told
    clock = str(event.get("recorded_at") or "")[11:19]
    return f"{paint(clean(clock), 'dim', stream)} {paint(symbol, style, stream)} {paint(one_line(text, width), style, stream)}"


def tell(event: dict[str, Any]) -> Line:
    """Symbol, style and untrusted text of an event."""
    payload = event.get("payload")
    teller = TELLERS.get(str(event.get("event_type")))
    return teller(payload if isinstance(payload, dict) else {}) if teller else None


def _say(symbol: str, style: str, template: str) -> Callable[[Payload], Line]:
    return lambda payload: (symbol, style, template.format_map(_Known(payload)))


class _Known(dict[str, Any]):
    """What a template finds: nothing where the event says nothing."""

    def __init__(self, payload: Payload) -> None:
        super().__init__({key: value for key, value in payload.items() if value is not None})

    def __missing__(self, key: str) -> str:
        return ""


def _status(payload: Payload) -> Line:
    after = str(payload.get("after", ""))
    style = {"running": "cyan", "failed": "red", "completed": "green", "cancelled": "magenta"}.get(after, "yellow")
    if after in {"completed", "failed", "cancelled"}:
        return None  # work_order.finished says it
    return "●", style, f"{after}: {payload.get('reason', '')}"


def _finished(payload: Payload) -> Line:
    status = str(payload.get("status", ""))
    symbol, style = {"completed": ("✔", "bold green"), "cancelled": ("■", "magenta")}.get(status, ("✘", "bold red"))
    return symbol, style, f"{status}: {payload.get('reason', '')}"


def _attempt(payload: Payload) -> Line:
    if payload.get("after") == "lost":
        return "↯", "red", f"attempt lost: {payload.get('reason', '')}"
    return None


def _message(payload: Payload) -> Line:
    text = str(payload.get("text", ""))
    return None if payload.get("partial") or not text.strip() else ("»", "", text)


def _tool(payload: Payload) -> Line:
    given = payload.get("input")
    shown = given
    if isinstance(given, dict):
        shown = next((given[k] for k in ("command", "path", "file_path", "pattern", "url") if k in given), given or "")
    return "⚙", "blue", f"{payload.get('name') or payload.get('kind', '')} {shown or ''}"


def _tool_result(payload: Payload) -> Line:
    if payload.get("ok", True):
        return None
    return "✘", "yellow", f"tool failed: {payload.get('output', '')}"


def _ended(payload: Payload) -> Line:
    code = payload.get("exit_code")
    return None if code == 0 else ("✘", "yellow", f"exit code {code}")


def _commit(payload: Payload) -> Line:
    return "◆", "green", f"commit {str(payload.get('sha', ''))[:9]} {payload.get('subject', '')}"


def _receipt(payload: Payload) -> Line:
    after = payload.get("after")
    return ("✉", "magenta", f"message {after}") if after in {"delivered", "seen", "failed", "expired"} else None


def _turn(payload: Payload) -> Line:
    reason = payload.get("reason")
    return None if reason == "done" else ("!", "yellow", f"turn ended: {reason} {payload.get('detail', '')}")


def _sandbox(payload: Payload) -> Line:
    after = str(payload.get("after", "")).lower()
    if after == "running":
        return "□", "dim", "sandbox started"
    return ("✘", "red", f"sandbox failed: {payload.get('reason', '')}") if after == "failed" else None


TELLERS: dict[str, Callable[[Payload], Line]] = {
    "work_order.created": _say("●", "yellow", "accepted {repository_url}"),
    "work_order.status_changed": _status,
    "work_order.finished": _finished,
    "attempt.state_changed": _attempt,
    "attempt.adopted": _say("●", "yellow", "adopted by another engine"),
    "change.recorded": _say("⇧", "green", "delivered branch {branch}"),
    "sandbox.state_changed": _sandbox,
    "sandbox.heartbeat_missed": _say("!", "yellow", "silent: {missed} heartbeats missed ({verdict})"),
    "work.pinned": _say("⚓", "dim", "kept {kind} (pin {pin}): {note}"),
    "work.not_pinned": _say("✘", "red", "{reason}"),
    "work.pin_expired": _say("○", "dim", "pin {pin} ({kind}) let go: {reason}"),
    "work.leftovers_removed": _say("○", "dim", "{what} removed: {reason}"),
    "agent.restarted": _say("↻", "yellow", "restarted in a new sandbox: {reason}"),
    "agent.restarted_in_place": _say("↻", "yellow", "the agent died (exit code {exit_code}); started again"),
    "workflow.phase_started": _say("▶", "bold cyan", "{step} ({phase})"),
    "agent.started": _say("▷", "dim", "{adapter} {model} {program_version}"),
    "agent.message": _message,
    "agent.tool_use": _tool,
    "agent.tool_result": _tool_result,
    "agent.permission": _say("?", "yellow", "{tool}: {decision} by {by}"),
    "agent.retry": _say("↻", "yellow", "model busy ({status}), try {attempt} of {max_attempts}"),
    "agent.steered": _say("✉", "magenta", "the agent took the message in"),
    "agent.turn_end": _turn,
    "file.created": _say("+", "green", "{path}"),
    "file.modified": _say("~", "yellow", "{path}"),
    "file.deleted": _say("-", "red", "{path}"),
    "command.completed": _ended,
    "git.commit_created": _commit,
    "SANDBOX_MESSAGE_QUEUED": _say("✉", "magenta", "{content}"),
    "message.receipt_changed": _receipt,
}
