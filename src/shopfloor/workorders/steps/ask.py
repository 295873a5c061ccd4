"""Ask an agent something: a work order whose one file is the answer. Nothing of it reaches the origin."""

from shopfloor.kit.errors import Conflict
from shopfloor.workorders import queries, service
from shopfloor.workorders.models import WorkOrder
from shopfloor.workorders.rules import OrderStatus
from shopfloor.workorders.schemas import CreateAgentWorkOrderRequest
from shopfloor.workorders.steps import Tools
from shopfloor.workorders.steps.terms import terms

ANSWER_FILE = "SHOPFLOOR-ANSWER.txt"
MOST_ANSWER = 20_000
HOW = f"Write your answer, and nothing else, into the file {ANSWER_FILE} at the root of the repository. Change no other file."


class NoAnswer(Conflict):
    """The agent that was asked did not answer."""


async def ask(tools: Tools, question: str, request: CreateAgentWorkOrderRequest, **whose: str | None) -> WorkOrder:
    """The order that answers the question: the one that was asked before, else a new one; `whose` task, ticket and spec.

    Raises what `terms` refuses.
    """
    columns = await terms(tools, request)
    async with tools.database.transaction() as session:
        if (found := await queries.asked(session, question)) is not None:
            return found
        order = await service.create(
            session,
            idempotency_key=f"question:{question}",
            **columns,
            question=question,
            offers=False,
            **whose,
        )
    tools.claimable.set()
    return order


def answer_of(order: WorkOrder) -> str:
    """What was answered; raises NoAnswer with the reason."""
    if order.status != OrderStatus.COMPLETED or not (order.answer or "").strip():
        raise NoAnswer(f"{order.agent_work_order_id} gave no answer: {order.reason}", hint="Retry that work order.")
    return (order.answer or "").strip()
