"""Anthropic's Messages API."""

import re
from collections.abc import Mapping
from typing import Any

from shopfloor.gateway.limits import relative, unix
from shopfloor.gateway.metering import Known, Reading
from shopfloor.gateway.port import Api, Asked, Lines, Meter, document

METERED = "/v1/messages"
FREE = {"POST": re.compile(r"/v1/messages/count_tokens"), "GET": re.compile(r"/v1/models(/[A-Za-z0-9._:-]{1,100})?")}
RESET = "anthropic-ratelimit-unified-reset"


class Anthropic:
    """api.anthropic.com, or whatever speaks like it."""

    provider = "anthropic"
    base_url = "https://api.anthropic.com"
    base_url_env = "ANTHROPIC_BASE_URL"
    key_env = "ANTHROPIC_API_KEY"
    models_path = "/v1/models"

    def asked(self, method: str, path: str, body: bytes) -> Asked | None:
        """Messages cost; counting tokens and listing models do not."""
        if method == "POST" and path == METERED:
            said = document(body)
            most = said.get("max_tokens")
            return Asked(
                model=str(said.get("model") or ""),
                metered=True,
                most_output=most if isinstance(most, int) else None,
                body=body,
            )
        free = FREE.get(method)
        return Asked(model="", metered=False, body=body) if free and free.fullmatch(path) else None

    def key(self, key: str) -> Mapping[str, str]:
        """In a header of its own."""
        return {"x-api-key": key}

    def meter(self, asked: Asked, content_type: str) -> Meter:
        """The first event tells the input, the last but one the output."""
        return Reading("anthropic", asked.model, Lines(content_type, (b'"usage"', b'"error"')), _take)

    def wait_seconds(self, headers: Mapping[str, str], body: bytes, now: float) -> float | None:
        """A subscription says the moment, a key the seconds."""
        del body
        return unix(headers.get(RESET), now) or relative(headers.get("retry-after"), now)

    def refusal(self, status: int, kind: str, message: str) -> Any:
        """As the Messages API words errors."""
        del status
        return {"type": "error", "error": {"type": kind, "message": message}}


def _take(known: Known, found: dict[str, Any]) -> None:
    message = found.get("message") if found.get("type") == "message_start" else found
    if not isinstance(message, dict):
        return
    known.model = str(message.get("model") or known.model)
    usage = message.get("usage")
    if isinstance(usage, dict):
        told = {name: value for name, value in usage.items() if value is not None}
        known.said = {"usage": {**known.said.get("usage", {}), **told}}
        known.final = str(found.get("type")) in {"message_delta", "message"}


API: Api = Anthropic()
