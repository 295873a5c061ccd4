"""A job from its first step to its result."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from typing import Any, Optional

from shopfloor_worker import child, pulse
from shopfloor_worker.api import Api
from shopfloor_worker.courier import Courier
from shopfloor_worker.mail import Mail
from shopfloor_worker.outbox import Outbox
from shopfloor_worker.port import Adapter
from shopfloor_worker.repo import Files, GitFailed, Repo
from shopfloor_worker.talk import Outcome, Talk

EXIT = {"completed": 0, "failed": 1, "interrupted": 2}
EXIT_UNWANTED, EXIT_AWAY = 3, 4
MOST_RESTARTS = 2
STOP_SECONDS = 7.5
"""From SIGTERM to the end, whatever is still unsent."""


class Worker:
    """Runs one job. Constructing it starts everything that runs beside the agent."""

    def __init__(
        self, job: "dict[str, Any]", adapter: Adapter, early: "Optional[child.Child]", signals: "Sequence[int]" = ()
    ) -> None:
        self.job, self.adapter = job, adapter
        self.outbox = Outbox(job["spool"])
        self.memory = Memory(job["spool"])
        self.mail = Mail(job["spool"], self.outbox)
        if not early:
            child.sweep(str(job["sandbox_id"]))
            self.adapter.session_id = self.memory.session_id or self.adapter.session_id
        self.memory.note(session_id=self.adapter.session_id)
        self.talk = Talk(job, adapter, self.outbox, self.mail, early)
        self.stop_at = 0.0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        pulse.start(self.outbox, float(job.get("heartbeat_seconds") or 15), self._status)
        self.courier = Courier(Api(job), self.outbox, lambda why, detail: self.talk.inbox.put((why, detail)))
        self.courier.start(lambda message: self.talk.inbox.put(("message", message)))
        for early_signal in signals:
            self._stop(early_signal, None)
        self.repo = Repo(job)
        self.files = self.talk.files = Files(self.repo, lambda kind, path: self.outbox.event(kind, {"path": path}))

    def run(self) -> int:
        """Do the job; answers the exit code."""
        if self.memory.result:
            return self._finish(EXIT[self.memory.result])
        try:
            outcome = self._work()
        except Exception as error:  # whatever it is: the work is saved and the server is told
            outcome = Outcome("error", f"the worker could not go on: {type(error).__name__}: {error}")
        if outcome.kind == "unwanted":
            self.talk.halt(polite=0.5)
            return EXIT_UNWANTED
        status = {"done": "completed", "interrupted": "interrupted", "stop": "interrupted", "away": "interrupted"}.get(
            outcome.kind, "failed"
        )
        self._conclude(status, outcome)
        return self._finish(EXIT_AWAY if outcome.kind == "away" else EXIT[status])

    def _work(self) -> Outcome:
        bundle = self.job.get("resume_bundle")
        if bundle and not self.memory.restored:
            self.repo.restore(bundle)
            self.memory.note(restored=True)
        outcome = Outcome("done", "nothing was left to do")
        for step in self.job["steps"]:
            if step["done"] or step["name"] in self.memory.done:
                continue
            outcome = self._step(step)
            if outcome.kind != "done":
                break
        return outcome

    # ---- one step
    def _step(self, step: "dict[str, Any]") -> Outcome:
        phase = {"phase": step["phase"], "step": step["name"]}
        self.outbox.event("workflow.phase_started", phase)
        before = self.repo.head()
        outcome = self._turns(step)
        if outcome.kind != "done":
            return outcome
        self.files.scan()
        words = next((line.strip() for line in outcome.summary.splitlines() if line.strip()), step["name"])
        subject = f"{step['phase']}: {words}"[:100]
        trailers = f"Shopfloor-Phase: {step['phase']}\nShopfloor-Order: {self.job['work_order_id']}\n"
        sha = self.repo.commit(f"{subject}\n\n{trailers}", empty=True)
        self._hand_out("checkpoint.bundle")
        self.outbox.event(
            "git.commit_created", {"sha": sha, **phase, **self._commit_facts(before, sha), "subject": subject}
        )
        self.outbox.event("workflow.phase_completed", phase)
        self.memory.note(done=[*self.memory.done, step["name"]])
        return outcome

    def _commit_facts(self, before: str, sha: "Optional[str]") -> "dict[str, Any]":
        return {"files": self.repo.changed(before, sha)[:200] if sha else []}

    def _turns(self, step: "dict[str, Any]") -> Outcome:
        """The step's turn, with what was said too late for it, and the agent brought back when it dies."""
        prompt, restarts, fresh_starts = step["prompt"], 0, 0
        if self.memory.begun == step["name"] and self.adapter.restarting():
            prompt = self.adapter.continuation(prompt)
        self.memory.note(begun=step["name"])
        outcome = self._turn(prompt, step["name"])
        while True:
            self.talk.catch_up()
            if outcome.kind == "crash" and restarts < MOST_RESTARTS:
                restarts += 1
                known = self.adapter.restarting()
                if known and self.talk.started:
                    prompt = self.adapter.continuation(step["prompt"])
                note = {"exit_code": outcome.exit_code, "attempt": restarts, "session_id": self.adapter.session_id}
                self.outbox.event("agent.restarted_in_place", note)
                outcome = self._turn(prompt, step["name"])
            elif outcome.kind == "lost_session" and not fresh_starts:
                fresh_starts += 1
                self.talk.halt()
                self.adapter.session_id = None
                outcome = self._turn(step["prompt"], step["name"])
            elif outcome.kind in {"done", "interrupted"} and (words := self._words()):
                outcome = self.talk.turn("", step["name"], words)
            else:
                return outcome

    def _turn(self, prompt: str, step: str) -> Outcome:
        outcome = self.talk.turn(prompt, step)
        if self.adapter.session_id:
            self.memory.note(session_id=self.adapter.session_id)
        return outcome

    def _words(self) -> "list[Any]":
        """What waits to be said, unless one of them ends the order."""
        words = self.mail.everything()
        if any(word.ends_the_order for word in words):
            self.mail.put_back(words)
            return []
        return words

    # ---- the end
    def _conclude(self, status: str, outcome: Outcome) -> None:
        self.talk.halt(polite=0.5 if self.stop_at else 2.0)
        reason = "" if status == "completed" else outcome.detail or outcome.kind
        head, changed, note = self.job["base_commit"], [], ""
        try:
            if status != "completed":
                self.files.scan()
                self.repo.commit(
                    f"{status}: {reason}"[:100] + f"\n\nShopfloor-Order: {self.job['work_order_id']}\n", empty=False
                )
            head = self.repo.head()
            changed = self.repo.changed(self.job["base_commit"], head)
            self._hand_out("result.bundle")
        except (GitFailed, OSError) as error:
            note = f"; what it left could not be committed: {error}"
        self._transcript()
        self.talk.catch_up()
        self.mail.refuse("the agent has finished")
        self.outbox.event("agent.completed", {"status": status, "summary": outcome.summary[:4000]})
        self.outbox.result(
            {
                "fencing": self.job["fencing"],
                "status": status,
                "summary": outcome.summary[:20_000],
                "reason": (reason + note)[:20_000],
                "files_changed": changed[:10_000],
                "head_sha": head if head != self.job["base_commit"] else None,
                "agent_session_id": self.adapter.session_id,
                "cost_usd": self.talk.tally.cost_usd,
                "usage": self.talk.tally.tokens,
            }
        )
        self.memory.note(result=status)

    def _hand_out(self, name: str) -> None:
        place = os.path.join(self.job["spool"], f"{time.time_ns()}-{name}")
        if self.repo.bundle(place):
            self.outbox.upload(name, place, self.repo.head())

    def _transcript(self) -> None:
        log = os.path.join(self.job["spool"], "agent.jsonl")
        with contextlib.suppress(OSError):
            if os.path.getsize(log):
                place = os.path.join(self.job["spool"], f"{time.time_ns()}-transcript")
                shutil.copyfile(log, place)
                self.outbox.upload("transcript", place, None)

    def _finish(self, code: int) -> int:
        """Wait until everything has reached the server; what has not stays in the spool."""
        if code == EXIT_AWAY:
            return code
        while not self.outbox.drained(0.2):
            if self.stop_at and time.monotonic() > self.stop_at + float(self.job.get("stop_seconds") or STOP_SECONDS):
                return code
            if self.courier.ended:
                return EXIT_UNWANTED if self.courier.ended == "unwanted" else EXIT_AWAY
            self.talk.catch_up()
            self.mail.refuse("the agent has finished")
        return code

    def _stop(self, number: int, _frame: Any) -> None:
        self.stop_at = self.stop_at or time.monotonic()
        self.talk.inbox.put(("stop", f"the worker was told to stop ({signal.Signals(number).name})"))

    def _status(self) -> "tuple[str, str]":
        if self.memory.result:
            return "finishing", "handing out the result"
        return ("stopping" if self.stop_at else "running"), self.talk.action


class Memory:
    """What a worker that was killed must know when it starts again in the same spool."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "worker.json")
        self._known: dict[str, Any] = {"session_id": None, "begun": None, "done": [], "restored": False, "result": None}
        with contextlib.suppress(OSError, ValueError), open(self._path, encoding="utf-8") as file:
            self._known.update(json.load(file))

    @property
    def session_id(self) -> "Optional[str]":
        """The conversation to go on with."""
        return self._known["session_id"]  # type: ignore[no-any-return]

    @property
    def done(self) -> "list[str]":
        """Steps that are committed and in the outbox."""
        return self._known["done"]  # type: ignore[no-any-return]

    @property
    def begun(self) -> "Optional[str]":
        """The step the agent was last given."""
        return self._known["begun"]  # type: ignore[no-any-return]

    @property
    def restored(self) -> bool:
        """Whether the earlier attempt's commits are in the work tree."""
        return bool(self._known["restored"])

    @property
    def result(self) -> "Optional[str]":
        """The status in the result that is in the outbox."""
        return self._known["result"]  # type: ignore[no-any-return]

    def note(self, **facts: Any) -> None:
        """Remember."""
        self._known.update(facts)
        with open(self._path + ".part", "w", encoding="utf-8") as file:
            json.dump(self._known, file)
        os.replace(self._path + ".part", self._path)
