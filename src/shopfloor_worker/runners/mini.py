"""Runs mini-swe-agent: its loop calls the model, runs a command, and asks us in between whether there is something new."""

import importlib.metadata
import os
import signal
import subprocess
import uuid
from queue import Empty, SimpleQueue
from typing import Any

import yaml
from minisweagent.agents.default import DefaultAgent
from minisweagent.config import get_config_path
from minisweagent.environments.local import LocalEnvironment
from minisweagent.exceptions import InterruptAgentFlow
from minisweagent.models.litellm_model import LitellmModel

from shopfloor_worker.runners.stage import Stage, endpoint, reason_of
from shopfloor_worker.words import HOUSE_RULES


class Place(LocalEnvironment):
    """Commands in groups of their own, so that one can be stopped with all it started; the rest as the package does it."""

    def __init__(self, stage: Stage, **config: Any) -> None:
        super().__init__(**config)
        self.stage, self.running, self.stopped = stage, None, False  # type: tuple[Stage, Any, bool]

    def execute(self, action: Any, cwd: str = "", *, timeout: "int | None" = None) -> Any:
        """Run a command and tell of it."""
        command = action.get("command", "") if isinstance(action, dict) else str(action)
        ident = str((action.get("tool_call_id") if isinstance(action, dict) else None) or uuid.uuid4().hex[:12])
        self.stage.command(ident, "bash", command)
        process = subprocess.Popen(
            ["/bin/bash", "-c", command],
            cwd=cwd or self.config.cwd or os.getcwd(),
            env={**os.environ, **self.config.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.running = process
        trouble = ""
        try:
            out, _ = process.communicate(timeout=timeout or self.config.timeout)
        except subprocess.TimeoutExpired as late:
            self.kill()
            out, trouble = process.communicate()[0], str(late)
        self.running = None
        text = out.decode("utf-8", "replace")
        self.stage.commanded(ident, text, None if self.stopped else process.returncode)
        output = {"output": text, "returncode": -1 if trouble else process.returncode, "exception_info": trouble}
        self._check_finished(output)
        return output

    def kill(self) -> None:
        """End the running command."""
        if self.running is not None:
            try:
                os.killpg(self.running.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Mini(DefaultAgent):
    """The package's agent, with an ear."""

    stage: Stage
    news: "SimpleQueue[dict[str, Any]]"

    def query(self) -> Any:
        """Take in what was said, then ask the model."""
        if self.env.stopped:
            raise InterruptAgentFlow(
                {"role": "exit", "content": "interrupted", "extra": {"exit_status": "Interrupted", "submission": ""}}
            )
        while True:
            try:
                said = self.news.get_nowait()
            except Empty:
                break
            self.add_messages(self.model.format_message(role="user", content=said["text"]))
            self.stage.taken(said)
        answer = super().query()
        words = answer.get("content")
        if isinstance(words, str) and words.strip():
            self.stage.event("agent.message", text=words, partial=False, message_id=None)
        self._spent(answer)
        return answer

    def _spent(self, answer: "dict[str, Any]") -> None:
        extra = answer.get("extra") or {}
        usage = (extra.get("response") or {}).get("usage") or {}
        cost = extra.get("cost") or None
        self.stage.event(
            "agent.usage",
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            cost_usd=cost,
        )


def main(job: "dict[str, Any]", session: str) -> int:
    """Serve prompts until the input ends."""
    del session
    stage = Stage()
    options, name = job["agent"].get("options") or {}, job["agent"]["model"]
    model, base, key = endpoint(name)
    config = yaml.safe_load(get_config_path("mini").read_text())
    version = importlib.metadata.version("mini-swe-agent")
    stage.event("agent.session", session_id=f"mini-{uuid.uuid4().hex[:12]}", model=name, program_version=version)
    rest = {key: value for key, value in config["model"].items() if key != "model_kwargs"}
    made = LitellmModel(model_name=model, model_kwargs={"api_base": base, "api_key": key, "drop_params": True}, **rest)
    place = Place(stage, cwd=job["workspace"], timeout=600)
    limits = {"step_limit": int(options.get("max_turns") or 0), "cost_limit": float(options.get("max_budget_usd") or 0)}
    wanted = {key: value for key, value in config["agent"].items() if key in {"system_template", "instance_template"}}
    agent = Mini(made, place, **wanted, **limits)
    agent.stage, agent.news = stage, SimpleQueue()
    busy: "list[bool]" = []

    def steer(said: "dict[str, Any]") -> bool:
        if busy:
            agent.news.put(said)
        return bool(busy)

    def stop() -> None:
        place.stopped = True
        place.kill()

    stage.steer, stage.stop = steer, stop
    stage.listen()
    told: "list[str]" = []
    while (said := stage.prompts.get())["type"] != "end":
        place.stopped = False
        busy.append(True)
        _turn(stage, agent, said, told)
        busy.clear()
        while not agent.news.empty():
            stage.tell(type="dropped", ident=agent.news.get()["ident"])
    return 0


def _turn(stage: Stage, agent: Mini, said: "dict[str, Any]", told: "list[str]") -> None:
    """One run of the package's loop. It begins anew each time, so what was said before goes with it."""
    before = "\n\n".join(told)
    told.append(said["text"])
    task = f"{HOUSE_RULES}\n\n{before and 'Earlier you were told:'}\n{before}\n\n{said['text']}"
    stage.taken(said)
    try:
        end = agent.run(task)
    except Exception as error:
        stage.end("error", reason_of(error))
        return
    status, summary = str(end.get("exit_status") or ""), str(end.get("submission") or "").strip()
    if agent.env.stopped:
        stage.end("interrupted", "the turn was interrupted", summary)
    elif status == "Submitted":
        told.append(f"(Then you said: {summary})")
        stage.end("done", "", summary)
    elif "Limit" in status:
        stage.end("limit", f"the limit of turns or cost was reached ({status})", summary)
    else:
        stage.end("error", f"{status}: {summary}", summary)
