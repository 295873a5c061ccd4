"""The HTTP door of the git gate: git's smart protocol for a sandbox's own clone. Its errors are text, which git shows."""

import asyncio
import io
import os
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import IO

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from shopfloor.auth import guard
from shopfloor.kit.errors import Problem, TooLarge
from shopfloor.workorders.gate_rules import BadPush, advertisement, announced
from shopfloor.workorders.routes import tools
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.gate import Guest, NoSuchRepository, admit, lending, push

router = APIRouter()
CHUNK = 1 << 18
MOST_ASKED = 16 << 20
"""Bytes of a request to fetch."""
FETCH, PUSH = "git-upload-pack", "git-receive-pack"
Serve = Callable[[Tools, Guest, Request], Awaitable[Response]]


class PushTooLarge(TooLarge):
    """The push is larger than a sandbox may hand out."""


class NoSuchService(NoSuchRepository):
    """Only git's smart protocol is spoken here."""

    hint = "Use git itself: git fetch origin, git push origin HEAD."


def _served(serve: Serve) -> Callable[[Request], Awaitable[Response]]:
    """The route of a service: who asks is let in first, and what is refused is told as text."""

    async def route(request: Request) -> Response:
        try:
            caller, house = await guard.sandbox(request), tools(request)
            guest = await admit(house, caller.sandbox_id or "", request.path_params.get("order_id", ""))
            return await serve(house, guest, request)
        except Problem as problem:
            return PlainTextResponse(f"{problem.message.rstrip('.')}. {problem.hint}\n", problem.status)
        except ClientDisconnect:  # its git was stopped
            return Response(status_code=400)

    return route


async def _offer(house: Tools, guest: Guest, request: Request) -> Response:
    """What can be fetched, or pushed to."""
    service = request.query_params.get("service", "")
    if service not in {FETCH, PUSH}:
        raise NoSuchService
    async with _alone(house, f"{guest.attempt.sandbox_id} asks"), house.imports, lending(house, guest) as view:
        offered = advertisement(view.heads) if service == PUSH else await view.offered()
    return _answer(announced(service) + offered, f"{service}-advertisement")


async def _fetch(house: Tools, guest: Guest, request: Request) -> Response:
    """Commits for the sandbox. They wait in a nameless file until it has read them."""
    asked = io.BytesIO()
    await _spool(request, asked, MOST_ASKED)
    async with _alone(house, f"{guest.attempt.sandbox_id} fetches"), house.imports, lending(house, guest) as view:
        answer = tempfile.TemporaryFile(dir=view.folder, buffering=0)  # noqa: SIM115 - read to its end after this
        await view.answer(asked.getvalue(), answer)
    answer.seek(0)
    return StreamingResponse(_pieces(answer), media_type=f"application/x-{FETCH}-result", headers=NEVER_KEPT)


async def _push(house: Tools, guest: Guest, request: Request) -> Response:
    """Commits of the sandbox."""
    async with _alone(house, f"{guest.attempt.sandbox_id} pushes"), lending(house, guest) as view:
        with tempfile.TemporaryFile(dir=view.folder, buffering=0) as body:
            await _spool(request, body, 2 * house.settings.max_upload_bytes)
            size = os.fstat(body.fileno()).st_size
            body.seek(0)
            report = await push(house, guest, view, body, size)
    return _answer(report, f"{PUSH}-result")


def _alone(house: Tools, name: str) -> asyncio.Lock:
    """One at a time for each sandbox: each holds a share of the disk, and of the turns in which everybody's commits are taken in."""
    return house.uploads.setdefault(name, asyncio.Lock())


async def _spool(request: Request, file: IO[bytes], most: int) -> None:
    """Write a request's body to a file, unpacked. Raises PushTooLarge, BadPush."""
    size = 0
    async for piece in _plain(request):
        size += len(piece)
        if size > most:
            raise PushTooLarge(f"the request is larger than {most} bytes")
        file.write(piece)


async def _plain(request: Request) -> AsyncIterator[bytes]:
    packed = request.headers.get("content-encoding", "identity")
    if packed not in {"identity", "gzip", "x-gzip"}:
        raise BadPush(f"the encoding {packed[:40]!r} is not understood")
    inflate = zlib.decompressobj(wbits=31)
    async for piece in request.stream():
        if packed == "identity":
            yield piece
            continue
        rest = piece
        while rest:
            try:
                yield inflate.decompress(rest, CHUNK)
            except zlib.error as error:
                raise BadPush("the request is not properly compressed") from error
            rest = inflate.unconsumed_tail


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(CHUNK):
            yield piece


NEVER_KEPT = {"Cache-Control": "no-cache"}


def _answer(body: bytes, kind: str) -> Response:
    return Response(body, media_type=f"application/x-{kind}", headers=NEVER_KEPT)


async def _unknown(_house: Tools, _guest: Guest, _request: Request) -> Response:
    raise NoSuchService


REPOSITORY = "/git/{order_id}.git"
router.add_route(f"{REPOSITORY}/info/refs", _served(_offer), methods=["GET"], include_in_schema=False)
router.add_route(f"{REPOSITORY}/{FETCH}", _served(_fetch), methods=["POST"], include_in_schema=False)
router.add_route(f"{REPOSITORY}/{PUSH}", _served(_push), methods=["POST"], include_in_schema=False)
router.add_route("/git/{path:path}", _served(_unknown), methods=["GET", "POST"], include_in_schema=False)
