"""The table of projects."""

from datetime import datetime

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
    created_at: Mapped[datetime] = mapped_column(server_default=db_time())
    updated_at: Mapped[datetime] = mapped_column(server_default=db_time(), onupdate=db_time())
