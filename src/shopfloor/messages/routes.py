"""The messages' HTTP door: say something, read it once, or lease and acknowledge it."""

import inspect
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from pydantic import Field

from shopfloor.auth import guard
from shopfloor.events.routes import SandboxId, problems
from shopfloor.kit.errors import Conflict
from shopfloor.kit.http import Schema, Timestamp
from shopfloor.messages import service
from shopfloor.messages.models import Message
from shopfloor.messages.rules import MessageState

MESSAGE_ID = r"^msg-[A-Za-z0-9-]{1,36}$"
MessageId = Annotated[str, Path(pattern=MESSAGE_ID)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,200}$")]


class SandboxEnded(Conflict):
    """This sandbox has ended; nobody is there to hear the message."""

    hint = "Look at the work order: start a new attempt, or continue its conversation in a new order."


class MessagePost(Schema):
    """Something to say to the agent."""

    content: str = Field(max_length=20_000)
    message_type: str = Field("user_message", max_length=50)
    message_id: str | None = Field(None, pattern=MESSAGE_ID)


class MessageView(Schema):
    """A message with its receipt."""

    message_id: str
    sandbox_id: str
    message_type: str
    content: str
    sender: str
    state: MessageState
    detail: str
    leases: int
    created_at: Timestamp
    delivered_at: Timestamp | None
    seen_at: Timestamp | None
    ended_at: Timestamp | None


class Queued(MessageView):
    """The message is accepted and kept until it is delivered."""

    status: str = "queued"


class PendingMessage(Schema):
    """A message as the agent's side reads it."""

    message_id: str
    message_type: str
    content: str
    sender: str
    created_at: Timestamp


class LeasedMessage(PendingMessage):
    """A message that comes again when it is not acknowledged in time."""

    lease_seconds: float


class Pending(Schema):
    """Read once: these are not shown again."""

    messages: list[PendingMessage]


class Leased(Schema):
    """Acknowledge each by a receipt."""

    messages: list[LeasedMessage]


class MessagePage(Schema):
    """All messages, oldest first."""

    messages: list[MessageView]
    next: int | None


class ReceiptPost(Schema):
    """How far the message has come."""

    state: Literal["delivered", "seen", "done", "failed"]
    detail: str = Field("", max_length=2000, pattern=r"^[^\x00]*$")


messages = APIRouter(tags=["messages"], responses=problems(401, 403, 404, 409, 413, 422, 503))


@messages.post("/{sandbox_id}/messages")
async def queue_message(request: Request, sandbox_id: SandboxId, body: MessagePost, key: Key = None) -> Queued:
    """Say something to the agent in a sandbox. With an Idempotency-Key, or an id of your own, a retry says it once."""
    await guard.person(request)
    if ended := getattr(request.app.state, "sandbox_ended", None):
        answer = ended(sandbox_id)
        if await answer if inspect.isawaitable(answer) else answer:
            raise SandboxEnded(f"sandbox {sandbox_id} has ended")
    if refuse := getattr(request.app.state, "message_refused", None):
        await refuse(sandbox_id, body.message_type)
    async with request.app.state.database.transaction() as session:
        message = await service.queue(
            session, sandbox_id, body.content, body.message_type, key=key, message_id=body.message_id
        )
    return Queued(**view(message).model_dump())


@messages.get("/{sandbox_id}/messages")
async def read_messages(request: Request, sandbox_id: SandboxId) -> Pending:
    """The pending messages, oldest first. Reading consumes them: a second read is empty."""
    await guard.sandbox_or_person(request, sandbox_id)
    async with request.app.state.database.transaction() as session:
        taken = await service.take(session, sandbox_id)
    return Pending(messages=[PendingMessage(**_told(message)) for message in taken])


@messages.get("/{sandbox_id}/messages/next")
async def next_messages(
    request: Request,
    sandbox_id: SandboxId,
    wait: Annotated[float, Query(ge=0, le=30, description="Seconds to wait for one.")] = 0,
) -> Leased:
    """Lease the pending messages, oldest first; with none there, wait. One without a receipt in time comes again."""
    await guard.sandbox_or_person(request, sandbox_id)
    state = request.app.state
    leased = await service.lease_next(state.database, state.hub, sandbox_id, wait=wait, gone=request.is_disconnected)
    return Leased(messages=[LeasedMessage(**_told(message), lease_seconds=service.LEASE_SECONDS) for message in leased])


@messages.get("/{sandbox_id}/messages/history")
async def message_history(
    request: Request,
    sandbox_id: SandboxId,
    after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> MessagePage:
    """Every message ever said to a sandbox, with receipts. Reading changes nothing."""
    await guard.sandbox_or_person(request, sandbox_id)
    async with request.app.state.database.reading() as session:
        found = await service.history(session, sandbox_id, after=after, limit=limit)
    return MessagePage(
        messages=[view(message) for message in found], next=found[-1].position if len(found) == limit else None
    )


@messages.get("/{sandbox_id}/messages/{message_id}")
async def one_message(request: Request, sandbox_id: SandboxId, message_id: MessageId) -> MessageView:
    """One message with its receipt."""
    await guard.sandbox_or_person(request, sandbox_id)
    async with request.app.state.database.reading() as session:
        return view(await service.find(session, sandbox_id, message_id))


@messages.post("/{sandbox_id}/messages/{message_id}/receipts")
async def post_receipt(
    request: Request, sandbox_id: SandboxId, message_id: MessageId, body: ReceiptPost
) -> MessageView:
    """Acknowledge: delivered, seen, done or failed. A repeated receipt changes nothing."""
    await guard.sandbox_or_person(request, sandbox_id)
    async with request.app.state.database.transaction() as session:
        message = await service.receipt(session, sandbox_id, message_id, MessageState(body.state), body.detail)
    return view(message)


router = APIRouter(prefix="/api/v1")
router.include_router(messages, prefix="/sandboxes")
router.include_router(messages, prefix="/sandbox", include_in_schema=False)


def view(message: Message) -> MessageView:
    """A message on the wire."""
    names = set(MessageView.model_fields) - {"message_id"}
    return MessageView(message_id=message.id, **{name: getattr(message, name) for name in names})


def _told(message: Message) -> dict[str, object]:
    names = set(PendingMessage.model_fields) - {"message_id"}
    return {"message_id": message.id, **{name: getattr(message, name) for name in names}}
