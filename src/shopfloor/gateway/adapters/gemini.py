"""Google's Gemini API."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from shopfloor.gateway.limits import relative
from shopfloor.gateway.metering import Known, Reading
from shopfloor.gateway.port import Api, Asked, Lines, Meter, document

MODEL = r"/v1(?:alpha|beta)?/models/([A-Za-z0-9._-]{1,100})"
METERED = re.compile(MODEL + ":(?:generateContent|streamGenerateContent)")
FREE = {"POST": re.compile(MODEL + ":countTokens"), "GET": re.compile(rf"{MODEL}|/v1(?:alpha|beta)?/models")}
DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


class Gemini:
    """generativelanguage.googleapis.com, or whatever speaks like it."""

    provider = "google"
    base_url = "https://generativelanguage.googleapis.com"
    base_url_env = "GOOGLE_GEMINI_BASE_URL"
    key_env = "GEMINI_API_KEY"
    models_path = "/v1beta/models"

    def asked(self, method: str, path: str, body: bytes) -> Asked | None:
        """The model stands in the path."""
        if method == "POST" and (match := METERED.fullmatch(path)):
            configured = document(body).get("generationConfig")
            most = configured.get("maxOutputTokens") if isinstance(configured, dict) else None
            return Asked(model=match[1], metered=True, most_output=most if isinstance(most, int) else None, body=body)
        free = FREE.get(method)
        return Asked(model="", metered=False, body=body) if free and free.fullmatch(path) else None

    def key(self, key: str) -> Mapping[str, str]:
        """In a header of its own."""
        return {"x-goog-api-key": key}

    def meter(self, asked: Asked, content_type: str) -> Meter:
        """Every piece tells the sums so far; the last one also why it ended."""
        return Reading("google", asked.model, Lines(content_type, (b'"usageMetadata"',)), _take)

    def wait_seconds(self, headers: Mapping[str, str], body: bytes, now: float) -> float | None:
        """In the details of the error."""
        return _retry_delay(body) or relative(headers.get("retry-after"), now)

    def refusal(self, status: int, kind: str, message: str) -> Any:
        """As Google words errors."""
        return {"error": {"code": status, "message": message, "status": kind.upper()}}


def _take(known: Known, found: dict[str, Any]) -> None:
    known.model = str(found.get("modelVersion") or known.model)
    if isinstance(found.get("usageMetadata"), dict):
        known.said = {"usageMetadata": found["usageMetadata"]}
        candidates = found.get("candidates")
        known.final = isinstance(candidates, list) and any(
            isinstance(one, dict) and one.get("finishReason") for one in candidates
        )


def _retry_delay(body: bytes) -> float | None:
    try:
        details = orjson.loads(body)["error"]["details"]
        delays = [DURATION.fullmatch(str(one.get("retryDelay", ""))) for one in details]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return max((float(match[1]) for match in delays if match), default=None)


API: Api = Gemini()
