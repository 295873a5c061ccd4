"""Commands: `.claude/commands/*.md` of a repository over the shipped ones."""

import pytest

from shopfloor.agents import rules
from shopfloor.agents import service as agents


def test_plan_build_and_test_are_shipped() -> None:
    assert set(agents.commands({})) == {"plan", "build", "test"}


def test_the_repositorys_own_command_wins() -> None:
    found = agents.commands({"build.md": "Do $ARGUMENTS my way."})["build"]
    assert (found.body, found.source) == ("Do $ARGUMENTS my way.", "repository")


def test_front_matter_is_read_and_not_said() -> None:
    found = agents.commands({"review": "---\ndescription: Look\nallowed-tools: Bash\n---\nReview it.\n"})["review"]
    assert found.body == "Review it."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "---\ndescription: x\n",
        "a\x00b",
        "x" * (rules.MOST_COMMAND + 1),
    ],
    ids=["empty", "open", "nul", "large"],
)
def test_a_broken_file_for_a_step_stops_the_order(text: str) -> None:
    with pytest.raises(rules.BadCommand, match=r"\.claude/commands/plan\.md"):
        agents.commands({"plan.md": text})


@pytest.mark.parametrize("front", ["- a", ": [", "description: 2024-02-30", "a: &a [x, x]\nb: &b [*a, *a]"])
def test_front_matter_is_never_parsed(front: str) -> None:
    """A hostile one could expand without end, an honest one need not be YAML for us."""
    assert agents.parse_command("x", f"---\n{front}\n---\nDo it.", "repository").body == "Do it."


def test_a_broken_file_nobody_needs_is_left_out() -> None:
    assert set(agents.commands({"Weird Name.md": "x", "empty.md": ""})) == {"plan", "build", "test"}


def test_what_was_asked_for_stands_where_the_command_says() -> None:
    command = agents.parse_command("x", "Do this: $ARGUMENTS.", "repository")
    assert agents.render(command, " paint it ", order_id="wo-1") == "Do this: paint it."


def test_what_was_asked_for_is_never_lost() -> None:
    command = agents.parse_command("x", "Do it.", "repository")
    assert agents.render(command, "paint it", order_id="wo-1") == "Do it.\n\nARGUMENTS: paint it"


def test_arguments_are_not_filled_in_themselves() -> None:
    command = agents.parse_command("x", "$ARGUMENTS for $ORDER_ID", "repository")
    assert agents.render(command, "$ORDER_ID", order_id="wo-1") == "$ORDER_ID for wo-1"


@pytest.mark.parametrize(("name", "file"), [("plan", "specs/plan-wo-1.md"), ("test", "specs/test-results-wo-1.md")])
def test_shipped_commands_leave_files_of_the_order(name: str, file: str) -> None:
    assert file in agents.render(agents.commands({})[name], "x", order_id="wo-1")
