"""What a work order will be like: what was asked for, else as its project says, else as the server does. Refuses what cannot be."""

from typing import Any

from shopfloor.agents import rules as agent_rules
from shopfloor.agents import service as agents
from shopfloor.forges import rules as forge_rules
from shopfloor.gateway import accounts
from shopfloor.kit.errors import Conflict
from shopfloor.projects import queries as projects
from shopfloor.sandboxes.port import Isolation
from shopfloor.workorders.rules import workflow_type
from shopfloor.workorders.schemas import CreateAgentWorkOrderRequest
from shopfloor.workorders.steps import Tools


class IsolationNeeded(Conflict):
    """This sandbox type gives the agent your user's own rights on this machine."""

    status = 422
    hint = "Use sandbox_type 'local', or say allow_no_isolation=true if you trust the agent and the repository with everything you can reach."


async def terms(tools: Tools, asked: CreateAgentWorkOrderRequest) -> dict[str, Any]:
    """The order's columns. Everything that can be refused is refused here, before anything is stored."""
    settings, repository_url = tools.settings, forge_rules.repository_url(asked.repository_url)
    async with tools.database.reading() as session:
        project = await projects.of_repository(session, repository_url)
    profile = agents.profile(settings, asked.agent or (project and project.agent) or settings.default_agent)
    sandbox_type = asked.sandbox_type or (project and project.sandbox_type) or settings.default_sandbox
    capabilities = await tools.sandboxes.adapter(sandbox_type).capabilities()
    if capabilities.isolation == Isolation.NONE and not asked.allow_no_isolation:
        raise IsolationNeeded(f"sandbox type {sandbox_type!r} has no isolation")
    agent_rules.check_model(profile.name, agents.capability(profile), asked.model)
    as_asked = ("initial_prompt", "github_issue_number", "base_branch", "allow_no_isolation")
    return {
        **{name: getattr(asked, name) for name in as_asked},
        "repository_url": repository_url,
        "project_id": project.project_id if project else None,
        "account": paying(tools, profile),
        "budget_usd": asked.budget_usd or (project and project.work_order_budget_usd) or settings.work_order_budget_usd,
        "workflow_type": str(workflow_type(asked.workflow_type)),
        "sandbox_type": sandbox_type,
        "agent": profile.name,
        "model": asked.model or profile.model,
        "agent_options": agents.checked_options(profile, asked.agent_options),
        "max_attempts": asked.max_attempts or settings.max_attempts,
        "timeout_seconds": asked.timeout_seconds or settings.work_order_timeout_seconds,
    }


def paying(tools: Tools, profile: agents.Profile) -> str | None:
    """The model account an agent uses through the gateway, seen to have its key. Raises KeyMissing."""
    if (name := agents.paid_by(profile)) is None:
        return None
    accounts.account(tools.settings, name).key()
    return name
