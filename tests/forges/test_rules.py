"""The law of repositories and branches."""

import itertools
import posixpath
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.forges.rules import (
    MAX_BLOB,
    BadBranchName,
    BadRepositoryUrl,
    Changed,
    Commit,
    CredentialsInUrl,
    Kind,
    Phase,
    address,
    branch_name,
    escapes,
    file_url,
    findings,
    is_branch,
    looks_like_git,
    our_branch,
    phase_history,
    phase_of,
    repository_url,
)
from shopfloor.kit.errors import Problem

START = datetime(2026, 1, 1, tzinfo=UTC)
SAME = {
    "https://github.com/owner/name": [
        "owner/name",
        "https://github.com/owner/name.git",
        "https://GitHub.com/owner/name/",
        "https://www.github.com/owner/name",
        " https://github.com/owner/name\n",
    ],
    "ssh://git@github.com/owner/name": ["git@github.com:owner/name.git", "github.com:owner/name"],
    "https://git.example.org:8443/group/sub/name.git": ["https://git.example.org:8443/group//sub/name.git/"],
    "ssh://me@example.org:2222/srv/x.git": ["ssh://me@example.org:2222/srv/x.git"],
    "/srv/my repos/ünïcode": [
        "/srv/my repos/ünïcode/",
        "//srv/./my repos/x/../ünïcode",
        "file:///srv/my%20repos/%C3%BCn%C3%AFcode",
    ],
}
REFUSED = [
    "",
    " ",
    "-oProxyCommand=x",
    "--upload-pack=x",
    "ext::sh -c x",
    "fd::17",
    "name",
    ".",
    "../x",
    "~/x",
    "/",
    "a/b/c",
    "-a/b",
    "https://",
    "https://github.com",
    "https://github.com/owner",
    "https://github.com/owner/name/tree/main",
    "https://example.org/",
    "https://example.org/x?y=z",
    "https://example.org/x#y",
    "https://example.org/../x",
    "https://example.org/-x",
    "https://-oProxyCommand=x/y",
    "https://exa mple.org/x",
    "https://example.org:99999/x",
    "git://example.org/x",
    "ftp://example.org/x",
    "file://host/x",
    "ssh://-oProxyCommand=x/y",
    "ssh://git@-x/y",
    "-x@example.org:y",
    "/srv/a\nb",
    "/srv/a\x1b[31m",
    "https://example.org/a\x00b",
    "https://example.org/a%00b",
    "https://example.org/a%1b[31mb",
    "file:///srv/a%00b",
]


@pytest.mark.parametrize(("wanted", "text"), [(url, text) for url, texts in SAME.items() for text in texts])
def test_every_spelling_of_an_address_becomes_one(wanted: str, text: str) -> None:
    assert repository_url(text) == wanted


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_address_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(BadRepositoryUrl) as caught:
        repository_url(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "https://user:sekret123@example.org/x",
        "https://sekret123@github.com/o/n",
        "ssh://git:sekret123@example.org/x",
        "http://:sekret123@example.org/x",
        "https://u:sekret123@example.org:bad/x",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(BadRepositoryUrl) as caught:
        repository_url(text)
    assert "sekret123" not in str(caught.value.document())


def test_refused_credentials_have_a_kind_of_their_own() -> None:
    with pytest.raises(CredentialsInUrl):
        repository_url("https://user:word@example.org/x")


@given(st.text(max_size=80) | st.from_regex(r"(https|ssh|file|ext|git)://?[a-z@:./~ -]{0,40}", fullmatch=True))
def test_an_address_once_normalised_stays_as_it_is(text: str) -> None:
    try:
        url = repository_url(text)
    except BadRepositoryUrl:
        return
    assert repository_url(url) == url


@given(st.text(max_size=60))
def test_an_accepted_address_never_looks_like_an_option_or_a_helper(text: str) -> None:
    try:
        found = address(text)
    except BadRepositoryUrl:
        return
    assert found.url.startswith(("https://", "http://", "ssh://", "/"))


@pytest.mark.parametrize(
    ("text", "owner", "name"),
    [
        ("owner/name", "owner", "name"),
        ("https://example.org/group/sub/name.git", "group/sub", "name"),
        ("/srv/name.git", "local", "name"),
    ],
)
def test_an_address_tells_owner_and_name(text: str, owner: str, name: str) -> None:
    assert (address(text).owner, address(text).name) == (owner, name)


def test_a_credential_belongs_to_scheme_host_and_port() -> None:
    assert address("https://example.org:8443/a/b").origin == "https://example.org:8443/"


def test_a_local_path_goes_to_git_quoted() -> None:
    assert file_url("/a b/100%/ü") == "file:///a%20b/100%25/%C3%BC"


def test_a_local_path_is_of_kind_file() -> None:
    assert address("/srv/x").kind == Kind.FILE


@pytest.mark.parametrize(("issue", "wanted"), [(None, "feat-wo-4k9x2m7q"), (12, "feat-issue-12-wo-4k9x2m7q")])
def test_a_branch_carries_order_and_issue(issue: int | None, wanted: str) -> None:
    assert branch_name("wo-4k9x2m7q", issue=issue) == wanted


@pytest.mark.parametrize(
    "name",
    [
        "--upload-pack=x", "-x", "$(id)", "`id`", "a b", "A", "é", "a..b", "a//b", "a/", "/a", "a.lock", "a.lock/b",
        "a/.b", ".a", "a.", "@", "a@{b", "a~1", "a^", "a:b", "a\\b", "a\nb", "", "x" * 101, "a?b", "a*b", "a[b",
    ],
)  # fmt: skip
def test_an_evil_branch_name_is_refused(name: str) -> None:
    with pytest.raises(BadBranchName):
        our_branch(name)


@given(st.from_regex(r"[a-z0-9._/-]{1,40}", fullmatch=True))
def test_our_branch_names_are_branch_names(name: str) -> None:
    try:
        our_branch(name)
    except BadBranchName:
        return
    assert is_branch(name)


def commits(*messages: str) -> list[Commit]:
    return [Commit(f"{n:040x}", START + timedelta(minutes=n), message) for n, message in enumerate(messages)]


@pytest.mark.parametrize(
    ("message", "phase"),
    [
        ("x\n\nShopfloor-Phase: testing\nShopfloor-Order: wo-1", Phase.TESTING),
        ("plan: x\n\nShopfloor-Phase: implementing", Phase.IMPLEMENTING),
        ("x\n\nShopfloor-Phase: testing\n\nin the middle does not count", None),
        ("x\n\nShopfloor-Phase: world-domination", None),
        ("plan: do it", Phase.PLANNING),
        ("implementation: do it", Phase.IMPLEMENTING),
        ("test(api): do it", Phase.TESTING),
        ("planet: x", None),
        ("testing the water", None),
        ("", None),
    ],
)
def test_a_commit_tells_its_phase(message: str, phase: Phase | None) -> None:
    assert phase_of(message) == phase


@given(st.lists(st.sampled_from(["x", "plan: a", "build: b", "test: c", "y\n\nShopfloor-Phase: testing"]), max_size=30))
def test_the_history_of_phases_counts_every_commit_once(messages: list[str]) -> None:
    assert sum(span.commits for span in phase_history(commits(*messages))) == len(messages)


@given(st.lists(st.sampled_from(["x", "plan: a", "build: b", "test: c"]), min_size=1, max_size=30))
def test_phases_follow_each_other_without_gap(messages: list[str]) -> None:
    spans = phase_history(commits(*messages))
    assert all(a.completed_at == b.started_at and a.phase != b.phase for a, b in itertools.pairwise(spans))


def test_the_last_phase_is_open() -> None:
    assert [s.completed_at is None for s in phase_history(commits("plan: a", "build: b"))] == [False, True]


@pytest.mark.parametrize("messages", [("no marker",), ("no", "marker")])
def test_without_a_marker_the_order_is_planning(messages: tuple[str, ...]) -> None:
    assert [span.phase for span in phase_history(commits(*messages))] == ["planning"]


@pytest.mark.parametrize(
    "name", [".git", ".GIT", ".Git", "git~1", "GIT~2", ".git.", ".git ", ".git. .", ".git::$INDEX_ALLOCATION", ".g\u200cit", "\uff0egit"]
)  # fmt: skip
def test_every_disguise_of_the_git_folder_is_seen(name: str) -> None:
    assert looks_like_git(name)


@pytest.mark.parametrize("name", [".gitignore", ".github", "git", "a.git", ".gitattributes", "git~x"])
def test_honest_names_are_no_git_folder(name: str) -> None:
    assert not looks_like_git(name)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", "/etc/passwd"), ("a", ".."), ("a", "../x"), ("a/b", "../../x"), ("a", "b/../../x"), ("a", "C:\\x"),
        ("a", "\\\\host\\x"), ("a", "..\\x"), ("a", "b/.."), ("a", ""), ("a", "./.././x"),
    ],
)  # fmt: skip
def test_a_link_out_of_the_tree_is_seen(path: str, target: str) -> None:
    assert escapes(path, target)


@pytest.mark.parametrize(
    ("path", "target"), [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../x/y"), ("a", "./b"), ("a", "..b")]
)
def test_a_link_inside_the_tree_is_fine(path: str, target: str) -> None:
    assert not escapes(path, target)


PIECES = st.lists(st.sampled_from(["..", ".", "a", "b", ""]), min_size=1, max_size=8).map("/".join)


@given(st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4).map("/".join), PIECES)
def test_a_link_that_passes_stays_inside(path: str, target: str) -> None:
    if not escapes(path, target):
        assert not posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).startswith(("..", "/"))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (Changed("x/.GIT/config", "100644"), "git_folder"),
        (Changed("x\\.git\\config", "100644"), "git_folder"),
        (Changed("lib", "160000"), "submodule"),
        (Changed("lib", "160000", "160000"), "submodule"),
        (Changed("notes", "120000", target="/etc/passwd"), "symlink_outside"),
        (Changed("a\x1b[2Jb", "100644"), "unprintable_path"),
        (Changed("a\ufffdb", "100644"), "unprintable_path"),
    ],
)
def test_the_policy_refuses(change: Changed, rule: str) -> None:
    assert [(f.rule, f.refused) for f in findings([change])] == [(rule, True)]


@pytest.mark.parametrize("change", [Changed(".github/workflows/ci.yml", "100644"), Changed(".gitmodules", "100644")])
def test_the_policy_warns_of_what_runs_elsewhere(change: Changed) -> None:
    assert [f.refused for f in findings([change])] == [False]


def test_taking_something_bad_away_is_allowed() -> None:
    assert findings([Changed("lib", "000000", "160000"), Changed("notes", "000000", "120000")]) == []


def test_a_file_beyond_the_limit_is_refused() -> None:
    assert [f.rule for f in findings([], [MAX_BLOB + 1])] == ["file_too_large"]


def test_too_much_in_all_is_refused() -> None:
    assert [f.rule for f in findings([], [60, 60], max_blob=100, max_total=100)] == ["too_much"]


def test_problems_of_the_rules_say_what_to_do() -> None:
    assert all(issubclass(kind, Problem) and kind.hint for kind in (BadRepositoryUrl, BadBranchName))
