"""Reads of projects."""

from collections.abc import Sequence

import sqlalchemy as sa

from shopfloor.forges import queries as changes
from shopfloor.kit import paging
from shopfloor.kit.db import Session
from shopfloor.kit.errors import NotFound
from shopfloor.projects.models import Project

SORTS = {"name": Project.name, "created_at": Project.created_at, "updated_at": Project.updated_at}


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


async def listing(
    session: Session, *, q: str, sort: str, cursor: str | None, limit: int, offset: int
) -> tuple[Sequence[Project], str | None, int]:
    """A page of projects, the cursor of the next one, and how many there are in all. Raises UnknownSort, BadCursor, TooManyWords."""
    text = (Project.name, Project.description, Project.repository_url, Project.project_id)
    query = paging.search(sa.select(Project), q, text)
    order = paging.sort(sort, SORTS, Project.project_id)
    return await paging.listing(session, query, order, cursor=cursor, limit=limit, offset=offset)
