"""A program that speaks the Agent Client Protocol and obeys the lines of its prompts, for tests of the platform's side of it.

    python acp_program.py join|queue|replace [--no-load] [--auth] [--modes]

Lines of a prompt: `say WORDS`, `think WORDS`, `write PATH TEXT` (asks first), `run COMMAND`, `wait` (until a file `go` is there or the turn
is cancelled), `spend DOLLARS`, `refuse STATUS`, `limit`. What a prompt means while another runs is the first argument. Sessions
are kept in the home, as the texts they were told.
"""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

STEER, FLAGS = sys.argv[1], set(sys.argv[2:])
OUT = threading.Lock()


def send(**said: Any) -> None:
    with OUT:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **said}) + "\n")
        sys.stdout.flush()


class Session:
    def __init__(self, ident: str, cwd: str) -> None:
        self.ident, self.cwd = ident, cwd
        self.file = Path.home() / ".acp-program" / ident
        self.queue: SimpleQueue[tuple[int, str]] = SimpleQueue()
        self.cancelled = threading.Event()
        self.answers: dict[int, SimpleQueue[Any]] = {}
        self.joined: list[int] = []
        self.busy = False
        self.spent = 0.0
        threading.Thread(target=self.work, daemon=True).start()

    def update(self, update: str, **fields: Any) -> None:
        params = {"sessionId": self.ident, "update": {"sessionUpdate": update, **fields}}
        send(method="session/update", params=params)

    def prompt(self, ident: int, text: str) -> None:
        self.file.parent.mkdir(exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps(text) + "\n")
        if self.busy and STEER == "join":
            self.joined.append(ident)
            self.update("agent_message_chunk", content={"type": "text", "text": f"heard: {text}"})
            return
        if self.busy and STEER == "replace":
            self.cancelled.set()
        self.queue.put((ident, text))

    def work(self) -> None:
        while True:
            ident, text = self.queue.get()
            self.busy = True
            self.cancelled.clear()
            result = self.turn(text)
            self.busy = False
            for one in (ident, *self.joined):
                send(id=one, **result)
            self.joined.clear()

    def turn(self, text: str) -> dict[str, Any]:
        stop = "end_turn"
        for number, line in enumerate(text.splitlines()):
            verb, _, rest = line.partition(" ")
            if verb == "refuse":
                return {"error": {"code": -32603, "message": f"the model said no, status {rest}"}}
            if verb == "limit":
                stop = "max_tokens"
            elif hasattr(self, f"do_{verb}"):
                getattr(self, f"do_{verb}")(rest, f"call-{number}")
            if self.cancelled.is_set():
                stop = "cancelled"
                break
        return {"result": {"stopReason": stop, "usage": {"inputTokens": 10, "outputTokens": 2, "totalTokens": 12}}}

    def do_say(self, words: str, _: str) -> None:
        for word in words.split(" "):
            self.update("agent_message_chunk", content={"type": "text", "text": f"{word} "})

    def do_think(self, words: str, _: str) -> None:
        self.update("agent_thought_chunk", content={"type": "text", "text": words})

    def do_spend(self, amount: str, _: str) -> None:
        self.spent += float(amount)
        self.update("usage_update", used=1, size=2, cost={"amount": self.spent, "currency": "USD"})

    def do_wait(self, _: str, ident: str) -> None:
        self.update("tool_call", toolCallId=ident, title="wait for go", kind="execute", status="in_progress")
        while not (Path(self.cwd) / "go").exists() and not self.cancelled.is_set():
            time.sleep(0.02)
        self.update("tool_call_update", toolCallId=ident, status="completed")

    def do_run(self, command: str, ident: str) -> None:
        given = {"command": command}
        self.update("tool_call", toolCallId=ident, title="bash", kind="execute", status="in_progress", rawInput=given)
        done = subprocess.run(["bash", "-c", command], cwd=self.cwd, capture_output=True, text=True, check=False)
        content = [{"type": "content", "content": {"type": "text", "text": done.stdout}}]
        raw = {"output": done.stdout, "metadata": {"exit": done.returncode}}
        self.update("tool_call_update", toolCallId=ident, status="completed", content=content, rawOutput=raw)

    def do_write(self, what: str, ident: str) -> None:
        path, _, text = what.partition(" ")
        place = Path(self.cwd) / path
        diff = {"type": "diff", "path": str(place), "oldText": None, "newText": text}
        self.update("tool_call", toolCallId=ident, title="write", kind="edit", status="pending", content=[diff])
        number = 1000 + int(ident.rpartition("-")[2])
        self.answers[number] = SimpleQueue()
        options = [
            {"optionId": "always", "kind": "allow_always", "name": "Always"},
            {"optionId": "yes", "kind": "allow_once", "name": "Yes"},
            {"optionId": "no", "kind": "reject_once", "name": "No"},
        ]
        call = {"toolCallId": ident, "title": path}
        params = {"sessionId": self.ident, "toolCall": call, "options": options}
        send(id=number, method="session/request_permission", params=params)
        try:
            chosen = self.answers[number].get(timeout=30)
        except Empty:
            chosen = {}
        if chosen.get("optionId") == "yes":
            place.write_text(text + "\n")
        status = "completed" if chosen.get("optionId") == "yes" else "failed"
        self.update("tool_call_update", toolCallId=ident, status=status, content=[diff])


class Program:
    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.logged_in = "--auth" not in FLAGS

    def serve(self) -> None:
        for line in sys.stdin:
            said = json.loads(line)
            if "method" not in said:
                for session in self.sessions.values():
                    if said["id"] in session.answers:
                        session.answers[said["id"]].put(said.get("result", {}).get("outcome", {}))
            elif said["method"] == "session/cancel":
                self.sessions[said["params"]["sessionId"]].cancelled.set()
            else:
                self.request(said["id"], said["method"], said["params"])
        os._exit(0)

    def request(self, ident: int, method: str, params: dict[str, Any]) -> None:
        if method == "session/prompt":
            texts = [part["text"] for part in params["prompt"]]
            self.sessions[params["sessionId"]].prompt(ident, "\n".join(texts))
        elif method == "initialize":
            can = {"loadSession": "--no-load" not in FLAGS}
            info = {"name": "acp-program", "version": "7"}
            send(id=ident, result={"protocolVersion": 1, "agentCapabilities": can, "agentInfo": info})
        elif method == "authenticate":
            self.logged_in = params["methodId"] == "secret-handshake"
            send(id=ident, result={})
        elif not self.logged_in:
            send(id=ident, error={"code": -32000, "message": "Authentication required"})
        elif method == "session/set_mode" and params["modeId"] != "free":
            send(id=ident, error={"code": -32602, "message": "no such mode"})
        elif method == "session/set_mode":
            send(id=ident, result={})
        elif method == "session/new":
            name = f"s-{uuid.uuid4().hex[:8]}"
            self.sessions[name] = Session(name, params["cwd"])
            send(id=ident, result={"sessionId": name, "modes": {"currentModeId": "x", "availableModes": []}})
        elif method == "session/load" and (Path.home() / ".acp-program" / params["sessionId"]).exists():
            session = self.sessions[params["sessionId"]] = Session(params["sessionId"], params["cwd"])
            session.update("agent_message_chunk", content={"type": "text", "text": "said long ago"})
            send(id=ident, result={})
        elif method == "session/load":
            send(id=ident, error={"code": -32602, "message": "no such session"})
        else:
            send(id=ident, error={"code": -32601, "message": method})


if __name__ == "__main__":
    Program().serve()
