"""The HTTP door of agents: what each kind can do, and the profiles there are."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from shopfloor.agents import rules, service
from shopfloor.auth.guard import person
from shopfloor.kit.http import Schema

router = APIRouter(prefix="/api/v1", tags=["agents"], dependencies=[Depends(person)])


class AgentCapability(Schema):
    """What one kind of agent can do."""

    adapter: str
    steer: rules.Steer
    interrupt: bool
    resume: bool
    cost: rules.Cost
    permissions: bool
    models: bool


class AgentCapabilities(Schema):
    """The capability table."""

    capabilities: list[AgentCapability]


class AgentProfile(Schema):
    """A profile without anything secret: of its environment only the names."""

    name: str
    adapter: str
    program: list[str] | None
    model: str | None
    env: list[str]
    allow: list[str]
    turn_timeout_seconds: float
    max_turns: int | None
    max_budget_usd: float | None
    permission_mode: str
    allow_tools: list[str]
    deny_tools: list[str]
    options: dict[str, Any]
    api: str
    account: str | None
    direct: bool
    can: AgentCapability
    is_default: bool


class AgentProfiles(Schema):
    """Every profile."""

    profiles: list[AgentProfile]


@router.get("/agents/capabilities", deprecated=True)
async def agents_capabilities(response: Response) -> AgentCapabilities:
    """The same at its old place (OTH-02): everything below /agents goes."""
    response.headers["Deprecation"] = "true"
    response.headers["Link"] = '</api/v1/agent-capabilities>; rel="successor-version"'
    return await agent_capabilities()


@router.get("/agent-capabilities")
async def agent_capabilities() -> AgentCapabilities:
    """What each kind of agent can do: steer, interrupt, resume, cost, permissions."""
    table = [AgentCapability(adapter=name, **vars(can)) for name, can in sorted(rules.CAPABILITIES.items())]
    return AgentCapabilities(capabilities=table)


@router.get("/agent-profiles")
async def agent_profiles(request: Request) -> AgentProfiles:
    """The profiles a work order may name as its agent."""
    settings = request.app.state.settings
    found = [
        AgentProfile(
            **profile.model_dump(include=set(AgentProfile.model_fields) - {"env", "can", "account"}),
            account=service.paid_by(profile),
            can=AgentCapability(adapter=profile.adapter, **vars(service.capability(profile))),
            env=sorted(service.environment(profile)),
            is_default=profile.name == settings.default_agent,
        )
        for profile in service.profiles(settings).values()
    ]
    return AgentProfiles(profiles=found)
