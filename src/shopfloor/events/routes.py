"""The events' HTTP door: post, history, trajectory, live streams."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Receive, Scope, Send

from shopfloor.auth import guard
from shopfloor.events import ingest, live, log
from shopfloor.events.log import Filters, Position
from shopfloor.kit.clock import iso
from shopfloor.kit.db import Database
from shopfloor.kit.errors import Malformed, NotFound, Problem, TooLarge
from shopfloor.kit.http import ProblemDocument, Schema, problem_response

MOST_BODY = 4 * 1024 * 1024
LIST = r"^[A-Za-z0-9][A-Za-z0-9_.:, -]{0,9999}$"

SandboxId = Annotated[
    str, Path(pattern=f"^{guard.SANDBOX_ID}$", description="Any id; an unknown one is an external sandbox.")
]
Place = Annotated[
    str | None, Query(pattern=r"^([0-9]{1,18}-)?[0-9]{1,18}$", description="A position; 0 is the beginning.")
]
Words = Annotated[str | None, Query(pattern=LIST, description="Comma-separated list.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Order = Literal["asc", "desc"]


class SandboxUnknown(NotFound):
    """There is no such sandbox."""


class BadFilter(Malformed):
    """The filter is not well formed."""


class BodyTooLarge(TooLarge):
    """The request body is larger than allowed."""


class EventView(Schema):
    """An event on the wire."""

    position: str
    event_type: str
    entity_type: str
    entity_id: str
    payload: dict[str, Any]
    source: str
    work_order_id: str | None
    sandbox_id: str | None
    seq: int | None
    occurred_at: str | None
    recorded_at: str


class EventPage(Schema):
    """A page of history: go on with `after=newer` or `before=older`."""

    events: list[EventView]
    older: str | None
    newer: str | None
    has_more: bool


class HeartbeatSummary(Schema):
    """All heartbeats, folded."""

    count: int
    first: str | None
    last: str | None


class Trajectory(EventPage):
    """What a sandbox did, without the noise."""

    sandbox_id: str
    heartbeats: HeartbeatSummary


class EventPost(Schema):
    """One event of a sandbox."""

    event_type: str = Field(pattern=f"^{ingest.EVENT_TYPE}$")
    event_data: dict[str, Any] | None = None
    source: str = Field("agent", pattern=f"^{ingest.SOURCE}$")
    seq: int | None = Field(None, ge=1, le=2**63 - 1)
    occurred_at: str | None = Field(None, json_schema_extra={"format": "date-time"})


class EventBatch(Schema):
    """Many events of a sandbox."""

    events: list[EventPost] = Field(max_length=ingest.MOST_EVENTS)


class PostAnswer(Schema):
    """Everything in the post is stored."""

    accepted: int
    duplicates: int
    last_seq: int | None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem documents a route may answer, for OpenAPI."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": "Problem", "model": ProblemDocument, "content": content} for status in statuses}


def _one_or_many() -> dict[str, Any]:
    """The request body of a post: a single event or a batch."""
    one, many = EventPost.model_json_schema(), EventBatch.model_json_schema()
    many.pop("$defs")
    many["properties"]["events"]["items"] = one
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": [one, many]}}}}}


class Raw(Response):
    """Bytes that are JSON already."""

    media_type = "application/json"


sandbox_routes = APIRouter(tags=["events"], responses=problems(401, 403, 404, 422, 503))
event_routes = APIRouter(tags=["events"], responses=problems(401, 403, 422, 503))


@sandbox_routes.post(
    "/{sandbox_id}/events", responses={200: {"model": PostAnswer}, **problems(413)}, openapi_extra=_one_or_many()
)
async def post_events(request: Request, sandbox_id: SandboxId) -> Raw:
    """Store one event or a batch; answered after the commit. A repeated seq is stored once."""
    await guard.sandbox_or_person(request, sandbox_id)
    stored = await request.app.state.ingest.post(sandbox_id, await _body(request))
    return Raw(orjson.dumps(stored._asdict()))


@sandbox_routes.get("/{sandbox_id}/events", responses={200: {"model": EventPage}})
async def sandbox_history(
    request: Request,
    sandbox_id: SandboxId,
    event_types: Words = None,
    after: Place = None,
    before: Place = None,
    limit: Limit = 100,
    order: Order = "asc",
) -> Raw:
    """What is known about a sandbox, in order."""
    await guard.sandbox_or_person(request, sandbox_id)
    filters = Filters(frozenset({"sandbox"}), frozenset({sandbox_id}), words(event_types))
    body = await _page(request, filters, after, before, limit, order)
    await _known(request, sandbox_id, body)
    return Raw(orjson.dumps(body))


@sandbox_routes.get("/{sandbox_id}/trajectory", responses={200: {"model": Trajectory}})
async def trajectory(
    request: Request,
    sandbox_id: SandboxId,
    after: Place = None,
    before: Place = None,
    limit: Limit = 100,
    order: Order = "asc",
) -> Raw:
    """What a sandbox did: heartbeats folded, noise left out."""
    await guard.sandbox_or_person(request, sandbox_id)
    filters = Filters(frozenset({"sandbox"}), frozenset({sandbox_id}))
    body = await _page(request, filters, after, before, limit, order, without=log.NOISE)
    await _known(request, sandbox_id, body)
    async with request.app.state.database.reading() as session:
        beats = await log.heartbeats(session, sandbox_id)
    folded = {"count": beats.number, "first": iso(beats.first), "last": iso(beats.last)}
    return Raw(orjson.dumps({"sandbox_id": sandbox_id, "heartbeats": folded, **body}))


@event_routes.get("", responses={200: {"model": EventPage}}, dependencies=[Depends(guard.person)])
async def all_history(
    request: Request,
    entity_types: Words = None,
    entity_ids: Words = None,
    event_types: Words = None,
    after: Place = None,
    before: Place = None,
    limit: Limit = 100,
    order: Order = "asc",
) -> Raw:
    """Everything that ever happened, in order."""
    filters = Filters(words(entity_types), words(entity_ids), words(event_types))
    return Raw(orjson.dumps(await _page(request, filters, after, before, limit, order)))


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncIterator[bytes], status_code: int = 200) -> None:
        super().__init__(frames, status_code, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI; a client that leaves is no error."""
        try:
            await super().__call__(scope, receive, send)
        except ClientDisconnect:
            return


@event_routes.get(
    "/stream",
    response_class=EventStream,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(guard.person)],
)
async def stream(
    request: Request,
    entity_types: Words = None,
    entity_ids: Words = None,
    event_types: Words = None,
    after: Place = None,
) -> EventStream:
    """Live events as server-sent events; `Last-Event-ID` or `after` replays first. Without either: from now on."""
    filters = Filters(words(entity_types), words(entity_ids), words(event_types))
    start = await live.starting_point(request, request.headers.get("last-event-id") or after)
    return EventStream(live.over_sse(request.app.state.hub, filters, start))


async def websocket_events(websocket: WebSocket) -> None:
    """Live events over a WebSocket: query entity_types, entity_ids, event_types, after, batch=1."""
    query = websocket.query_params
    try:
        await guard.person(websocket)
        filters = Filters(*(words(query.get(name)) for name in ("entity_types", "entity_ids", "event_types")))
        after = await live.starting_point(websocket, query.get("after"))
    except Problem as problem:
        await _deny(websocket, problem)
        return
    batch = query.get("batch") in {"1", "true"}
    await live.over_websocket(websocket, websocket.app.state.hub, filters, after, batch=batch)


router = APIRouter(prefix="/api/v1")
router.include_router(event_routes, prefix="/events")
router.include_router(sandbox_routes, prefix="/sandboxes")
router.include_router(sandbox_routes, prefix="/sandbox", include_in_schema=False)
for path in ("/events/ws/events", "/ws/events"):
    router.add_api_websocket_route(path, websocket_events)


def words(text: str | None) -> frozenset[str]:
    """A comma-separated list; raises BadFilter."""
    found = frozenset(word for part in (text or "").split(",") if (word := part.strip()))
    if len(found) > 200 or not all(len(word) <= 255 and word.isascii() and word.isprintable() for word in found):
        raise BadFilter("a filter is a comma-separated list of at most 200 words")
    return found


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MOST_BODY:
                raise BodyTooLarge(f"the body is larger than {MOST_BODY} bytes")
            parts.append(chunk)
    except ClientDisconnect:
        raise Malformed("the client left in the middle of the body") from None
    return b"".join(parts)


async def _page(
    connection: HTTPConnection,
    filters: Filters,
    after: str | None,
    before: str | None,
    limit: int,
    order: Order,
    *,
    without: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    database: Database = connection.app.state.database
    bounds = [None if text is None else log.position(text, sqlite=database.sqlite) for text in (after, before)]
    async with database.reading() as session:
        rows = await log.history(
            session,
            filters,
            after=bounds[0],
            before=bounds[1],
            newest_first=order == "desc",
            limit=limit + 1,
            without=without,
        )
    has_more, rows = len(rows) > limit, rows[:limit]
    places = sorted(_place(row) for row in rows)
    return {
        "events": [orjson.Fragment(log.encode(row)) for row in rows],
        "older": str(places[0]) if places else None,
        "newer": str(places[-1]) if places else after,
        "has_more": has_more,
    }


def _place(row: Sequence[Any]) -> Position:
    return Position(row[0], row[1])


async def _known(connection: HTTPConnection, sandbox_id: str, body: dict[str, Any]) -> None:
    """A sandbox is known when it is registered or anything was ever recorded about it."""
    if body["events"] or await connection.app.state.ingest.owner(sandbox_id) != (None, None):
        return
    async with connection.app.state.database.reading() as session:
        if not await log.exists(session, sandbox_id):
            raise SandboxUnknown(f"nothing is known of a sandbox {sandbox_id}")


async def _deny(websocket: WebSocket, problem: Problem) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(problem_response(problem.document()))
    else:
        await websocket.close(1008, problem.code)
