"""The demo's three pieces of work: ordered over HTTP like any client would, followed live, one steered, one killed."""

import contextlib
import importlib.resources
import os
import queue
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import yaml

from shopfloor.cli import processes
from shopfloor.cli.client import ORDERS, Client
from shopfloor.cli.demo.house import DemoFailed, House
from shopfloor.cli.feed import Event, Feed
from shopfloor.cli.watch import steering

KILL_SECONDS = 60.0
RESTARTS = {"agent.restarted_in_place", "agent.restarted"}
AGENT = "--script-agent"
"""By this the agent program is known in the process table."""
SLOW_COMMAND = ["sleep", "120"]
"""What the agent that gets killed runs at that moment (sample.yaml)."""


@dataclass(kw_only=True)
class Job:
    """One piece of work and how it went."""

    name: str
    request: str
    tests: str
    script: dict[str, Any]
    steer: str = ""
    kill: bool = False
    order_id: str = ""
    order: dict[str, Any] = field(default_factory=dict)
    step: str = ""
    steered: bool = False
    killed: bool = False
    restarted: bool = False
    began: float = 0.0
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """The order's status as far as it is known."""
        return str(self.order.get("status", "pending"))


def sample() -> tuple[dict[str, str], list[Job]]:
    """The files of the sample repository, and what is to be done in it."""
    text = importlib.resources.files("shopfloor.cli.demo").joinpath("sample.yaml").read_text()
    read = yaml.safe_load(text)
    return read["repository"], [Job(**order) for order in read["orders"]]


class Crew:
    """The jobs at work, each followed by a thread of its own."""

    def __init__(self, house: House, jobs: list[Job], repository: str) -> None:
        self.house, self.jobs, self.repository = house, jobs, repository
        self.news: queue.Queue[tuple[Job, Event | Exception | None]] = queue.Queue()
        """Job with an event, what went wrong, or None at its end."""

    def start(self) -> None:
        """Order everything, then follow it."""
        with Client(self.house.url) as client:
            for job in self.jobs:
                body = {
                    "repository_url": self.repository,
                    "initial_prompt": job.request,
                    "agent": "script",
                    "agent_options": {"script": job.script},
                }
                job.order = client.post(ORDERS, body)["agent_work_order"]
                job.order_id, job.began = job.order["agent_work_order_id"], time.monotonic()
        for job in self.jobs:
            threading.Thread(target=self._follow, args=(job,), daemon=True).start()

    def _follow(self, job: Job) -> None:
        try:
            with Client(self.house.url) as client:
                for event in Feed(client, job.order_id).follow():
                    self.news.put((job, event))
                    self._meddle(client, job, event)
                job.order = client.order(job.order_id)
                job.seconds = time.monotonic() - job.began
        except Exception as error:
            self.news.put((job, error))
        else:
            self.news.put((job, None))

    def _meddle(self, client: Client, job: Job, event: Event) -> None:
        """Steer the one that asks, kill the one that is slow: once each, while they build."""
        kind = event["event_type"]
        if kind == "workflow.phase_started":
            job.step = str(event["payload"].get("step", ""))
        elif kind in RESTARTS:
            job.restarted = True
        elif job.step == "build" and kind == "agent.message":
            if job.steer and not job.steered:
                job.steered = True
                steering(client, job.order_id, job.steer)
            elif job.kill and not job.killed:
                job.killed = True
                self._kill(client.order(job.order_id)["sandbox_identifier"])

    def _kill(self, sandbox_id: str) -> None:
        """Kill with -9 the agent in a sandbox, once it is at its slow command."""
        deadline = time.monotonic() + KILL_SECONDS
        while time.monotonic() < deadline:
            keepers = [p for p, folder in processes.inside(self.house.data).items() if sandbox_id in str(folder)]
            family = processes.below(keepers)
            if any(processes.command(pid) == SLOW_COMMAND for pid in family):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent(family), signal.SIGKILL)
                    return
            time.sleep(0.05)
        raise DemoFailed(f"the agent in sandbox {sandbox_id} was not found at work")


def agent(family: list[int]) -> int:
    """The agent program among the processes of a sandbox; raises ProcessLookupError when it is gone."""
    if found := next((pid for pid in family if AGENT in processes.command(pid)), None):
        return found
    raise ProcessLookupError
