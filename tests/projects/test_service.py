"""A project and the many ways to write the address of its repository."""

import pytest

from shopfloor.kit.db import Database
from shopfloor.projects import queries, service

SPELLINGS = ["https://git.example.org/a/b", "https://git.example.org/A/b.git", "ssh://git@git.example.org/a/b.git"]


async def make(database: Database, name: str, url: str) -> str:
    async with database.transaction() as session:
        return (await service.create(session, name=name, repository_url=url)).project_id


@pytest.mark.parametrize("spelled", SPELLINGS)
async def test_a_project_and_its_budget_are_found_however_the_repository_is_spelled(
    database: Database, spelled: str
) -> None:
    made = await make(database, "shop", "https://git.example.org/a/b.git")
    async with database.reading() as session:
        found = await queries.of_repository(session, spelled)
    assert found is not None
    assert found.project_id == made


async def test_a_repository_has_one_project_however_it_is_spelled(database: Database) -> None:
    await make(database, "shop", SPELLINGS[0])
    with pytest.raises(service.ProjectExists):
        await make(database, "other", SPELLINGS[1])


async def test_a_local_path_is_spelled_in_one_way(database: Database) -> None:
    await make(database, "shop", "/srv/Shop")
    async with database.reading() as session:
        assert await queries.of_repository(session, "/srv/shop") is None
