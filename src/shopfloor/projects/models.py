"""The table of projects."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from shopfloor.kit.db import Base, db_time


class Project(Base):
    """A repository and its settings; work orders on the repository obey them."""

    __tablename__ = "projects"

    project_id: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100), unique=True)
    repository_url: Mapped[str] = mapped_column(sa.Text, unique=True)
    description: Mapped[str] = mapped_column(sa.Text, default="")
    agent: Mapped[str | None] = mapped_column(sa.String(60))
    sandbox_type: Mapped[str | None] = mapped_column(sa.String(40))
    budget_usd: Mapped[float | None]
    work_order_budget_usd: Mapped[float | None]
    allow: Mapped[list[str]] = mapped_column(default=list)
    """`host:port` that its sandboxes may reach beside what their agent needs."""
    branch_template: Mapped[str | None] = mapped_column(sa.String(200))
    base_branch: Mapped[str | None] = mapped_column(sa.String(255))
    """Where its tickets' work begins and ends; None: the repository's default branch."""
    autonomy: Mapped[bool] = mapped_column(default=False)
    """Whether its tasks are dispatched, and its tickets move, by themselves."""
    approval: Mapped[bool] = mapped_column(default=False)
    """Whether a person must approve each ticket before anything costly starts."""
    wip_limits: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Column -> how many tickets it may hold; what is not named has the board's own limit."""
    gates: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """Column -> what must hold before a ticket leaves it; what is not named has the board's own gates."""
    max_running_tasks: Mapped[int | None]
    test_command: Mapped[str | None] = mapped_column(sa.Text)
    """How one named test is run: a shell line with {test} in it."""
    check_command: Mapped[str | None] = mapped_column(sa.Text)
    """What must succeed on every merged tree."""
    merge_queue: Mapped[bool] = mapped_column(default=False)
    """Whether tickets that are done are merged by themselves, one at a time."""
    union_check: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    """Whether `check_command` is run on all live branches together whenever one moves, too."""
    git_gate: Mapped[bool] = mapped_column(default=False)
    """Whether its agents may fetch from it, and push their order's branch, themselves."""
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    updated_at: Mapped[datetime] = mapped_column(server_default=db_time(), onupdate=db_time())
