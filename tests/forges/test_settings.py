"""Which origins the operator allows, and with which tokens: from the settings to the door."""

import base64
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from shopfloor import app as application
from shopfloor.kit import config, schema
from shopfloor.kit.config import BadConfiguration
from shopfloor.kit.db import Database
from tests.support import git_http


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(config.CONFIG_VARIABLE, str(tmp_path / "shopfloor.toml"))
    monkeypatch.delenv("SHOPFLOOR_ORIGIN_PROTOCOLS", raising=False)


@asynccontextmanager
async def platform(data_dir: Path, database_url: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The app as the server runs it, talked to without a socket."""
    chosen = config.load(data_dir=data_dir, database_url=database_url, **settings)
    schema.upgrade(Database(chosen.database))
    async with application.assemble(chosen) as app:
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1", timeout=60) as opened:
            yield opened


async def verify(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    answer = await client.post("/github/verify-repository", json={"repository_url": url})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_by_default_http_is_refused_and_the_setting_named(
    tmp_path: Path, database_url: str, server: git_http.GitServer
) -> None:
    async with platform(tmp_path / "data", database_url) as client:
        found = await verify(client, server.url("origin.git"))
    assert (found["verification_success"], found["error_code"]) == (False, "protocol_not_allowed")
    assert "'http'" in found["hint"]
    assert "SHOPFLOOR_ORIGIN_PROTOCOLS" in found["hint"]
    assert server.requests == []


async def test_an_allowed_protocol_works(tmp_path: Path, database_url: str, server: git_http.GitServer) -> None:
    async with platform(tmp_path / "data", database_url, origin_protocols=["http"]) as client:
        found = await verify(client, server.url("origin.git"))
    assert (found["verification_success"], found["can_write"]) == (True, True)


def secured(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """What a server on 127.0.0.1 needs to speak TLS, and the certificate to trust."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


async def test_https_works_as_it_comes(
    tmp_path: Path, database_url: str, origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = secured(tmp_path)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    with git_http.serving(origin.parent) as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        async with platform(tmp_path / "data", database_url) as client:
            found = await verify(client, f"https://{server.host}/origin.git")
    assert (found["verification_success"], found["can_write"]) == (True, True)


async def test_a_protocol_that_was_taken_away_is_refused(tmp_path: Path, database_url: str, origin: Path) -> None:
    async with platform(tmp_path / "data", database_url, origin_protocols=["https"]) as client:
        assert (await verify(client, str(origin)))["error_code"] == "protocol_not_allowed"


async def test_a_token_is_shown_to_its_origin_and_to_no_log(
    tmp_path: Path,
    database_url: str,
    server: git_http.GitServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    server.rights = {"token-1": "rw"}
    monkeypatch.setenv("MY_ORIGINS_TOKEN", "token-1")
    allowed = {"origin_protocols": ["http"], "origin_tokens": {f"http://{server.host}": "MY_ORIGINS_TOKEN"}}
    async with platform(tmp_path / "data", database_url, **allowed) as client:
        assert (await verify(client, server.url("origin.git")))["can_write"]
        server.rights = {"another": "rw"}
        refused = await verify(client, server.url("origin.git"))
    assert refused["error_code"] == "access_denied"
    shown = "".join((caplog.text, *capfd.readouterr(), str(refused)))
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.parent != tmp_path)
    for secret in ("token-1", base64.b64encode(b"x-access-token:token-1").decode()):
        assert secret not in shown
        assert secret.encode() not in kept


async def test_a_token_that_is_not_there_is_told(tmp_path: Path, database_url: str, server: git_http.GitServer) -> None:
    allowed = {"origin_protocols": ["http"], "origin_tokens": {f"http://{server.host}/": "NOT_SET_ANYWHERE"}}
    async with platform(tmp_path / "data", database_url, **allowed) as client:
        found = await verify(client, server.url("origin.git"))
    assert found["error_code"] == "token_missing"
    assert "NOT_SET_ANYWHERE" not in str(found)


@pytest.mark.parametrize("text", ["https, file ,ssh", "https,file,ssh"])
def test_protocols_are_named_in_the_environment(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SHOPFLOOR_ORIGIN_PROTOCOLS", text)
    assert config.load().origin_protocols == {"https", "file", "ssh"}


def test_protocols_and_tokens_are_named_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "shopfloor.toml").write_text(
        'origin_protocols = ["ssh"]\n[origin_tokens]\n"https://git.example.org:8443" = "TOKEN"\n'
    )
    assert config.load().origin_protocols == {"ssh"}
    assert config.load().origin_tokens == {"https://git.example.org:8443": "TOKEN"}


@pytest.mark.parametrize("text", ['"https"', '["ftp"]', "[]", "3", '["https", 1]', '[["https"]]', "{}"])
def test_a_bad_protocol_names_the_setting_and_the_choice(tmp_path: Path, text: str) -> None:
    (tmp_path / "shopfloor.toml").write_text(f"origin_protocols = {text}\n")
    if text == '"https"':
        assert config.load().origin_protocols == {"https"}
        return
    with pytest.raises(BadConfiguration, match=r"'origin_protocols'.*https, http, ssh, file") as caught:
        config.load()
    assert "SHOPFLOOR_ORIGIN_PROTOCOLS" in caught.value.hint


@pytest.mark.parametrize(
    ("origin", "variable"),
    [
        ("git.example.org", "TOKEN"),
        ("https://user:sekret@git.example.org", "TOKEN"),
        ("https://git.example.org/group", "TOKEN"),
        ("https://git.example.org", "glpat-sekret value"),
        ("ssh://git.example.org", "TOKEN"),
    ],
)
def test_a_bad_token_names_the_setting_and_repeats_no_value(tmp_path: Path, origin: str, variable: str) -> None:
    (tmp_path / "shopfloor.toml").write_text(f'[origin_tokens]\n"{origin}" = "{variable}"\n')
    with pytest.raises(BadConfiguration, match="origin_tokens") as caught:
        config.load()
    assert "sekret" not in str(caught.value.document())


def test_a_table_in_the_environment_that_is_no_json_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOPFLOOR_ORIGIN_TOKENS", "https://x=Y")
    with pytest.raises(BadConfiguration, match="origin_tokens"):
        config.load()
