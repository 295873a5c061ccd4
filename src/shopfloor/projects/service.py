"""Projects: made, changed, removed. Sole writer of the table."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from shopfloor.events import log as events
from shopfloor.events.catalog.projects import ProjectChanged
from shopfloor.forges import queries as changes
from shopfloor.kit import ids, log
from shopfloor.kit.db import Session
from shopfloor.kit.errors import Conflict
from shopfloor.projects import queries
from shopfloor.projects.models import Project

logger = log.get(__name__)


class ProjectExists(Conflict):
    """There is a project of that name or repository already."""

    hint = "Change that one (PATCH), or choose another name."


class ProjectInUse(Conflict):
    """Tasks or tickets belong to the project."""

    hint = "They are its history: set autonomy to false instead, and nothing of it starts any more."


async def create(session: Session, **columns: Any) -> Project:
    """Make a project. Raises ProjectExists."""
    project = Project(project_id=ids.new("prj"), **columns)
    await _alone(session, project)
    session.add(project)
    return await _told(session, project, "created")


async def change(session: Session, project_id: str, **columns: Any) -> Project:
    """Change what is given; orders that run keep what they began with. Raises ProjectNotFound, ProjectExists."""
    project = await queries.get(session, project_id)
    for name, value in columns.items():
        setattr(project, name, value)
    with session.no_autoflush:
        await _alone(session, project)
    return await _told(session, project, "changed")


async def delete(session: Session, project_id: str) -> None:
    """Forget a project; its repository and its work orders stay as they are. Raises ProjectNotFound, ProjectInUse."""
    project = await queries.get(session, project_id)
    await session.delete(project)
    try:
        await session.flush()
    except IntegrityError:
        raise ProjectInUse from None
    await _told(session, project, "deleted", stays=False)


async def _alone(session: Session, project: Project) -> None:
    here = changes.names(Project.repository_url, project.repository_url)
    same = sa.or_(Project.name == project.name, here)
    query = sa.select(Project.name, Project.repository_url).where(same, Project.project_id != project.project_id)
    if other := (await session.execute(query)).first():
        raise ProjectExists(f"project {other[0]!r} has the repository {other[1]}")


async def _told(session: Session, project: Project, what: str, *, stays: bool = True) -> Project:
    await session.flush()
    if stays:
        await session.refresh(project)
    await events.append(session, ProjectChanged(project_id=project.project_id, name=project.name, what=what))
    logger.info("project_changed", project_id=project.project_id, name=project.name, what=what)
    return project
