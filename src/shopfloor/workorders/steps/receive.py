"""Take in what a sandbox hands out: bundles of commits go into the host's own mirror, and the order's numbers follow."""

from shopfloor.kit import log
from shopfloor.kit.errors import Malformed, TooLarge
from shopfloor.workorders import queries
from shopfloor.workorders.models import Artifact
from shopfloor.workorders.steps import Tools

logger = log.get(__name__)


async def import_commits(tools: Tools, artifact: Artifact) -> str | None:
    """Import a bundle and compute the order's progress from it; answers the head commit, or None if it was refused. Idempotent."""
    async with tools.database.reading() as session:
        order = await queries.get(session, artifact.work_order_id)
    if artifact.note:
        return None
    assert order.base_commit
    assert order.git_branch_name
    order_id, url = order.agent_work_order_id, order.repository_url
    try:
        async with tools.imports:
            imported = await tools.repositories.import_bundle(
                url,
                tools.blobs.path(artifact.sha256),
                order_id=order_id,
                branch=order.git_branch_name,
                base_commit=order.base_commit,
            )
        progress = await tools.repositories.progress(url, imported.head, order.base_commit)
    except (Malformed, TooLarge) as problem:  # anything else says nothing about the bundle
        async with tools.database.transaction() as session:
            row = await session.get_one(Artifact, artifact.id)
            row.note = f"{problem.code}: {problem.message}"
        logger.warning("git_bundle_refused", agent_work_order_id=order_id, reason=problem.message)
        return None
    async with tools.database.transaction() as session:
        row = await session.get_one(Artifact, artifact.id)
        row.imported, row.head_commit = True, imported.head
        order = await queries.locked(session, order_id)
        newest = await queries.newest_bundle(session, order_id)
        if newest is None or newest.id == artifact.id:
            order.head_commit = imported.head
            order.git_commit_count = progress.git_commit_count
            order.git_files_changed = progress.git_files_changed
            order.git_lines_added = progress.git_lines_added
            order.git_lines_removed = progress.git_lines_removed
    logger.info("git_commit_created", agent_work_order_id=order_id, commit=imported.head)
    return imported.head
