"""The doorman every route uses: people by key or by being on this machine, sandboxes by token, and only at their own door."""

import hmac
import re
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from shopfloor.auth.service import PREFIX, Grant, Tokens
from shopfloor.kit.errors import Forbidden, Problem, Unauthenticated
from shopfloor.kit.http import problem_response

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SANDBOX_ID = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}"
"""How sandbox ids look; external ones too."""
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}"
_DOOR = {
    "GET": re.compile(rf"/api/v1/sandboxes/({SANDBOX_ID})/messages/next"),
    "POST": re.compile(rf"/api/v1/sandboxes/({SANDBOX_ID})/(?:events|results|messages/{_NAME}/receipts)"),
    "PUT": re.compile(rf"/api/v1/sandboxes/({SANDBOX_ID})/artifacts/{_NAME}"),
}
_TASKS = re.compile(
    rf"/api/v1/(?:sandbox(?:es)?/task/{_NAME}/results|results/{_NAME}|tasks/{_NAME}/register-conversation)"
)
"""What a sandbox may say of the task that it works on; whose that is, the route looks up."""
_MODELS = re.compile(r"/models/[A-Za-z0-9_-]{1,60}/.+")
_GIT = re.compile(r"/git/.+")
_KEYS = ("x-api-key", "x-goog-api-key")
"""Where programs that talk to models put their key; here it is the sandbox's token."""


class NotYourSandbox(Forbidden):
    """This token belongs to another sandbox."""


class PeopleOnly(Forbidden):
    """A sandbox may not do this."""

    hint = "Sandbox tokens open only their own sandbox's routes."


class SandboxesOnly(Forbidden):
    """Only sandboxes may do this, at their own door."""

    hint = "Ask the provider, or the repository, yourself."


class ForeignOrigin(Forbidden):
    """Requests from another site's pages are refused."""

    hint = "Open the page at the server's own address, or set api_key to serve other hosts."


class Caller(NamedTuple):
    """Who asks: a person, or a sandbox with its fencing number."""

    sandbox_id: str | None = None
    fencing: int | None = None

    @property
    def is_person(self) -> bool:
        """Whether a person asks."""
        return self.sandbox_id is None


async def person(connection: HTTPConnection) -> Caller:
    """Let people in: with the API key when one is set, else from this machine's own pages and programs."""
    if at_sandbox_door(connection.scope):
        raise PeopleOnly("this door is for sandboxes")
    token = _bearer(connection)
    if token is not None and token.startswith(f"{PREFIX}_"):
        raise PeopleOnly
    settings = connection.app.state.settings
    if settings.api_key:
        if token is None or not hmac.compare_digest(token.encode(), settings.api_key.encode()):
            raise Unauthenticated("the API key is missing or wrong")
    else:
        _refuse_foreign(connection, settings.host)
    return Caller()


async def sandbox_or_person(connection: HTTPConnection, sandbox_id: str) -> Caller:
    """Let the sandbox itself in by its token, or a person."""
    token = _bearer(connection)
    if at_sandbox_door(connection.scope) or (token is not None and token.startswith(f"{PREFIX}_")):
        grant = await _checked(connection.app, token, sandbox_id)
        return Caller(*grant)
    return await person(connection)


async def task_caller(connection: HTTPConnection) -> Caller:
    """Let any sandbox in by its token, or a person; the route asks whether the task is the sandbox's."""
    token = _bearer(connection)
    if at_sandbox_door(connection.scope) or (token is not None and token.startswith(f"{PREFIX}_")):
        return Caller(*await _granted(connection.app, token))
    return await person(connection)


async def model_caller(connection: HTTPConnection) -> Caller:
    """Let a sandbox in, by its own door, that shows its token as the key of a model."""
    if not at_sandbox_door(connection.scope):
        raise SandboxesOnly
    return Caller(*await _granted(connection.app, model_key(connection)))


async def sandbox(connection: HTTPConnection) -> Caller:
    """Let a sandbox in, by its own door, with its token."""
    if not at_sandbox_door(connection.scope):
        raise SandboxesOnly
    return Caller(*await _granted(connection.app, _bearer(connection)))


def model_key(connection: HTTPConnection) -> str | None:
    """The key in a request to a model, wherever its provider's programs put it."""
    shown = (connection.headers.get(name) for name in _KEYS)
    return next((key for key in shown if key), None) or _bearer(connection) or connection.query_params.get("key")


def at_sandbox_door(scope: Scope) -> bool:
    """Whether the request came through a sandbox's gate: marked by SandboxDoor, or over a Unix socket."""
    if (scope.get("state") or {}).get("door") == "sandbox":
        return True
    server = scope.get("server")
    return server is None or (server[1] is None and (not server[0] or "/" in server[0]))


class SandboxDoor:
    """ASGI: what comes through a sandbox's gate reaches that sandbox's own routes, with its token, and nothing else.

    Around the whole app it guards what comes over Unix sockets.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan" or not at_sandbox_door(scope):
            await self.app(scope, receive, send)
            return
        try:
            await self._admit(scope)
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        scope["state"] = {**(scope.get("state") or {}), "door": "sandbox"}
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        app = scope.get("app") or self.app
        if scope["type"] == "http" and _MODELS.fullmatch(scope["path"]):
            await _granted(app, model_key(HTTPConnection(scope)))
            return
        told = scope["type"] == "http" and scope["method"] == "POST" and _TASKS.fullmatch(scope["path"])
        if told or (scope["type"] == "http" and _GIT.fullmatch(scope["path"])):
            await _granted(app, _bearer(HTTPConnection(scope)))
            return
        allowed = _DOOR.get(scope["method"]) if scope["type"] == "http" else None
        match = allowed.fullmatch(scope["path"]) if allowed else None
        if not match:
            raise PeopleOnly("this door does not lead there")
        await _checked(app, _bearer(HTTPConnection(scope)), match[1])


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
    else:
        await problem_response(problem.document())(scope, receive, send)


async def _granted(app: Any, token: str | None) -> Grant:
    if token is None:
        raise Unauthenticated("a sandbox token is needed")
    grant = await _tokens(app).check(token)
    if grant is None:
        raise Unauthenticated("the sandbox token is unknown or revoked")
    return grant


async def _checked(app: Any, token: str | None, sandbox_id: str) -> Grant:
    grant = await _granted(app, token)
    if grant.sandbox_id != sandbox_id:
        raise NotYourSandbox
    return grant


def _tokens(app: Any) -> Tokens:
    if not hasattr(app.state, "tokens"):
        app.state.tokens = Tokens(app.state.database)
    tokens: Tokens = app.state.tokens
    return tokens


def _bearer(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None


def _refuse_foreign(connection: HTTPConnection, configured: str) -> None:
    """A page of another site, or a name that was rebound to this machine, must not speak through the user's browser."""
    headers = connection.headers
    host = headers.get("host", "")
    if _name(host) not in LOOPBACK | {configured}:
        raise ForeignOrigin(f"the host {host[:100]!r} is not this server's")
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise ForeignOrigin(f"the origin {origin[:100]!r} is foreign")
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise ForeignOrigin("the browser says that another site asks")


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
