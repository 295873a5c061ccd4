"""Branch templates and allow lists by properties: what they make is always usable, what is not is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.forges.rules import BadBranchName, our_branch
from shopfloor.projects.rules import (
    DEFAULT_TEMPLATE,
    MOST_SLUG,
    BadAllowList,
    BadTemplate,
    allow_list,
    branch,
    check_template,
    slug,
)

ORDER = "wo-4k9x2m7q"
parts = st.sampled_from(
    ["{type}", "{issue}", "{number}", "{slug}", "{id}", "-", "/", ".", "_", "team", "{x}", "A", " ", ".."]
)


@given(pieces=st.lists(parts, max_size=8), issue=st.none() | st.integers(1, 2**31), prompt=st.text(max_size=60))
def test_every_template_that_is_taken_makes_a_branch_that_we_use(
    pieces: list[str], issue: int | None, prompt: str
) -> None:
    try:
        template = check_template("".join(pieces))
    except BadTemplate:
        return
    name = branch(template, type_="feat", issue=issue, slug=slug(prompt), order_id=ORDER)
    assert our_branch(name) == name
    assert ORDER in name


def test_the_default_branch_carries_the_orders_id_and_its_issue() -> None:
    """AWO-04"""
    names = [branch(DEFAULT_TEMPLATE, type_="feat", issue=n, slug="x", order_id=ORDER) for n in (None, 12)]
    assert names == [f"feat-{ORDER}", f"feat-issue-12-{ORDER}"]


def test_a_template_may_have_folders_and_words() -> None:
    made = branch("{type}/{number}-{slug}-{id}", type_="fix", issue=7, slug="mend-it", order_id=ORDER)
    assert made == f"fix/7-mend-it-{ORDER}"


@given(st.text(max_size=200))
def test_a_slug_is_short_and_plain(text: str) -> None:
    found = slug(text)
    assert len(found) <= MOST_SLUG
    assert re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", found)


@pytest.mark.parametrize(
    "entry", ["", "pypi.org", "pypi.org:0", "*.org:443", "a b:1", ":443", "pypi.org:65536", "x:٣", "-a:1"]
)
def test_an_allow_list_takes_only_names_and_ports(entry: str) -> None:
    with pytest.raises(BadAllowList):
        allow_list([entry])


def test_an_allow_list_is_kept_in_one_way_of_writing() -> None:
    assert allow_list(["PyPI.org:443", "pypi.org:0443"]) == ["pypi.org:443"]


def test_our_branch_still_refuses_what_git_would_misread() -> None:
    with pytest.raises(BadBranchName):
        our_branch("-x")
