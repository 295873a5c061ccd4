"""The HTTP side of the house: problem documents, JSON by orjson, schemas that do not forget fields."""

import math
import re
import uuid
from datetime import datetime
from typing import Annotated, Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, PlainSerializer, model_validator
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shopfloor.kit import log
from shopfloor.kit.clock import iso
from shopfloor.kit.errors import Problem, TooLarge

logger = log.get(__name__)

DATA_EXCEPTION = "22"
"""Class of SQLSTATE: the value itself is refused."""
BROKEN = re.compile("[\ud800-\udfff]")
MOST_BODY = 4 << 20
"""Bytes of a JSON body."""

Timestamp = Annotated[datetime, PlainSerializer(iso, return_type=str)]
"""An instant on the wire: ISO 8601, UTC, microseconds, Z."""


class Schema(BaseModel):
    """Base of every request and response body; unknown fields in a request are an error."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class Body(Schema):
    """Base of request bodies whose text goes into the database as it is."""

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, data: Any) -> Any:
        try:
            storable = not isinstance(data, dict) or _is_storable(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not storable:
            raise ValueError("text must not contain NUL or broken characters, nor numbers be infinite")
        return data


def _is_storable(value: Any) -> bool:
    """Whether every database can keep it: PostgreSQL's text and JSON know no NUL, no lone surrogate, no NaN."""
    if isinstance(value, str):
        return "\x00" not in value and (value.isascii() or not BROKEN.search(value))
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_storable(key) and _is_storable(item) for key, item in value.items())
    return not isinstance(value, list) or all(map(_is_storable, value))


class ProblemDocument(BaseModel):
    """How every error is answered (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str


def problem_response(document: dict[str, Any]) -> Response:
    """A problem document as an answer."""
    headers = {"WWW-Authenticate": "Bearer"} if document["status"] == 401 else {}
    if document["status"] == 503:
        headers["Retry-After"] = "1"
    return Response(
        orjson.dumps(document, default=str), document["status"], headers, media_type="application/problem+json"
    )


def install_problems(app: FastAPI) -> None:
    """Answer every error of the app with a problem document."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> Response:
        return problem_response(error.document())

    @app.exception_handler(RequestValidationError)
    async def _malformed(_request: Request, error: RequestValidationError) -> Response:
        errors = [{"where": ".".join(map(str, e["loc"])), "what": e["msg"]} for e in error.errors()[:20]]
        first = errors[0] if errors else {"where": "body", "what": "malformed"}
        return problem_response(
            _plain(422, "malformed", f"{first['where']}: {first['what']}", "Correct the fields named in 'errors'.")
            | {"errors": errors}
        )

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        codes = {404: "route_not_found", 405: "method_not_allowed"}
        code = codes.get(error.status_code, f"http_{error.status_code}")
        return problem_response(
            _plain(error.status_code, code, str(error.detail), "See /openapi.json for what exists.")
        )

    _install_failures(app)


def _install_failures(app: FastAPI) -> None:
    """What is nobody's wish: the database away, and everything unforeseen."""

    @app.exception_handler(InterfaceError)
    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    async def _database(request: Request, error: Exception) -> Response:
        logger.error("database_failed", path=request.url.path, method=request.method, exc_info=error)
        return problem_response(
            _plain(503, "database_unavailable", "The database did not do this.", "Try again; nothing was half done.")
        )

    @app.exception_handler(IntegrityError)
    async def _raced(request: Request, error: Exception) -> Response:
        logger.warning("request_raced", path=request.url.path, method=request.method, error=str(error))
        return problem_response(
            _plain(409, "raced", "Another request did this at the same moment.", "Look at what is there; then repeat.")
        )

    @app.exception_handler(DBAPIError)
    async def _refused(request: Request, error: DBAPIError) -> Response:
        if not str(getattr(error.orig, "sqlstate", "")).startswith(DATA_EXCEPTION):
            return await _unexpected(request, error)
        return problem_response(
            _plain(
                422, "malformed", "A value holds what the database cannot keep.", "Leave out NUL and broken characters."
            )
        )

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        logger.error("request_failed", path=request.url.path, method=request.method, exc_info=error)
        return problem_response(
            _plain(
                500,
                "internal_error",
                "The server failed to handle this.",
                "It is in the server's log; please report it.",
            )
        )


def _plain(status: int, code: str, detail: str, hint: str) -> dict[str, Any]:
    return {
        "type": f"urn:shopfloor:problem:{code}",
        "title": detail,
        "status": status,
        "detail": detail,
        "code": code,
        "hint": hint,
    }


class RequestId:
    """Binds a request id to every log line of a request and answers it as X-Request-Id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin1")
        request_id = given if given.isascii() and given.isprintable() and 0 < len(given) <= 64 else uuid.uuid4().hex

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self.app(scope, receive, answer)


class BodyTooLarge(TooLarge):
    """The request's body is larger than allowed."""


class BodyLimit:
    """Refuses bodies over MOST_BODY bytes before anything reads them whole; routes that stream limit themselves (`own`)."""

    def __init__(self, app: ASGIApp, *, own: re.Pattern[str]) -> None:
        self.app, self.own = app, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or self.own.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        left, started = MOST_BODY, False

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            nonlocal started
            if left >= 0 or started:
                started = True
                await send(message)

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) <= MOST_BODY:
            try:
                await self.app(scope, counted, answer)
            except ClientDisconnect:
                if left >= 0:
                    raise
            if left >= 0 or started:
                return
        problem = BodyTooLarge(f"the body is larger than {MOST_BODY} bytes")
        await problem_response(problem.document())(scope, receive, send)
