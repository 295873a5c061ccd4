"""The HTTP doors of the gateway: models for sandboxes, accounts and costs for people."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from shopfloor.auth.guard import model_caller, person
from shopfloor.gateway import accounts, queries, service
from shopfloor.gateway.accounts import Account, KeyMissing
from shopfloor.gateway.models import AccountPause, ModelGrant
from shopfloor.gateway.port import Unreadable
from shopfloor.gateway.schemas import AccountList, AccountView, Spending, SpendingList
from shopfloor.gateway.steps import Gateway
from shopfloor.gateway.steps.relay import Call, relay
from shopfloor.kit.errors import Forbidden, Malformed, TooLarge

models = APIRouter()
router = APIRouter(prefix="/api/v1", tags=["models"], dependencies=[Depends(person)])
Name = Annotated[str, Path(max_length=60, pattern=r"^[A-Za-z0-9_-]+$")]
Narrow = Annotated[str | None, Query(max_length=200)]
MOST_BODY = 64 << 20
"""Bytes of a request to a model: conversations with pictures are large."""


class OtherAccount(Forbidden):
    """This sandbox was granted another account."""

    hint = "The account is part of the agent's profile."


class NoSuchCall(Forbidden):
    """The gateway lets only calls of models through."""

    hint = "Messages, responses, chat completions, generateContent, token counts and model lists pass."


class BodyTooLarge(TooLarge):
    """The request to the model is larger than allowed."""


def gateway(request: Request) -> Gateway:
    """The gateway of this process."""
    found: Gateway = request.app.state.gateway
    return found


Gated = Annotated[Gateway, Depends(gateway)]


async def call_model(request: Request) -> Response:
    """Pass a call on to the account's provider. A plain route: each of a crew's many calls comes through it."""
    house = gateway(request)
    caller = await model_caller(request)
    granted = await _granted(house, caller.sandbox_id or "")
    account, path = request.path_params["account"], f"/{request.path_params['path']}"
    if granted.account != account:
        raise OtherAccount(f"this sandbox was granted the account {granted.account!r}")
    found = house.account(account)
    try:
        asked = found.speaks.asked(request.method, path, await _body(request))
    except Unreadable as error:
        raise Malformed(str(error)) from error
    if asked is None:
        raise NoSuchCall(f"{request.method} {path[:100]} is no call of a model")
    found.key()
    headers = {name.lower(): value for name, value in request.headers.items()}
    call = Call(granted, found, found.speaks, asked, request.method, path + _query(request), headers)
    return await relay(house, call, request.receive)


models.add_route("/models/{account}/{path:path}", call_model, methods=["GET", "POST"], include_in_schema=False)


async def _granted(house: Gateway, sandbox_id: str) -> ModelGrant:
    if sandbox_id not in house.granted:
        async with house.database.reading() as session:
            house.granted[sandbox_id] = await queries.grant(session, sandbox_id)
    return house.granted[sandbox_id]


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MOST_BODY:
            raise BodyTooLarge(f"the request is larger than {MOST_BODY} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _query(request: Request) -> str:
    """What was asked beside the path, but for a key."""
    kept = [f"{part}" for part in request.url.query.split("&") if part and not part.startswith("key=")]
    return "?" + "&".join(kept) if kept else ""


@router.get("/accounts")
async def list_accounts(house: Gated) -> AccountList:
    """Model accounts, whether their key is set, and whether their provider has paused them."""
    async with house.database.reading() as session:
        paused = {row.account: row for row in await queries.pauses(session)}
    found = [accounts.account(house.settings, name) for name in accounts.names(house.settings)]
    return AccountList(accounts=[_view(one, paused.get(one.name)) for one in found])


@router.post("/accounts/{account}/resume")
async def resume_account(account: Name, house: Gated) -> AccountView:
    """End a pause before its time."""
    found = accounts.account(house.settings, account)
    async with house.database.transaction() as session:
        await service.resume(session, account)
    house.pauses.pop(account, None)
    return _view(found, None)


@router.get("/costs")
async def costs(
    house: Gated,
    by: Literal["attempt", "order", "task", "ticket", "spec", "project", "account", "model"] = "model",
    order: Narrow = None,
    task: Narrow = None,
    ticket: Narrow = None,
    spec: Narrow = None,
    project: Narrow = None,
    account: Narrow = None,
) -> SpendingList:
    """What models were asked and what that cost, as the gateway counted it."""
    async with house.database.reading() as session:
        narrowed = {
            "order": order,
            "task": task,
            "ticket": ticket,
            "spec": spec,
            "project": project,
            "account": account,
        }
        rows = await queries.spending(session, by, **narrowed)
    return SpendingList(by=by, spending=[Spending(**row) for row in rows])


def _view(found: Account, paused: AccountPause | None) -> AccountView:
    try:
        key_set = bool(found.key()) or not found.key_name
    except KeyMissing:
        key_set = False
    return AccountView(
        account=found.name,
        api=found.api,
        base_url=found.url,
        key_env=found.key_name,
        key_set=key_set,
        pause_on_limit=found.pause_on_limit,
        paused_until=paused.paused_until if paused else None,
        paused_reason=paused.reason if paused else "",
    )
