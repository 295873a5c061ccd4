"""The keeper's first moments, which a busy machine draws out."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from shopfloor.sandboxes.adapters._keeper import launch
from shopfloor.sandboxes.adapters._keeper.keeper import CREDENTIALS, Keeper
from shopfloor.sandboxes.adapters._keeper.plan import Plan

MUCH = 1 << 30


class Paused(Exception):
    """The keeper does not get the processor again for a while."""


def test_a_greeting_names_its_process_however_soon_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the keeper asks for a process 0, and the sandbox does not start: "it said nothing"."""

    def child_is_faster(plan: Plan, handles: launch.Handles) -> int:
        handles.channel.send(b"\n")
        raise Paused

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "fork", child_is_faster)
    much: dict[str, Any] = {"processes": MUCH, "memory": MUCH, "disk": MUCH, "tmp": MUCH}
    plan = Plan(sandbox_id="s", labels={}, argv=["true"], env={}, directory="/", watched=[], bwrap="bwrap", **much)
    keeper = Keeper(plan, report=-1)
    with pytest.raises(Paused):
        keeper._start()
    _, said, _, _ = keeper.channel.recvmsg(1, socket.CMSG_SPACE(CREDENTIALS.size))
    assert CREDENTIALS.unpack(said[0][2])[0] == os.getpid()
