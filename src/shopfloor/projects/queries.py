"""Reads of projects."""

from collections.abc import Sequence

import sqlalchemy as sa

from shopfloor.forges import queries as changes
from shopfloor.kit.db import Session
from shopfloor.kit.errors import NotFound
from shopfloor.projects.models import Project


class ProjectNotFound(NotFound):
    """There is no such project."""

    hint = "GET /api/v1/projects lists them."


async def get(session: Session, project_id: str) -> Project:
    """The project of that id, or of that name; raises ProjectNotFound."""
    query = sa.select(Project).where(sa.or_(Project.project_id == project_id, Project.name == project_id))
    if (found := await session.scalar(query.order_by(Project.project_id != project_id))) is None:
        raise ProjectNotFound(f"there is no project {project_id[:100]!r}")
    return found


async def of_repository(session: Session, repository_url: str) -> Project | None:
    """The project of a repository, if there is one, however either is spelled: a budget is not passed by writing `.git`."""
    same = sa.select(Project).where(changes.names(Project.repository_url, repository_url))
    return await session.scalar(same.order_by(Project.repository_url != repository_url).limit(1))


async def listing(session: Session, *, limit: int, offset: int) -> tuple[Sequence[Project], int]:
    """A page of projects by name, and how many there are in all."""
    total = await session.scalar(sa.select(sa.func.count()).select_from(Project))
    page = sa.select(Project).order_by(Project.name).limit(limit).offset(offset)
    return (await session.scalars(page)).all(), total or 0
