"""The git gate: an agent in a real sandbox fetches and pushes with plain git, and the origin hears of it when the order is delivered."""

import gzip
import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import git_http
from tests.support.platform import GENEROUS, Platform, folder, git, platform, sample_repository, until

TOKEN = "origin-token-of-the-host-0001"
COMMIT = "git add -A && git -c user.name=A -c user.email=a@example.invalid commit -qm work"
WAIT: dict[str, Any] = {"wait_for_message": {"timeout": 600}}


@dataclass
class Yard:
    """A platform and an origin behind a token, whose project may have its gate open."""

    house: Platform
    server: git_http.GitServer
    bare: Path
    project: str

    def order(self, *actions: Any, **fields: Any) -> str:
        script = {"build": list(actions)}
        url: Any = self.server.url(self.bare.name)
        return self.house.order(url, script, workflow_type="build", max_attempts=1, **fields)

    def run(self, *commands: str, **fields: Any) -> tuple[dict[str, Any], str]:
        """The order that runs shell commands, finished, and what they printed."""
        order_id = self.order(*({"run": {"command": one, "expect_exit": None}} for one in commands), **fields)
        return self.house.finished(order_id), self.printed(order_id)

    def printed(self, order_id: str) -> str:
        told = (event for event in self.house.events(order_id) if event["event"] == "command.output")
        return "".join(str(event["text"]) for event in told)

    def open(self, *, gate: bool) -> None:
        answer = self.house.client.patch(f"/api/v1/projects/{self.project}", json={"git_gate": gate})
        assert answer.status_code == 200, answer.text

    def at_origin(self, ref: str) -> str:
        found = subprocess.run(
            ["git", "rev-parse", "-q", "--verify", ref], cwd=self.bare, check=False, capture_output=True, text=True
        )
        return found.stdout.strip()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Platform, git_http.GitServer, Path]]:
    with folder() as place:
        served = place / "served"
        served.mkdir()
        with git_http.serving(served) as server:
            server.rights = {TOKEN: "rw"}
            settings = {
                "origin_protocols": "http,https,file",
                "origin_tokens": {f"http://{server.host}": "ORIGIN_TOKEN"},
                "max_upload_bytes": 24 << 20,
            }
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("ORIGIN_TOKEN", TOKEN)
                with platform(**settings) as house:
                    yield house, server, served


@pytest.fixture
def yard(running: tuple[Platform, git_http.GitServer, Path]) -> Iterator[Yard]:
    house, server, served = running
    name = f"yard-{secrets.token_hex(4)}"
    with folder() as place:
        bare = sample_repository(place).rename(served / f"{name}.git")
        git("branch", "other", cwd=bare)
        wish = {"name": name, "repository_url": server.url(bare.name), "git_gate": True}
        made = house.post("/projects", wish, expect=201)
        yield Yard(house, server, bare, made["project_id"])


def test_what_the_agent_pushed_is_delivered_as_its_branch(yard: Yard) -> None:
    """Issue 3, 6: an agent may push itself, to one branch; the origin gets it by the host's hand."""
    order, printed = yard.run(f"echo 1 > one.txt && {COMMIT} && git push origin HEAD 2>&1 && git fetch origin")
    assert order["status"] == "completed", (order["reason"], printed)
    assert f"HEAD -> {order['git_branch_name']}" in printed
    assert git("show", f"{order['git_branch_name']}:one.txt", cwd=yard.bare) == "1"
    assert yard.house.get("/changes", work_order_id=order["agent_work_order_id"])["changes"]


def test_a_worktree_that_shares_its_repository_has_an_origin_of_its_own(yard: Yard) -> None:
    free = {"sandbox_type": "git_worktree", "allow_no_isolation": True}
    both = [yard.run(f"echo 1 > one.txt && {COMMIT} && git push origin HEAD 2>&1", **free) for _ in range(2)]
    assert ["HEAD -> " + order["git_branch_name"] in printed for order, printed in both] == [True, True], both


REFUSED = {
    "another branch": ("HEAD:refs/heads/other", "this work order may only push refs/heads/feat-"),
    "the base branch": ("HEAD:main", "this work order may only push refs/heads/feat-"),
    "a tag": ("HEAD:refs/tags/v1", "this work order may only push refs/heads/feat-"),
    "another branch's end": (":main", "this work order may only push refs/heads/feat-"),
    "one of two branches": ("HEAD HEAD:other", "nothing is taken of a push that is refused in part"),
    "a reference of ours": ("HEAD:refs/shopfloor/x", "this work order may only push refs/heads/feat-"),
}


def test_every_other_reference_is_refused_and_git_says_why(yard: Yard) -> None:
    pushes = [f"git push --force origin {refs} 2>&1" for refs, _ in REFUSED.values()]
    before = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=yard.bare)
    order, printed = yard.run(f"echo 1 > one.txt && {COMMIT}", *pushes, "git ls-remote origin | sed s/^/after:/")
    assert printed.count("[remote rejected]") == len(pushes) + 1
    assert not [name for name, (_, said) in REFUSED.items() if said not in printed]
    after = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=yard.bare)
    delivered = f"refs/heads/{order['git_branch_name']} "
    assert [line for line in after.splitlines() if not line.startswith(delivered)] == before.splitlines()
    assert f"refs/heads/{order['git_branch_name']}" not in printed.partition("after:")[2]


def test_its_own_branch_is_not_deleted(yard: Yard) -> None:
    push = f"echo 1 > one.txt && {COMMIT} && git push -q origin HEAD"
    order, printed = yard.run(push, "git push origin --delete $(git branch --show-current) 2>&1")
    assert "the branch of a work order is not deleted by its agent" in printed
    assert order["status"] == "completed", order["reason"]


def test_the_branch_goes_only_forward(yard: Yard) -> None:
    """What was pushed once is never taken back, and an end beside it is not passed over in silence."""
    push = f"echo 1 > one.txt && {COMMIT} && git push -q origin HEAD"
    amended = f"git reset -q --hard HEAD~1 && echo 2 > one.txt && {COMMIT} && git push --force origin HEAD 2>&1"
    order, printed = yard.run(push, amended)
    assert "the branch only goes forward" in printed
    assert (order["status"], "does not contain it" in order["reason"]) == ("failed", True), order["reason"]


def test_what_was_pushed_from_another_clone_is_delivered(yard: Yard) -> None:
    """Done is proven by what was pushed, too: the workspace itself is unchanged."""
    clone = "git clone -q $(git remote get-url origin) /tmp/elsewhere && cd /tmp/elsewhere"
    order, printed = yard.run(
        f"branch=$(git branch --show-current); {clone} && echo 2 > two.txt && {COMMIT} && git push origin HEAD:$branch 2>&1"
    )
    assert order["status"] == "completed", (order["reason"], printed)
    assert git("show", f"{order['git_branch_name']}:two.txt", cwd=yard.bare) == "2"


def test_what_was_pushed_from_another_clone_on_top_of_an_earlier_step_is_delivered(yard: Yard) -> None:
    """The last step's own commit is empty: it adds nothing to what was pushed."""
    clone = "branch=$(git branch --show-current) && git clone -q -b $branch $(git remote get-url origin) /tmp/elsewhere"
    push = f"{clone} && cd /tmp/elsewhere && echo 2 > two.txt && {COMMIT} && git push -q origin HEAD"
    wait = "until git ls-remote --heads origin | grep -q feat; do sleep 0.2; done"  # until the plan was taken in
    script = {"plan": [{"write": {"path": "plan.md", "content": "x\n"}}], "build": [{"run": f"{wait} && {push}"}]}
    url: Any = yard.server.url(yard.bare.name)
    order = yard.house.finished(yard.house.order(url, script, workflow_type="plan_build", max_attempts=1))
    assert order["status"] == "completed", (order["reason"], yard.printed(order["agent_work_order_id"]))
    files = git("ls-tree", "-r", "--name-only", order["git_branch_name"], cwd=yard.bare).split()
    assert {"plan.md", "two.txt"} < set(files)


def test_a_fetch_shows_the_base_branch_and_the_orders_own_and_nothing_else(yard: Yard) -> None:
    first, _ = yard.run(f"echo 1 > one.txt && {COMMIT} && git push -q origin HEAD")
    yard.house.finished(first["agent_work_order_id"])
    order, printed = yard.run(f"echo 1 > one.txt && {COMMIT} && git push -q origin HEAD; git ls-remote --heads origin")
    shown = sorted(line.partition("refs/heads/")[2] for line in printed.splitlines() if "refs/heads/" in line)
    assert shown == sorted(["main", order["git_branch_name"]])


def test_large_pushes_and_large_questions_pass(yard: Yard) -> None:
    """git sends a large push in chunks, and a fetch from many commits compressed."""
    large = f"head -c 9000000 /dev/urandom > large.bin && {COMMIT} && git push -q origin HEAD"
    clone = "git clone -q -b $(git branch --show-current) $(git remote get-url origin) /tmp/elsewhere"
    ahead = f"(cd /tmp/elsewhere && echo 2 > two.txt && {COMMIT} && git push -q origin HEAD)"
    many = "for i in $(seq 90); do git -c user.name=A -c user.email=a@a commit -q --allow-empty -m $i; done"
    fetch = "GIT_TRACE_CURL=1 git fetch origin 2>&1 | grep -io 'content-encoding: gzip'"
    merge = "git -c user.name=A -c user.email=a@a merge -q --no-edit FETCH_HEAD origin/$(git branch --show-current)"
    order, printed = yard.run(
        f"{large} && {clone} && {ahead}", many, fetch, merge, "git push -q origin HEAD && echo all in"
    )
    assert order["status"] == "completed", (order["reason"], printed)
    assert "all in" in printed
    assert "content-encoding: gzip" in printed.lower()
    assert git("cat-file", "-s", f"{order['git_branch_name']}:large.bin", cwd=yard.bare) == "9000000"


def test_a_push_larger_than_an_upload_may_be_is_refused_in_words(yard: Yard) -> None:
    large = f"head -c 26000000 /dev/urandom > large.bin && {COMMIT} && git push origin HEAD 2>&1"
    _, printed = yard.run(large, "git reset -q --hard HEAD~1 && echo 1 > one.txt")
    assert "[remote rejected]" in printed
    assert f"the push is larger than {24 << 20} bytes" in printed


def test_a_hostile_push_is_refused_as_its_bundle_would_be(yard: Yard) -> None:
    blob = "blob=$(echo x | git hash-object -w --stdin)"
    tree = r"inner=$(printf '100644 blob %s\tconfig\n' $blob | git mktree) && tree=$(printf '040000 tree %s\t.GIT\n' $inner | git mktree)"
    evil = "head=$(echo evil | git -c user.name=A -c user.email=a@a commit-tree $tree -p HEAD)"
    _, printed = yard.run(
        f"{blob} && {tree} && {evil} && git push origin $head:refs/heads/$(git branch --show-current) 2>&1"
    )
    assert "[remote rejected]" in printed
    assert "git refuses the objects" in printed


def test_a_closed_gate_says_so_and_the_work_is_delivered_all_the_same(yard: Yard) -> None:
    order_id = yard.order(
        {"say": "ready"},
        WAIT,
        {"run": {"command": f"echo 1 > one.txt && {COMMIT}; git push origin HEAD 2>&1", "expect_exit": None}},
    )
    until(lambda: any(e["event"] == "agent.message" for e in yard.house.events(order_id)), what="the agent to speak")
    yard.open(gate=False)
    yard.house.post(f"/agent-work-orders/{order_id}/prompt", {"prompt_text": "go"})
    order = yard.house.finished(order_id)
    assert "The git gate of this repository's project is closed" in yard.printed(order_id)
    assert order["status"] == "completed", order["reason"]


def test_without_a_gate_there_is_no_remote(yard: Yard) -> None:
    yard.open(gate=False)
    _, printed = yard.run("echo remotes:$(git remote):", "echo 1 > one.txt")
    assert "remotes::" in printed


def test_the_origins_token_never_reaches_the_sandbox(yard: Yard) -> None:
    look = "cat /proc/*/environ /in/* ~/.config/git/* .git/config; GIT_TRACE_CURL=1 git -c core.askPass=true fetch origin 2>&1; find / -xdev -type f -size -1M 2>/dev/null | xargs grep -sl origin-token-of"
    order, printed = yard.run(f"echo 1 > one.txt && {COMMIT} && git push -q origin HEAD", look)
    assert order["status"] == "completed", order["reason"]
    assert TOKEN in yard.server.tokens_seen
    assert TOKEN not in printed
    assert "Authorization: Bearer" in printed  # the sandbox's own: the look was real


def test_an_acknowledged_push_survives_the_death_of_server_and_sandbox(yard: Yard) -> None:
    """No lost work: kill -9 of everything, and the next attempt has it."""
    push = f"echo 1 > one.txt && {COMMIT} && git push -q origin HEAD && echo acknowledged"
    first: Any = {"run": push, "if_attempt": 1}
    url: Any = yard.server.url(yard.bare.name)
    script = {"build": [first, {**WAIT, "if_attempt": 1}, {"say": "nothing more to do"}]}
    order_id = yard.house.order(url, script, workflow_type="build", max_attempts=2)
    until(lambda: "acknowledged" in yard.printed(order_id), what="the push")
    yard.house.kill()
    assert yard.house.signal_inside(b"worker", 9)
    yard.house.start()
    order = yard.house.finished(order_id)
    assert order["status"] == "completed", order["reason"]
    assert (yard.house.show(order_id)["sandbox_identifier"][-2:], yard.at_origin(order["git_branch_name"])) != (
        "-1",
        "",
    )
    assert git("show", f"{order['git_branch_name']}:one.txt", cwd=yard.bare) == "1"


INSTANTS = {
    "while its pack comes in": "repositories/*/tmp/*/lent.git/objects/pack/*",
    "when it is a bundle": "repositories/*/tmp/*/out.bundle",
    "while it is stored": "blobs/.incoming-*",
    "while it is imported": "repositories/*/tmp/*/pack",
}


@pytest.mark.parametrize("instant", INSTANTS.values(), ids=INSTANTS)
def test_a_server_that_dies_during_a_push_takes_it_or_not_and_the_next_try_is_acknowledged(
    yard: Yard, instant: str
) -> None:
    clone = "branch=$(git branch --show-current) && git clone -q $(git remote get-url origin) /tmp/elsewhere && cd /tmp/elsewhere"
    work = f"head -c 9000000 /dev/urandom > large.bin && {COMMIT}"
    push = "until git push -q origin HEAD:$branch 2>/dev/null; do sleep 0.2; done && echo acknowledged"
    order_id = yard.order({"run": f"{clone} && {work} && {push}"})
    last = time.monotonic() + GENEROUS
    while not any(yard.house.data.glob(instant)):  # no pause between looks: the instant is short
        assert time.monotonic() < last, yard.printed(order_id)
    yard.house.kill()
    yard.house.start()
    order = yard.house.finished(order_id)
    assert order["status"] == "completed", (order["reason"], yard.printed(order_id))
    assert "acknowledged" in yard.printed(order_id)
    assert git("cat-file", "-s", f"{order['git_branch_name']}:large.bin", cwd=yard.bare) == "9000000"


@dataclass
class Knock:
    """At the sandboxes' door, with the token of a sandbox whose agent waits."""

    http: httpx.Client
    order_id: str
    token: str

    def get(self, path: str, token: str) -> httpx.Response:
        shown = {"Authorization": f"Bearer {token or self.token}"}
        return self.http.get(path.replace("ORDER", self.order_id), headers=shown)


@pytest.fixture
def knock(yard: Yard) -> Iterator[Knock]:
    order_id = yard.order({"say": "ready"}, WAIT)
    until(lambda: any(e["event"] == "agent.message" for e in yard.house.events(order_id)), what="the agent to speak")
    inbox = yard.house.data / "inboxes" / yard.house.show(order_id)["sandbox_identifier"]
    token = json.loads((inbox / "job.json").read_text())["api"]["token"]
    door = httpx.HTTPTransport(uds=str(yard.house.data / "door.sock"))
    with httpx.Client(transport=door, base_url="http://door", timeout=60) as http:
        yield Knock(http, order_id, token)
    yard.house.post(f"/agent-work-orders/{order_id}/cancel")


REFS = "/git/ORDER.git/info/refs?service=git-receive-pack"


DOOR = {
    (REFS, ""): 200,
    (REFS, f"sfs_{'x' * 43}"): 401,
    (REFS, TOKEN): 401,
    ("/git/wo-22222222.git/info/refs?service=git-upload-pack", ""): 404,
    ("/git/ORDER.git/info/refs?service=git-upload-archive", ""): 404,
    ("/git/ORDER.git/HEAD", ""): 404,
    ("/git/ORDER.git/objects/info/packs", ""): 404,
    ("/git/%2e%2e/api/v1/agent-work-orders", ""): 404,
}


def test_the_door_opens_for_its_own_repository_alone(knock: Knock) -> None:
    assert {(path, token): knock.get(path, token).status_code for path, token in DOOR} == DOOR


def test_what_is_no_push_is_refused_in_words(knock: Knock) -> None:
    path, bearer = f"/git/{knock.order_id}.git/git-receive-pack", {"Authorization": f"Bearer {knock.token}"}
    bad = [
        (b"hello", {}),
        (b"0000", {"Content-Encoding": "br"}),
        (b"not gzip", {"Content-Encoding": "gzip"}),
        (gzip.compress(b"00"), {"Content-Encoding": "gzip"}),
    ]
    answers = [knock.http.post(path, content=body, headers=bearer | headers) for body, headers in bad]
    assert [(answer.status_code, answer.headers["content-type"].partition(";")[0]) for answer in answers] == [
        (422, "text/plain")
    ] * 4


def test_people_do_not_come_in_by_the_gate(knock: Knock, yard: Yard) -> None:
    """Not even with a sandbox's token: the gate is at the sandboxes' own door."""
    path = REFS.replace("ORDER", knock.order_id)
    answers = [
        yard.house.client.get(path, headers=headers) for headers in ({}, {"Authorization": f"Bearer {knock.token}"})
    ]
    assert [answer.status_code for answer in answers] == [403, 403]
