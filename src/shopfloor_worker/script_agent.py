"""The script agent itself: replays actions from the job, or from `.shopfloor/script.json` in the workspace, as a real program.

A script is a list of actions, or a mapping of step name -> list (`message` -> what to do when somebody speaks after the script's end).
An action is a mapping with one verb, or just a verb's name; see docs/script-agent.md. Progress is kept in a file, so a program
started again goes on at the first unfinished action.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import Any

OUTPUT_KEPT = 4096


class Interrupted(Exception):
    """Somebody asked to stop the turn."""


class Failed(Exception):
    """The script says that the agent fails here."""


class ScriptAgent:
    """One process: prompts in, events out."""

    def __init__(self, job: "dict[str, Any]") -> None:
        self.job, self.script = job, job["agent"].get("options", {}).get("script")
        self.workspace, self.attempt = job["workspace"], int(job.get("fencing") or 1)
        self.mail: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.progress = Progress(os.path.join(job["home"], ".shopfloor", f"script-{job['attempt_id']}.json"))
        self.summary, self.deaf, self.number = "", False, 0
        self._out = threading.Lock()

    def run(self) -> int:
        """Serve prompts until the input ends."""
        threading.Thread(target=self._listen, daemon=True).start()
        self._event("agent.session", session_id=f"script-{self.job['attempt_id']}", model="script")
        while True:
            said = self.mail.get()
            if said["type"] == "end":
                return 0
            if said["type"] != "stop":
                self._turn(said)

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            with contextlib.suppress(ValueError):
                self.mail.put(json.loads(line))
        self.mail.put({"type": "end"})

    def _turn(self, said: "dict[str, Any]") -> None:
        step = said["step"] if said["type"] == "prompt" else "message"
        if said["type"] != "prompt":
            self.progress.note(message=said["text"])
            self.progress.read_message()
            self.progress.forget(step)
        self._tell(type="taken", ident=said["ident"])
        reason, detail, self.summary = "done", "", ""
        try:
            for index, action in enumerate(self._actions(step)):
                if index >= self.progress.at(step):
                    self._hear(0)
                    self._do(action, step, index)
                    self.progress.finished(step, index)
        except Interrupted:
            reason, detail = "interrupted", "the turn was interrupted"
        except Failed as failure:
            reason, detail = "error", str(failure)
        self._tell(type="turn_end", reason=reason, detail=detail, summary=self.summary)

    def _actions(self, step: str) -> "list[Any]":
        script = self.script
        if script is None:
            place = os.path.join(self.workspace, ".shopfloor", "script.json")
            try:
                with open(place, encoding="utf-8") as file:
                    script = json.load(file)
            except (OSError, ValueError) as error:
                raise Failed(f"there is no script: give option 'script', or write {place} ({error})") from error
        if isinstance(script, dict):
            default = [{"say": "noted: $message"}] if step == "message" else []
            return list(script.get(step, default))
        return [{"say": "noted: $message"}] if step == "message" else list(script)

    def _do(self, action: Any, step: str, index: int) -> None:
        if isinstance(action, str):
            action = {action: None}
        if self.attempt not in _list(action.get("if_attempt", self.attempt)):
            return
        verb = next((key for key in action if hasattr(self, f"do_{key}")), None)
        if verb is None:
            raise Failed(f"action {index + 1} of {step!r} has no known verb: {sorted(action)}")
        self.number = index
        if verb in {"crash", "exit"}:
            times = int(action[verb].get("times", 1)) if isinstance(action[verb], dict) else 1
            if self.progress.count(f"{step}-{index}") >= times:
                self.progress.finished(step, index)
        getattr(self, f"do_{verb}")(self._filled(action[verb]))

    # ---- verbs
    def do_say(self, text: Any) -> None:
        """Say something; the last thing said is the turn's summary."""
        self.summary = str(text)
        self._event("agent.message", text=self.summary, partial=False, message_id=self._ident())

    def do_think(self, text: Any) -> None:
        """Think aloud."""
        self._event("agent.thinking", text=str(text))

    def do_write(self, what: "dict[str, str]") -> None:
        """Write a file: path, content."""
        self._edit("write", what["path"], what.get("content", ""), "w")

    def do_append(self, what: "dict[str, str]") -> None:
        """Append to a file: path, content."""
        self._edit("append", what["path"], what.get("content", ""), "a")

    def do_delete(self, what: Any) -> None:
        """Delete a file."""
        path = what["path"] if isinstance(what, dict) else str(what)
        self._used("delete", "edit", {"path": path})
        try:
            os.unlink(os.path.join(self.workspace, path))
        except OSError as error:
            self._result(ok=False, output=str(error))
            return
        self._event("file.deleted", path=path)
        self._result(ok=True, output=f"deleted {path}")

    def do_run(self, what: Any) -> None:
        """Run a shell command: command, expect_exit (0; null for any)."""
        what = what if isinstance(what, dict) else {"command": str(what)}
        self._used("run", "execute", {"command": what["command"]})
        self._event("command.started", id=self._ident(), command=what["command"])
        program = subprocess.Popen(
            ["/bin/sh", "-c", what["command"]],
            cwd=self.workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = self._followed(program)
        self._event("command.completed", id=self._ident(), exit_code=program.returncode)
        self._result(ok=program.returncode == 0, output=output)
        wanted = what.get("expect_exit", 0)
        if wanted is not None and program.returncode != wanted:
            raise Failed(f"{what['command']!r} ended with exit code {program.returncode}, not {wanted}")

    def do_delay(self, seconds: Any) -> None:
        """Do nothing for a while."""
        until = time.monotonic() + float(seconds)
        while (left := until - time.monotonic()) > 0:
            self._hear(left)

    def do_wait_for_message(self, what: Any) -> None:
        """Wait for something that was said since the last wait: timeout."""
        seconds = float((what or {}).get("timeout", 600))
        until = time.monotonic() + seconds
        self._hear(0)
        while not self.progress.read_message():
            if time.monotonic() >= until:
                raise Failed(f"no message came within {seconds:g} s")
            self._hear(max(0.01, until - time.monotonic()))

    def do_usage(self, what: "dict[str, Any]") -> None:
        """Report usage: input, output, cost."""
        data = {
            "input_tokens": what.get("input", 0),
            "output_tokens": what.get("output", 0),
            "cost_usd": what.get("cost"),
        }
        self._event("agent.usage", **data)

    def do_fail(self, what: Any) -> None:
        """Fail the turn: reason."""
        raise Failed(what["reason"] if isinstance(what, dict) else str(what or "the script fails here"))

    def do_crash(self, _what: Any) -> None:
        """Die by SIGKILL; with `times: N` at the first N tries."""
        os.kill(os.getpid(), signal.SIGKILL)

    def do_exit(self, what: Any) -> None:
        """End the program: code."""
        os._exit(int(what["code"] if isinstance(what, dict) else what or 0))

    def do_ignore_interrupt(self, _what: Any) -> None:
        """From now on hear no interrupt and no SIGTERM."""
        self.deaf = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    # ---- the rest
    def _hear(self, seconds: float) -> bool:
        """Take in what was said, waiting up to so long for it; True when there was a message."""
        heard = False
        while True:
            try:
                said = self.mail.get(timeout=seconds) if seconds > 0 and not heard else self.mail.get_nowait()
            except queue.Empty:
                return heard
            if said["type"] in {"stop", "end"}:
                if self.deaf:
                    continue
                if said["type"] == "end":
                    os._exit(0)
                raise Interrupted
            self.progress.note(message=said["text"])
            self._tell(type="taken", ident=said["ident"])
            heard = True

    def _followed(self, program: "subprocess.Popen[bytes]") -> str:
        kept: list[str] = []

        def follow() -> None:
            assert program.stdout
            for line in program.stdout:
                text = line.decode("utf-8", "replace")
                if sum(map(len, kept)) < OUTPUT_KEPT:
                    kept.append(text)
                    self._event("command.output", id=self._ident(), text=text)

        reader = threading.Thread(target=follow, daemon=True)
        reader.start()
        try:
            while program.poll() is None:
                self._hear(0.02)
        except Interrupted:
            with contextlib.suppress(OSError):
                os.killpg(program.pid, signal.SIGKILL)
            raise
        reader.join(2)
        return "".join(kept)

    def _edit(self, name: str, path: str, content: str, mode: str) -> None:
        self._used(name, "edit", {"path": path, "content": content})
        place = os.path.join(self.workspace, path)
        new = not os.path.exists(place)
        try:
            os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
            with open(place, mode, encoding="utf-8") as file:
                file.write(content)
        except OSError as error:
            self._result(ok=False, output=str(error))
            raise Failed(f"cannot write {path}: {error}") from error
        self._event("file.created" if new else "file.modified", path=path)
        self._result(ok=True, output=f"{len(content)} characters")

    def _used(self, name: str, kind: str, given: "dict[str, Any]") -> None:
        self._event("agent.tool_use", id=self._ident(), name=name, kind=kind, input=given, status="started")

    def _result(self, *, ok: bool, output: str) -> None:
        self._event("agent.tool_result", id=self._ident(), ok=ok, output=output, status="finished")

    def _ident(self) -> str:
        return f"act-{os.getpid()}-{self.number}"

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("$message", self.progress.message)
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        return value

    def _event(self, event_type: str, **data: Any) -> None:
        self._tell(type="event", event_type=event_type, data=data)

    def _tell(self, **said: Any) -> None:
        with self._out:
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


class Progress:
    """Which action of which step is next, on disk after every action."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: dict[str, Any] = {"at": {}, "counts": {}, "message": ""}
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            self._known = json.load(file)

    @property
    def message(self) -> str:
        """The last thing somebody said."""
        return str(self._known["message"])

    def at(self, step: str) -> int:
        """The first unfinished action."""
        return int(self._known["at"].get(step, 0))

    def finished(self, step: str, index: int) -> None:
        """This action is done."""
        self._known["at"][step] = index + 1
        self._save()

    def forget(self, step: str) -> None:
        """Begin this list again."""
        self._known["at"].pop(step, None)

    def count(self, name: str) -> int:
        """How often this was asked, this time included."""
        self._known["counts"][name] = self._known["counts"].get(name, 0) + 1
        self._save()
        return int(self._known["counts"][name])

    def note(self, *, message: str) -> None:
        """Remember what was said."""
        self._known.update(message=message, unread=True)
        self._save()

    def read_message(self) -> bool:
        """Whether something was said since this was last asked."""
        unread = bool(self._known.get("unread"))
        if unread:
            self._known["unread"] = False
            self._save()
        return unread

    def _save(self) -> None:
        with open(self._path + ".part", "w", encoding="utf-8") as file:
            json.dump(self._known, file)
        os.replace(self._path + ".part", self._path)


def _list(value: Any) -> "list[Any]":
    return list(value) if isinstance(value, list) else [value]


def main(arguments: "list[str]") -> int:
    """Run the script of the job in the named file."""
    with open(arguments[0], encoding="utf-8") as file:
        job = json.load(file)
    return ScriptAgent(job).run()
