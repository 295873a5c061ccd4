"""OpenAI's Responses and Chat Completions APIs."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from shopfloor.gateway.limits import relative, spoken
from shopfloor.gateway.metering import Known, Reading
from shopfloor.gateway.port import Api, Asked, Lines, Meter, Unreadable, document

RESPONSES, CHAT = "/v1/responses", "/v1/chat/completions"
FREE = {"GET": re.compile(r"/v1/models(/[A-Za-z0-9._:-]{1,100})?")}
ENDINGS = frozenset({"response.completed", "response.incomplete", "response.failed"})
OUTPUT_LIMITS = ("max_output_tokens", "max_completion_tokens", "max_tokens")


class OpenAi:
    """api.openai.com, or whatever speaks like it."""

    provider = "openai"
    base_url = "https://api.openai.com"
    base_url_env = "OPENAI_BASE_URL"
    key_env = "OPENAI_API_KEY"
    models_path = "/v1/models"

    def asked(self, method: str, path: str, body: bytes) -> Asked | None:
        """A streamed chat tells its usage only when asked to, so it is asked to."""
        if method != "POST" or path not in {RESPONSES, CHAT}:
            free = FREE.get(method)
            return Asked(model="", metered=False, body=body) if free and free.fullmatch(path) else None
        said = document(body)
        if path == RESPONSES and said.get("background"):
            raise Unreadable("background responses cannot be metered; leave out 'background'")
        if path == CHAT and said.get("stream"):
            options = said.get("stream_options")
            said["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
            body = orjson.dumps(said)
        limits = [said[name] for name in OUTPUT_LIMITS if isinstance(said.get(name), int)]
        most = max(limits) * (said["n"] if isinstance(said.get("n"), int) else 1) if limits else None
        return Asked(model=str(said.get("model") or ""), metered=True, most_output=most, body=body)

    def key(self, key: str) -> Mapping[str, str]:
        """As a bearer."""
        return {"authorization": f"Bearer {key}"}

    def meter(self, asked: Asked, content_type: str) -> Meter:
        """The last event tells all."""
        lines = Lines(content_type, (b'"usage"', b'"response.'))
        return Reading("openai", asked.model, lines, _take)

    def wait_seconds(self, headers: Mapping[str, str], body: bytes, now: float) -> float | None:
        """A plan's limit stands in the body, a key's in the headers."""
        return spoken(body, "resets_in_seconds") or relative(headers.get("retry-after"), now)

    def refusal(self, status: int, kind: str, message: str) -> Any:
        """As OpenAI words errors."""
        del status
        return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


def _take(known: Known, found: dict[str, Any]) -> None:
    response = found.get("response")
    said = response if isinstance(response, dict) else found
    known.model = str(said.get("model") or known.model)
    usage = said.get("usage")
    if isinstance(usage, dict):
        known.said, known.flavour = {"usage": usage}, "chat" if "prompt_tokens" in usage else "responses"
        known.final = response is None or str(found.get("type")) in ENDINGS


API: Api = OpenAi()
