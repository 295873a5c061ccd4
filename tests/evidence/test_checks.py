"""What checks find, in real sandboxes over real commits, on both databases."""

from tests.evidence.conftest import RIGHT, House

TEST = {"kind": "test", "name": "tests.test_app"}


async def test_a_command_that_ends_well_on_the_commit_proves_its_criterion(house: House) -> None:
    commit = house.code.commit(RIGHT)
    assert await house.verdict(commit, kind="command", command="python3 -m unittest -q tests.test_app") == (
        "passed",
        "",
    )
