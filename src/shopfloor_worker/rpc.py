"""JSON-RPC, one object a line, as the programs that speak it do: requests numbered, answers matched to what was asked."""

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

NOT_FOUND = -32601


class Answer:
    """What came back for a request."""

    def __init__(self, about: "tuple[str, ...]", said: "dict[str, Any]") -> None:
        self.about = about
        self.result: "dict[str, Any]" = said.get("result") or {}
        self.error: "Optional[dict[str, Any]]" = said.get("error")


class Rpc:
    """One side of the line. `version` is what each message says it is, where the program wants that said."""

    def __init__(self, version: str = "") -> None:
        self._head = {"jsonrpc": version} if version else {}
        self._asked: "dict[int, tuple[str, ...]]" = {}
        self._count = 0

    def request(self, method: str, params: "dict[str, Any]", *about: str) -> bytes:
        """A request; its answer will say what it was about (the method first)."""
        self._count += 1
        self._asked[self._count] = (method, *about)
        return self._line({"id": self._count, "method": method, "params": params})

    def notify(self, method: str, params: "Optional[dict[str, Any]]" = None) -> bytes:
        """A notification."""
        return self._line({"method": method, **({"params": params} if params is not None else {})})

    def reply(self, said: "dict[str, Any]", result: "dict[str, Any]") -> bytes:
        """The answer to a request of the program."""
        return self._line({"id": said["id"], "result": result})

    def refuse(self, said: "dict[str, Any]") -> bytes:
        """We do not do that."""
        return self._line(
            {"id": said["id"], "error": {"code": NOT_FOUND, "message": f"{said['method']} is not offered"}}
        )

    def answer(self, said: "dict[str, Any]") -> "Optional[Answer]":
        """The answer a message is, if it is one to a request of ours."""
        about = self._asked.pop(said["id"], None) if "id" in said and "method" not in said else None
        return Answer(about, said) if about else None

    def _line(self, said: "dict[str, Any]") -> bytes:
        return json.dumps({**self._head, **said}).encode() + b"\n"
