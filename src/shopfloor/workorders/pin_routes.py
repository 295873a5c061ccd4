"""The HTTP door of what is kept: list it, fetch it, let go what policy no longer keeps."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path as File
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import FileResponse, Response, StreamingResponse

from shopfloor.auth.guard import person
from shopfloor.forges.mirrors.keeping import NothingKept
from shopfloor.kit.db import Session
from shopfloor.workorders import queries
from shopfloor.workorders.models import Pin
from shopfloor.workorders.routes import OrderId, Tooled
from shopfloor.workorders.rules import PinKind
from shopfloor.workorders.schemas import GoingView, PinPage, PinView, SweepResponse
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.recover import PinGone, bundle, kept
from shopfloor.workorders.steps.retain import sweep

router = APIRouter(prefix="/api/v1", tags=["kept work"], dependencies=[Depends(person)])
PinId = Annotated[int, Path(ge=1, le=2**31 - 1)]
Limit = Annotated[int, Query(ge=1, le=500)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
CHUNK = 1 << 20
BRANCH = "recovered"


@router.get("/pins")
async def list_pins(house: Tooled, limit: Limit = 100, offset: Offset = 0) -> PinPage:
    """Everything kept of removed sandboxes, newest first; also of those that belong to no order."""
    async with house.database.reading() as session:
        return await _page(session, None, limit, offset)


@router.get("/agent-work-orders/{order_id}/pins")
async def list_order_pins(order_id: OrderId, house: Tooled, limit: Limit = 100, offset: Offset = 0) -> PinPage:
    """What is kept of an order's sandboxes beside what they handed out, newest first."""
    async with house.database.reading() as session:
        await queries.get(session, order_id)
        return await _page(session, order_id, limit, offset)


async def _page(session: Session, order_id: str | None, limit: int, offset: int) -> PinPage:
    rows, total = await queries.pins(session, order_id, limit=limit, offset=offset)
    found = [PinView.model_validate(row) for row in rows]
    return PinPage(pins=found, total_count=total, has_more=offset + len(found) < total)


@router.get("/pins/{pin_id}/content", response_class=Response)
async def pin_content(pin_id: PinId, house: Tooled) -> Response:
    """The archive (tar.gz) of files or logs; of commits, a git bundle."""
    async with house.database.reading() as session:
        return await _content(house, await queries.pin(session, None, pin_id))


@router.get("/agent-work-orders/{order_id}/pins/{pin_id}/content", response_class=Response)
async def order_pin_content(order_id: OrderId, pin_id: PinId, house: Tooled) -> Response:
    """The same, of one order's pins."""
    async with house.database.reading() as session:
        return await _content(house, await queries.pin(session, order_id, pin_id))


async def _content(house: Tools, pin: Pin) -> Response:
    if pin.gone_at is not None:
        raise PinGone(f"pin {pin.id} was let go at {pin.gone_at:%Y-%m-%d %H:%M} UTC")
    if pin.kind == PinKind.COMMITS:
        return await _branch(house, pin)
    if pin.kind == PinKind.NOTE:
        raise NothingKept(
            f"pin {pin.id} holds nothing: {pin.note[:300]}", hint="It only says what was left out, or why."
        )
    name = f"{pin.sandbox_id}-{pin.kind}.tar.gz"
    return FileResponse(house.blobs.path(pin.content), media_type="application/gzip", filename=name)


@router.get("/agent-work-orders/{order_id}/pins/{pin_id}/branch", response_class=Response)
async def pin_branch(
    order_id: OrderId,
    pin_id: PinId,
    house: Tooled,
) -> Response:
    """A git bundle of all that is kept of the pin's sandbox: the branch `recovered`, what was not committed as its last commit."""
    async with house.database.reading() as session:
        pin = await queries.pin(session, order_id, pin_id)
    return await _branch(house, pin)


async def _branch(house: Tools, pin: Pin) -> Response:
    stack = contextlib.AsyncExitStack()
    try:
        place, head = await stack.enter_async_context(bundle(house, await kept(house, pin), BRANCH))
    except BaseException:
        await stack.aclose()
        raise
    headers = {
        "Content-Disposition": f'attachment; filename="{pin.sandbox_id}.bundle"',
        "X-Head-Sha": head,
        "Content-Length": str(place.stat().st_size),
    }
    return StreamingResponse(_sent(place, stack), media_type="application/octet-stream", headers=headers)


async def _sent(place: File, stack: contextlib.AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        with place.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


@router.post("/retention/sweep")
async def sweep_now(house: Tooled, dry_run: bool = True) -> SweepResponse:
    """Let go of what policy no longer keeps; by default only say what that is."""
    going = await sweep(house, dry_run=dry_run)
    return SweepResponse(dry_run=dry_run, going=[GoingView(**asdict(one)) for one in going])
