"""Carry one call of a model: let in, sent with the real key, answered byte by byte as it comes, counted."""

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shopfloor.gateway import metering, queries, service
from shopfloor.gateway.accounts import Account
from shopfloor.gateway.models import ModelGrant
from shopfloor.gateway.port import Api, Asked, Meter
from shopfloor.gateway.rules import LIMITED, SPENT, Verdict
from shopfloor.gateway.service import Cost
from shopfloor.gateway.steps import Gateway, Pause
from shopfloor.kit import log

logger = log.get(__name__)

LOOK_SECONDS = 1.0
HEAD_START_SECONDS = 0.01
MOST_ERROR = 1 << 20
LEFT = 499
"""The status of an answer that nobody is there to read."""
NOT_SENT: Final = frozenset(
    {
        *(
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "expect",
        ),
        *(
            "authorization",
            "x-api-key",
            "x-goog-api-key",
            "cookie",
            "accept-encoding",
            "proxy-authorization",
            "forwarded",
        ),
    }
)
"""Headers of a request that end here: of this connection, and whatever shows who asks."""
NOT_ANSWERED: Final = frozenset(
    {
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "set-cookie",
        "date",
        "server",
    }
)


@dataclass
class Call:
    """One request of a sandbox."""

    granted: ModelGrant
    account: Account
    api: Api
    asked: Asked
    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    opening: asyncio.Future[int] | None = None
    """Writes the call down; its result is the call's id in the books."""
    began: float = field(default_factory=time.monotonic)
    held: float = 0.0
    """Seconds it waited for a reset."""

    @property
    def most_usd(self) -> float | None:
        """What it can cost at most."""
        own, size = self.account.prices.get(self.asked.model), len(self.asked.body)
        return metering.most(self.api.provider, self.asked.model, size, self.asked.most_output, own)


async def relay(gateway: Gateway, call: Call, receive: Receive) -> Response:
    """Answer the call, for as long as whoever asked is there to hear it."""
    leaving = asyncio.ensure_future(_gone(receive))
    answering = asyncio.ensure_future(_answer(gateway, call, leaving))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        leaving.cancel()
        answering.cancel()
        raise
    if not answering.done():
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        return Response(status_code=LEFT)
    if not isinstance(answering.result(), Passing):
        leaving.cancel()
    return answering.result()


async def _answer(gateway: Gateway, call: Call, leaving: asyncio.Future[None]) -> Response:
    """Let in, send on. What the gateway itself refuses is worded as the provider would."""
    while True:
        if paused := await _pause(gateway, call):
            if refused := await _hold(gateway, call, *paused):
                return refused
            continue
        verdict, why = await _admit(gateway, call)
        if verdict == Verdict.STOP:
            return _refused(call, SPENT, "billing_error", why)
        if verdict == Verdict.WAIT:
            await _look_again(gateway)
            continue
        if answer := await _ask(gateway, call, leaving):
            return answer


async def _ask(gateway: Gateway, call: Call, leaving: asyncio.Future[None]) -> Response | None:
    """Send it on and answer what comes; None when the provider said to call again later."""
    try:
        answer = await _send(gateway, call)
    except httpx.HTTPError as error:
        name = type(error).__name__
        logger.warning("model_not_reached", account=call.account.name, error=name, reason=str(error))
        await close(gateway, call, None, status=None)
        return _refused(
            call, 502, "api_error", f"the server of the account {call.account.name!r} was not reached: {name}"
        )
    except BaseException:
        gateway.background.start("close_call", close(gateway, call, None, status=None))
        raise
    if answer.status_code != 429 or not call.account.pause_on_limit:
        return Passing(gateway, call, answer, leaving)
    body = await _read(answer)
    gateway.background.start("close_call", close(gateway, call, None, status=429))
    seconds = call.api.wait_seconds(answer.headers, body, time.time())
    if seconds is None:
        return Response(body, 429, _passed(answer))
    await _pause_all(gateway, call.account.name, seconds, _said(body))
    return None


async def _pause_all(gateway: Gateway, account: str, seconds: float, reason: str) -> None:
    """From this moment nobody here uses the account; once it is written down, nobody anywhere."""
    known = gateway.pauses.get(account)
    until = max(time.monotonic() + seconds, known.until if known else 0.0)
    gateway.pauses[account] = Pause(math.inf, until, reason)
    try:
        async with gateway.database.transaction() as session:
            await service.pause(session, account, seconds, reason)
    finally:
        gateway.pauses[account] = Pause(time.monotonic(), until, reason)


async def _pause(gateway: Gateway, call: Call) -> tuple[str, float] | None:
    """Why the call's account may not be used, and for how many seconds; other processes' pauses are seen within a second."""
    if not call.account.pause_on_limit:
        return None
    name, now = call.account.name, time.monotonic()
    known = gateway.pauses.get(name)
    if known is None or now - known.seen_at > LOOK_SECONDS:
        async with gateway.database.reading() as session:
            found = await queries.pause_of(session, name)
        if gateway.pauses.get(name) is not known:
            return await _pause(gateway, call)  # what was read may be older than what was learnt meanwhile
        known = Pause(now, now + found[1] if found else 0.0, found[0].reason if found else "")
        gateway.pauses[name] = known
    return (known.reason, known.until - now) if known.until > now else None


async def _hold(gateway: Gateway, call: Call, reason: str, seconds: float) -> Response | None:
    """Wait a moment of a pause; answers a refusal once the call has waited as long as it may."""
    left = call.account.hold_seconds - call.held
    if left <= 0:
        why = f"the account {call.account.name!r} is paused for another {seconds:.0f} s: {reason}"
        await _refuse(gateway, call, LIMITED, why)
        told = {"retry-after": str(max(1, round(seconds))), "x-should-retry": "false"}
        return _refused(call, LIMITED, "rate_limit_error", why, told)
    wait = min(seconds + 0.01, LOOK_SECONDS, left)
    call.held += wait
    await asyncio.sleep(wait)
    return None


async def _refuse(gateway: Gateway, call: Call, status: int, why: str) -> None:
    async with gateway.database.transaction() as session:
        await service.refuse(
            session, call.granted, status=status, model=call.asked.model, why=why, host_id=gateway.host_id
        )


async def _admit(gateway: Gateway, call: Call) -> tuple[Verdict, str]:
    """Write the call down; what costs nothing is not in the books, and what has no budget need not wait for them."""
    if not call.asked.metered:
        return Verdict.GO, ""
    granted = call.granted
    if granted.order_budget_usd is None and granted.project_budget_usd is None:
        call.opening = gateway.background.start("open_call", _open(gateway, call))
        return Verdict.GO, ""
    model, name = call.asked.model, call.account.name
    if not metering.priced(call.api.provider, model, call.account.prices.get(model)):
        why = f"the price of the model {model[:100]!r} is unknown, so its budget cannot be kept: set accounts.{name}.prices"
        await _refuse(gateway, call, SPENT, why)
        return Verdict.STOP, why
    wanted: Any = {"model": model, "most_usd": call.most_usd, "host_id": gateway.host_id}
    verdict, opened, why = Verdict.GO, await service.open_at_once(gateway.database, granted, **wanted), ""
    if opened is None:
        async with gateway.database.transaction() as session:
            verdict, opened, why = await service.open_call(session, granted, **wanted)
    if verdict == Verdict.GO:
        call.opening = asyncio.get_running_loop().create_future()
        call.opening.set_result(opened)
    return verdict, why


async def _open(gateway: Gateway, call: Call) -> int:
    """While the provider thinks: the request gets the processor first."""
    await asyncio.sleep(HEAD_START_SECONDS)
    async with gateway.database.transaction() as session:
        _, opened, _ = await service.open_call(
            session, call.granted, model=call.asked.model, most_usd=None, host_id=gateway.host_id
        )
    return opened


async def _look_again(gateway: Gateway) -> None:
    """Until a call of this process has ended, or one of another may have."""
    try:
        async with asyncio.timeout(LOOK_SECONDS), gateway.ended:
            await gateway.ended.wait()
    except TimeoutError:
        return


async def _send(gateway: Gateway, call: Call) -> httpx.Response:
    headers = {name: value for name, value in call.headers.items() if name not in NOT_SENT}
    headers["accept-encoding"] = "identity"  # what is counted must be readable
    if key := call.account.key():
        headers |= call.api.key(key)
    url = call.account.url + call.target
    request = gateway.http.build_request(call.method, url, headers=headers, content=call.asked.body)
    return await gateway.http.send(request, stream=True)


async def _read(answer: httpx.Response) -> bytes:
    """The body of an error, as much as errors have."""
    body = b""
    try:
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MOST_ERROR:
                break
    finally:
        await answer.aclose()
    return body


def _said(body: bytes) -> str:
    """The provider's own words for a limit."""
    try:
        return str(orjson.loads(body)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return "its usage limit is reached"


def _passed(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in NOT_ANSWERED}


def _refused(call: Call, status: int, kind: str, why: str, headers: Mapping[str, str] | None = None) -> Response:
    document = call.api.refusal(status, kind, f"Shopfloor: {why}")
    return Response(orjson.dumps(document), status, dict(headers or {}), media_type="application/json")


class Passing(Response):
    """A provider's answer on its way into the sandbox: every piece as it comes, read along to be counted."""

    def __init__(self, gateway: Gateway, call: Call, answer: httpx.Response, leaving: asyncio.Future[None]) -> None:
        super().__init__(None, answer.status_code, _passed(answer))
        del self.headers["content-length"]
        self.gateway, self.call, self.answer, self.leaving = gateway, call, answer, leaving
        self.meter = call.api.meter(call.asked, answer.headers.get("content-type", ""))
        self.first_byte: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: to the answer's end, or until whoever asked is gone; then nothing more is asked of the provider either."""
        del scope, receive
        pumping = asyncio.ensure_future(self._pump(send))
        try:
            await asyncio.wait({pumping, self.leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pumping.cancel()
            self.leaving.cancel()
            self.gateway.background.start("end_call", self._end())
        with contextlib.suppress(asyncio.CancelledError):
            await pumping

    async def _pump(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for chunk in self.answer.aiter_raw():
                self.first_byte = self.first_byte or time.monotonic()
                self.meter.feed(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except httpx.HTTPError as error:  # the connection is closed without an end, which is how the agent learns of it
            logger.warning("model_answer_cut", account=self.call.account.name, error=type(error).__name__)
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end(self) -> None:
        await self.answer.aclose()
        await close(self.gateway, self.call, self.meter, status=self.status_code, first_byte=self.first_byte)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def close(
    gateway: Gateway, call: Call, meter: Meter | None, *, status: int | None, first_byte: float | None = None
) -> None:
    """Write the call's end into the books. What was never in them is left out."""
    if call.opening is None:
        return
    took = round(1000 * (time.monotonic() - call.began))
    cost = _cost(call, meter, status)
    first = None if first_byte is None else round(1000 * (first_byte - call.began))
    opened = await call.opening
    async with gateway.database.transaction() as session:
        await service.close_call(session, opened, cost, status=status, first_byte_ms=first, took_ms=took)
    async with gateway.ended:
        gateway.ended.notify_all()


def _cost(call: Call, meter: Meter | None, status: int | None) -> Cost:
    """What it used by the answer's own words; a refused call costs nothing, a cut one at least what it said."""
    used = meter.usage() if meter and status is not None and status < 300 else None
    if used is None:
        return Cost(model=call.asked.model, cost_usd=0.0 if status is None or status >= 300 else None)
    prices, tokens = call.account.prices, used.tokens
    own = prices.get(used.model) or prices.get(call.asked.model)
    cost = metering.price(call.api.provider, used.model, tokens, own)
    if cost is None and used.model != call.asked.model:
        cost = metering.price(call.api.provider, call.asked.model, tokens)
    return Cost(
        model=used.model,
        input_tokens=tokens.input_tokens or 0,
        cache_read_tokens=tokens.cache_read_tokens or 0,
        cache_write_tokens=tokens.cache_write_tokens or 0,
        output_tokens=tokens.output_tokens or 0,
        cost_usd=cost,
        estimated=not used.final,
    )
