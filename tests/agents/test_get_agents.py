"""Fetching agent programs: only what was published, once, also when many ask at a time."""

import base64
import hashlib
import importlib.util
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools/get_agents.py"


def tarball() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in (
            ("package/bin/agent", b"#!"),
            ("package/docs/large", b"x"),
            ("package/../../escape", b"x"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


class Registry(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.asked = tarball(), list[str]()


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry on loopback, on a machine without npm."""
    with Registry() as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{serving.server_port}/")
        monkeypatch.setenv("PATH", str(tmp_path))
        yield serving
        serving.shutdown()


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> ModuleType:
    """The tool with one small agent of the test's own."""
    spec = importlib.util.spec_from_file_location("get_agents", TOOL)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "get_agents", made)
    spec.loader.exec_module(made)
    good = base64.b64encode(hashlib.sha512(registry.data).digest()).decode()
    agents = {
        name: {"any": made.Package(package="@x/agent", version="1.0", sha512=sha, program="bin/agent", only="bin/")}
        for name, sha in (("good", good), ("bad", "x"))
    }
    vars(made).update(PLACE=tmp_path / "agents", AGENTS=agents)
    return made


def test_what_is_fetched_is_what_was_published(tool: ModuleType, registry: Registry) -> None:
    program = tool.get("good")
    assert program.read_bytes() == b"#!"
    assert program.stat().st_mode & 0o111
    assert registry.asked == ["/@x/agent/-/agent-1.0.tgz"]
    assert [p.name for p in program.parent.parent.iterdir() if not p.name.startswith(".")] == ["bin"]


def test_anything_else_is_refused(tool: ModuleType) -> None:
    with pytest.raises(SystemExit, match="not what was published"):
        tool.get("bad")
    assert not list(tool.PLACE.glob("bad-*"))


def test_many_at_a_time_fetch_once(tool: ModuleType, registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(tool.get, ["good"] * 8))) == 1
    assert len(registry.asked) == 1
