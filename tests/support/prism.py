"""Stoplight's Prism between a client and a fake: both are held to the forge's own document. Installed into .tools on first use."""

import fcntl
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT / ".tools" / "prism"
PRISM = "@stoplight/prism-cli@5.16.0"


def program() -> Path:
    """Prism's own program; skips, loudly, without node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("NOT CHECKED against the forge's own document: node and npm are not installed")
    found = TOOLS / "node_modules" / ".bin" / "prism"
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            (TOOLS / "package.json").write_text('{"private": true}')
            npm = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PRISM)
            done = subprocess.run(npm, cwd=TOOLS, capture_output=True, text=True, timeout=280, check=False)
            if done.returncode != 0:
                pytest.skip(f"NOT CHECKED against the forge's own document: npm failed: {done.stderr[-300:]}")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def between(spec: Path, upstream: str, folder: Path) -> Iterator[str]:
    """Prism in front of a server; answers its address. What breaks the document becomes an error, on both sides."""
    document = json.loads(spec.read_text())
    if "openapi" in document:
        body = {"application/json": {"schema": {"type": "object"}}}
        answer = {"200": {"description": "not described: GraphQL is no part of the document", "content": body}}
        document["paths"]["/graphql"] = {
            "post": {"operationId": "graphql", "requestBody": {"content": body}, "responses": answer}
        }
    local = folder / "spec.json"
    local.write_text(json.dumps(_judgeable(document)))
    port = _free_port()
    log = (folder / "prism.log").open("w")
    argv = (str(program()), "proxy", "--errors", "-h", "127.0.0.1", "-p", str(port), str(local), upstream)
    running = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        _wait(port, running, folder / "prism.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)
        log.close()


def _judgeable(node: Any) -> Any:
    """The document without `nullable` at a choice of schemas: Prism cannot compile it and would judge nothing of the whole answer."""
    if isinstance(node, list):
        return [_judgeable(each) for each in node]
    if not isinstance(node, dict):
        return node
    said = {name: _judgeable(value) for name, value in node.items()}
    if "anyOf" in said:
        said.pop("nullable", None)
    return said


def _wait(port: int, running: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and running.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/nothing-at-all", timeout=10)
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"Prism did not start: {log.read_text()[-2000:]}")
