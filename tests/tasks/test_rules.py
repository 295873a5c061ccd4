"""The law of tasks, by properties."""

import fnmatch
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.projects.rules import COLUMNS, UnknownColumn, column
from shopfloor.tasks import rules
from shopfloor.tasks.rules import ENDED, TASK, BadPath, TaskStatus
from shopfloor.workorders.rules import FINISHED, OrderStatus

NAMES = st.sampled_from(["a", "b", "src", "src2", "tax.py", "Tax.py", "*.py", "**", "*", "b?", "[ab]"])
GLOBS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
FILES = st.lists(st.sampled_from(["a", "b", "bx", "src", "src2", "tax.py", "Tax.py"]), min_size=1, max_size=4)


@given(one=st.lists(GLOBS, max_size=3), other=st.lists(GLOBS, max_size=3), file=FILES)
def test_two_lists_that_both_name_a_file_are_never_let_run_together(
    one: list[str], other: list[str], file: list[str]
) -> None:
    """A file is a list's when a glob names it, or a folder above it; `fnmatch` lets * cross folders, which is wider than anybody's."""
    path = "/".join(file)

    def owns(globs: list[str]) -> bool:
        return any(fnmatch.fnmatch(path, glob) or fnmatch.fnmatch(path, f"{glob}/*") for glob in globs)

    if owns(one) and owns(other):
        assert rules.may_share(one, other)


@given(one=st.lists(GLOBS, max_size=3), other=st.lists(GLOBS, max_size=3))
def test_sharing_is_mutual(one: list[str], other: list[str]) -> None:
    assert rules.may_share(one, other) == rules.may_share(other, one)


@pytest.mark.parametrize(
    ("one", "other", "shares"),
    [
        ("src/a/**", "src/b/**", False),
        ("src/a/**", "src/a/x.py", True),
        ("src", "src/a/x.py", True),
        ("src", "src2/x.py", False),
        ("README.md", "readme.md", True),
        ("**/*.py", "docs/x.md", True),
    ],
)
def test_folders_apart_may_run_together(one: str, other: str, shares: bool) -> None:
    assert rules.may_share([one], [other]) is shares


@pytest.mark.parametrize("path", ["", "/", "/etc/passwd", "../x", "a/../../b", "a\nb", "x" * 501])
def test_a_path_out_of_the_repository_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        rules.path_glob(path)


@given(
    born=st.floats(0, 1e10),
    later=st.floats(0, 1e6),
    head=st.floats(0, 1e5),
    deadline=st.none() | st.floats(0, 1e10),
)
def test_whoever_is_born_a_head_start_later_stands_behind(
    born: float, later: float, head: float, deadline: float | None
) -> None:
    """Nobody starves: against everybody born more than the head start later, the lowest priority wins."""
    mine = rules.rank(born, head_start=0, deadline=deadline, deadline_lead=3600)
    theirs = rules.rank(born + head + later + 1, head_start=head)
    assert mine < theirs


@given(
    born=st.floats(0, 1e9),
    later=st.floats(0, 1e6),
    lead=st.floats(0, 1e5),
    deadline=st.floats(0, 1e9),
)
def test_whoever_is_born_a_lead_later_is_not_passed_by_a_deadline(
    born: float, later: float, lead: float, deadline: float
) -> None:
    """A deadline that is long over passes nobody for ever."""
    mine = rules.rank(born, head_start=0)
    theirs = rules.rank(born + lead + later + 1, head_start=0, deadline=deadline, deadline_lead=lead)
    assert mine < theirs


STATUSES, ORDERS = st.sampled_from(list(TaskStatus)), st.sampled_from(list(OrderStatus))


@given(now=STATUSES, order=ORDERS, stopping=st.none() | st.sampled_from(sorted(ENDED)), another=st.booleans())
def test_a_task_follows_its_order_by_lawful_steps_and_then_stands(
    now: TaskStatus, order: OrderStatus, stopping: TaskStatus | None, another: bool
) -> None:
    to = rules.follow(now, order, stopping=stopping, another_try=another)
    lawful = to == now or TASK.allows(now, to) or (TASK.allows(now, T.RUNNING) and TASK.allows(T.RUNNING, to))
    assert lawful
    if to not in {T.RUNNING, T.PENDING}:
        assert rules.follow(to, order, stopping=None, another_try=another) == to


T = TaskStatus


@given(order=ORDERS, stopping=st.none() | st.sampled_from(sorted(ENDED)), another=st.booleans())
def test_nothing_revives_a_completed_task(order: OrderStatus, stopping: TaskStatus | None, another: bool) -> None:
    """W16"""
    assert rules.follow(T.COMPLETED, order, stopping=stopping, another_try=another) == T.COMPLETED


@given(now=STATUSES, order=st.sampled_from(sorted(FINISHED)), stopping=st.none() | st.just(T.CANCELLED))
def test_a_running_task_never_outlives_its_order(now: T, order: OrderStatus, stopping: T | None) -> None:
    """W12"""
    assert rules.follow(now, order, stopping=stopping, another_try=True) != T.RUNNING


@given(st.text(max_size=400))
def test_a_title_is_one_short_printable_line(text: str) -> None:
    title = rules.title(text)
    assert 0 < len(title) <= rules.LONGEST_TITLE
    assert title.isprintable()


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Add a login page. It must be quick.", "Add a login page"),
        ("# Fix `tax` for 2024\nmore", "Fix tax for 2024"),
        ("\n\n- **Rename** the module:\n", "Rename the module"),
        ("word " * 40, "word word word word word word word word word word word word word word word word…"),
        (" \n\t", "Untitled task"),
    ],
)
def test_a_title_is_the_first_sentence_without_marks(text: str, title: str) -> None:
    """TSK-11: without an agent, by rule."""
    assert rules.title(text) == title


EDGES = st.dictionaries(
    st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3, unique=True), max_size=6
)


@given(edges=EDGES, depends_on=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True))
def test_a_circle_is_found_exactly_when_there_is_one_and_every_step_of_it_exists(
    edges: dict[str, list[str]], depends_on: list[str]
) -> None:
    way = rules.circle(edges, "a", depends_on)
    reached, todo = set(depends_on), list(depends_on)
    while todo:
        for one in edges.get(todo.pop(), []):
            if one not in reached:
                reached.add(one)
                todo.append(one)
    assert bool(way) == ("a" in reached)
    if way:
        assert way[0] == way[-1] == "a"
        assert way[1] in depends_on
        assert all(two in edges[one] for one, two in itertools.pairwise(way[1:]))


@given(st.sampled_from(COLUMNS), st.booleans(), st.booleans())
def test_a_column_is_known_in_any_case_and_with_either_dash(name: str, upper: bool, under: bool) -> None:
    """C8"""
    written = name.replace("-", "_") if under else name
    assert column(written.upper() if upper else written) == name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PHASE_INITIAL", "analyzing"),
        ("phase_implementation", "building"),
        ("Phase-Integration", "testing"),
        ("PHASE_REFACTORING", "building-done"),
    ],
)
def test_the_phase_names_of_002_are_columns(name: str, meant: str) -> None:
    """C8"""
    assert column(name) == meant


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownColumn) as refused:
        column("deploying")
    assert "building-done" in refused.value.hint
