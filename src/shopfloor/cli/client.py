"""The HTTP client of every command: finds the server, sends the key, turns problem documents into Refused."""

import os
from types import TracebackType
from typing import Any, Self

import httpx

from shopfloor.cli.exits import NotAShopfloor, Refused, ServerUnreachable

API = "/api/v1"
ORDERS = f"{API}/agent-work-orders"


class Client:
    """One server, over HTTP like any client."""

    def __init__(self, url: str | None = None, *, timeout: float = 30) -> None:
        self.url, key = address(url)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET; parameters that are None are left out."""
        return self.request("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """The JSON a POST answers."""
        return self.request("POST", path, json=body, **options)

    def delete(self, path: str, **query: Any) -> Any:
        """The JSON a DELETE answers."""
        return self.request("DELETE", path, params=query)

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Ask and answer the JSON; raises ServerUnreachable, NotAShopfloor or Refused."""
        try:
            answer = self.http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from error
        if answer.is_success:
            return self._json(answer) if answer.content else None
        raise self.refusal(answer)

    def text(self, path: str, **query: Any) -> str:
        """The body of a GET as text."""
        try:
            answer = self.http.get(path, params=query)
        except httpx.HTTPError as error:
            raise self.unreachable(error) from error
        if not answer.is_success:
            raise self.refusal(answer)
        return answer.text

    def order(self, order_id: str) -> dict[str, Any]:
        """One work order."""
        order: dict[str, Any] = self.get(f"{ORDERS}/{path_part(order_id)}")["agent_work_order"]
        return order

    def refusal(self, answer: httpx.Response) -> Refused:
        """The problem an answer tells of."""
        document = self._json(answer)
        if not isinstance(document, dict):
            raise self._stranger()
        return Refused({"status": answer.status_code, "detail": answer.reason_phrase, **document})

    def unreachable(self, error: Exception) -> ServerUnreachable:
        """The same for every way a connection can fail."""
        if isinstance(error, httpx.ReadTimeout):
            return ServerUnreachable(f"{self.url} did not answer in time", hint="Look at the server's log.")
        return ServerUnreachable(
            f"no Shopfloor answers at {self.url}",
            hint="Start one with 'shopfloor up' (in another terminal), or name it with --url or SHOPFLOOR_URL.",
        )

    def _json(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise self._stranger() from None

    def _stranger(self) -> NotAShopfloor:
        return NotAShopfloor(f"what answers at {self.url} is no Shopfloor", hint="Check --url and SHOPFLOOR_URL.")


def address(url: str | None) -> tuple[str, str]:
    """The server's URL and our key: from the argument or $SHOPFLOOR_URL, else from the configuration the server would use."""
    url, key = url or os.environ.get("SHOPFLOOR_URL"), os.environ.get("SHOPFLOOR_API_KEY", "")
    if url:
        return (url if "://" in url else f"http://{url}").rstrip("/"), key
    from shopfloor.kit.config import load

    settings = load()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}", settings.api_key


def path_part(text: str) -> str:
    """Text as one segment of a path."""
    from urllib.parse import quote

    return quote(text, safe="") or "-"
