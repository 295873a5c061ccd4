"""How a scripted model speaks each provider's API: which step a request is at, which tool to call, the answer and its stream. Pure."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

Step = dict[str, Any]
Piece = tuple[str | None, Any]
"""An event's name (None: no name line) and its data, a document or a bare word."""
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
FILLERS = ("No response requested.",)
"""What programs put into the model's mouth themselves when they resume."""
WRITERS: dict[str, Any] = {
    "Write": lambda path, text: {"file_path": path, "content": text},
    "write": lambda path, text: {"filePath": path, "content": text},
    "write_file": lambda path, text: {"file_path": path, "content": text},
    "file_editor": lambda path, text: {"command": "create", "path": path, "file_text": text},
}
RUNNERS: dict[str, Any] = {
    "Bash": lambda command: {"command": command, "description": "run"},
    "run_shell_command": lambda command: {"command": command, "description": "run"},
    "terminal": lambda command: {"command": command},
    "exec_command": lambda command: {"cmd": command, "yield_time_ms": 30_000},
    "shell_command": lambda command: {"command": command},
    "shell": lambda command: {"command": ["bash", "-lc", command]},
    "bash": lambda command: {"command": command, "description": "run"},
}
END = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
"""How an agent with nothing but a shell says that it has finished."""
TOKENS_IN, TOKENS_OUT = 1000, 25


def speaks(path: str) -> str | None:
    """Which API a path belongs to: anthropic, responses, chat, gemini."""
    ends = {"/messages": "anthropic", "/responses": "responses", "/chat/completions": "chat"}
    found = next((name for end, name in ends.items() if path.endswith(end)), None)
    return found or ("gemini" if "enerateContent" in path else None)


def tools(body: dict[str, Any]) -> list[str]:
    """The names of the tools that a request advertises."""
    found: list[str] = []
    for tool in body.get("tools") or []:
        if "functionDeclarations" in tool:
            found += [function["name"] for function in tool["functionDeclarations"]]
        elif "function" in tool:
            found.append(tool["function"]["name"])
        elif tool.get("type") == "namespace":
            found += [inner.get("name", "") for inner in tool.get("tools") or []]
        else:
            found.append(tool.get("name") or tool.get("type") or "")
    return found


def turns(body: dict[str, Any]) -> int:
    """How many turns of the model a request holds, not counting those the program adds itself."""
    if isinstance(body.get("input"), list):
        return _responses_turns(body["input"])
    said = body.get("messages") or body.get("contents") or []
    return sum(
        message.get("role") in {"assistant", "model"}
        and not any(filler in json.dumps(message.get("content")) for filler in FILLERS)
        for message in said
    )


def _responses_turns(items: list[dict[str, Any]]) -> int:
    """The Responses API lists words and calls of one turn one by one."""
    calls = {"function_call", "custom_tool_call", "reasoning", "local_shell_call"}
    mine = [item.get("role") == "assistant" or item.get("type") in calls for item in items]
    return sum(now and not before for before, now in zip([False, *mine], mine, strict=False))


def call(step: Step, names: list[str], body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The tool call of a step, by the tools there are; None when it only speaks."""
    if "tool" in step:
        return step["tool"][0], step["tool"][1]
    command = step.get("bash")
    if "write" in step:
        path, text = step["write"]
        for name, made in WRITERS.items():
            if name in names:
                return name, made(path, text)
        command = f"mkdir -p \"$(dirname '{path}')\" && cat > '{path}' <<'EOT'\n{text.rstrip(chr(10))}\nEOT"
    if command is None:
        return _ending(step, names, body)
    for name, made in RUNNERS.items():
        if name in names:
            return name, made(command)
    return "bash", {"command": command}


def _ending(step: Step, names: list[str], body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Some programs want to be told in their own way that the model has finished."""
    if "finish" in names:
        return "finish", {"message": step.get("text", "")}
    if names == ["bash"] and END in json.dumps(body):
        return "bash", {"command": f"echo {END} && cat <<'EOT'\n{step.get('text', '')}\nEOT"}
    return None


def refusal(api: str, status: int) -> dict[str, Any]:
    """The body of an error answer."""
    error = {"type": KINDS.get(status, "api_error"), "message": "scripted error"}
    if api == "gemini":
        return {"error": {"code": status, "message": "scripted error", "status": "FAILED_PRECONDITION"}}
    return {"type": "error", "error": error} if api == "anthropic" else {"error": {**error, "code": None}}


def answer(api: str, body: dict[str, Any], step: Step) -> dict[str, Any]:
    """The model's whole answer."""
    called = call(step, tools(body), body)
    document: dict[str, Any] = globals()[f"_{api}"](body, step.get("text") or "", called)
    return document


def stream(api: str, document: dict[str, Any], *, slow: bool) -> Iterator[Piece]:
    """The answer as the pieces of an event stream; with `slow`, word by word."""
    pieces: Iterator[Piece] = globals()[f"_{api}_stream"](document, slow)
    return pieces


def _words(text: str, slow: bool) -> list[str]:
    words = text.split(" ") if slow else [text]
    return [f" {word}" if number else word for number, word in enumerate(words)]


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:20]}"


# ---- Anthropic Messages
def _anthropic(body: dict[str, Any], text: str, called: tuple[str, Any] | None) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    if called:
        content.append({"type": "tool_use", "id": _id("toolu"), "name": called[0], "input": called[1]})
    usage = {"input_tokens": TOKENS_IN, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {
        "id": _id("msg"),
        "type": "message",
        "role": "assistant",
        "model": str(body.get("model")),
        "content": content,
        "stop_reason": "tool_use" if called else "end_turn",
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": TOKENS_OUT},
    }


def _anthropic_stream(message: dict[str, Any], slow: bool) -> Iterator[Piece]:
    def event(kind: str, **fields: Any) -> Piece:
        return kind, {"type": kind, **fields}

    yield event("message_start", message={**message, "content": [], "stop_reason": None})
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
            for word in _words(block["text"], slow):
                yield event("content_block_delta", index=index, delta={"type": "text_delta", "text": word})
        else:
            yield event("content_block_start", index=index, content_block={**block, "input": {}})
            asked = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield event("content_block_delta", index=index, delta=asked)
        yield event("content_block_stop", index=index)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=ending, usage={"output_tokens": TOKENS_OUT})
    yield event("message_stop")


# ---- OpenAI Responses
def _responses(body: dict[str, Any], text: str, called: tuple[str, Any] | None) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if text:
        words = [{"type": "output_text", "text": text, "annotations": []}]
        output.append(
            {"type": "message", "id": _id("msg"), "role": "assistant", "status": "completed", "content": words}
        )
    if called:
        name, given = called
        item = {"type": "function_call", "id": _id("fc"), "call_id": _id("call"), "name": name, "status": "completed"}
        output.append({**item, "arguments": json.dumps(given)})
    usage = {
        "input_tokens": TOKENS_IN,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": TOKENS_OUT,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": TOKENS_IN + TOKENS_OUT,
    }
    head = {"id": _id("resp"), "object": "response", "created_at": 1_700_000_000, "model": body.get("model")}
    return {**head, "status": "completed", "output": output, "usage": usage}


def _responses_stream(response: dict[str, Any], slow: bool) -> Iterator[Piece]:
    def event(kind: str, **fields: Any) -> Piece:
        return kind, {"type": kind, **fields}

    yield event("response.created", response={**response, "status": "in_progress", "output": [], "usage": None})
    for index, item in enumerate(response["output"]):
        words = item["type"] == "message"
        hollow = {**item, "content": []} if words else {**item, "arguments": ""}
        yield event("response.output_item.added", output_index=index, item=hollow)
        place = {"item_id": item["id"], "output_index": index}
        if words:
            for word in _words(item["content"][0]["text"], slow):
                yield event("response.output_text.delta", **place, content_index=0, delta=word)
        else:
            yield event("response.function_call_arguments.delta", **place, delta=item["arguments"])
            yield event("response.function_call_arguments.done", **place, arguments=item["arguments"])
        yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=response)


# ---- OpenAI chat completions
def _chat(body: dict[str, Any], text: str, called: tuple[str, Any] | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if called:
        function = {"name": called[0], "arguments": json.dumps(called[1])}
        message["tool_calls"] = [{"id": _id("call"), "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if called else "stop"}
    usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT, "total_tokens": TOKENS_IN + TOKENS_OUT}
    head = {"id": _id("chatcmpl"), "object": "chat.completion", "created": 1_700_000_000, "model": body.get("model")}
    return {**head, "choices": [choice], "usage": usage}


def _chat_stream(document: dict[str, Any], slow: bool) -> Iterator[Piece]:
    choice, usage = document["choices"][0], document["usage"]
    head = {**{k: document[k] for k in ("id", "created", "model")}, "object": "chat.completion.chunk"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> Piece:
        return None, {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    for word in _words(choice["message"]["content"] or "", slow):
        yield chunk({"content": word})
    for number, called in enumerate(choice["message"].get("tool_calls") or []):
        yield chunk({"tool_calls": [{**called, "index": number}]})
    yield chunk({}, choice["finish_reason"])
    yield None, {**head, "choices": [], "usage": usage}
    yield None, "[DONE]"


# ---- Gemini
def _gemini(body: dict[str, Any], text: str, called: tuple[str, Any] | None) -> dict[str, Any]:
    wanted = body.get("generationConfig") or {}
    if wanted.get("responseMimeType") == "application/json" and not called:
        text = json.dumps({"reasoning": "scripted", "model_choice": "pro", "next_speaker": "user"})
    parts: list[dict[str, Any]] = [{"text": text}] if text else []
    if called:
        parts.append({"functionCall": {"name": called[0], "args": called[1]}})
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0, "finishReason": "STOP"}
    usage = {
        "promptTokenCount": TOKENS_IN,
        "candidatesTokenCount": TOKENS_OUT,
        "totalTokenCount": TOKENS_IN + TOKENS_OUT,
    }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted", "responseId": _id("gem")}


def _gemini_stream(document: dict[str, Any], slow: bool) -> Iterator[Piece]:
    candidate = document["candidates"][0]
    pieces: list[dict[str, Any]] = []
    for part in candidate["content"]["parts"]:
        pieces += [{"text": word} for word in _words(part["text"], slow)] if "text" in part else [part]
    for number, piece in enumerate(pieces):
        one = {"content": {"role": "model", "parts": [piece]}, "index": 0}
        ending = {"finishReason": "STOP"} if number == len(pieces) - 1 else {}
        yield None, {**document, "candidates": [{**one, **ending}]}
