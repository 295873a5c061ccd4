"""Logging: structlog, a console in a terminal and JSON lines otherwise, secrets filtered. Event names are noun_verb_past."""

import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import structlog

SECRET_VALUE = re.compile(
    r"(gh[psour]_\w{8,}|github_pat_\w{8,}|sk-[\w-]{8,}|sfs_[\w-]{8,}|x-access-token:[^@\s]+|(?i:bearer)\s+[\w.~+/=-]{8,})"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SECRET_KEY = re.compile(r"(?i)(^|_)(token|secret|password|api_?key|authorization|credentials?)$")
HIDDEN = "[hidden]"


def redact(value: Any) -> Any:
    """The same value with anything that looks like a credential replaced, and nothing in it that a terminal would obey."""
    if isinstance(value, str):
        return CONTROL.sub("\ufffd", SECRET_VALUE.sub(HIDDEN, value))
    if isinstance(value, dict):
        return {k: HIDDEN if isinstance(k, str) and SECRET_KEY.search(k) else redact(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v) for v in value]
    return value


def _redact(_logger: Any, _method: str, event: Any) -> Any:
    return redact(event)


_sinks: list[Callable[[Mapping[str, Any]], None]] = []


def also_to(sink: Callable[[Mapping[str, Any]], None]) -> None:
    """Hand every structured event, redacted, to `sink` too."""
    _sinks.append(sink)


def _to_sinks(_logger: Any, _method: str, event: Any) -> Any:
    for sink in _sinks:
        sink(event)
    return event


def configure(level: str = "info", *, json: bool | None = None) -> None:
    """Set up structlog and the standard library's loggers, once, at the start of a process."""
    as_json = not sys.stderr.isatty() if json is None else json
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[*shared, _to_sinks, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("uvicorn.access", "httpx", "httpcore", "aiosqlite", "dbos"):
        logging.getLogger(noisy).setLevel("WARNING")


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of a module: `log = get(__name__)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
