"""What a sandbox is shown of an agent's program."""

from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents import programs
from shopfloor.agents import service as agents
from shopfloor.kit.config import Settings


def find(name: str, **said: Any) -> programs.Program:
    return programs.find(agents.profile(Settings(data_dir=Path("/nonexistent"), agents={name: said}), name))


def node_package(root: Path, script: str) -> Path:
    package = root / "node_modules" / "agent"
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text("{}")
    program = package / "bin" / "agent.js"
    program.write_text(script)
    program.chmod(0o755)
    return program


def test_a_node_program_is_run_by_node_and_shown_with_what_it_needs(tmp_path: Path) -> None:
    node = tmp_path / "bin" / "node"
    node.parent.mkdir()
    node.write_bytes(b"\x7fELF")
    node.chmod(0o755)
    script = node_package(tmp_path, "#!/usr/bin/env node\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(node.parent))
        found = find("mine", adapter="acp", program=[str(script), "--acp"])
    assert found.command == ["/opt/agent/node", str(script), "--acp"]
    assert found.shown == {"/opt/agent/node": node, str(tmp_path / "node_modules"): tmp_path / "node_modules"}


def test_the_native_program_behind_npms_script_is_taken(tmp_path: Path) -> None:
    script = node_package(tmp_path, "#!/usr/bin/env node\n")
    native = tmp_path / "node_modules/@openai/codex-linux-x64/vendor/some-linux/bin/codex"
    native.parent.mkdir(parents=True)
    native.write_bytes(b"\x7fELF")
    found = find("codex", program=[str(script)])
    assert (found.command, found.shown) == (["/opt/agent/codex"], {"/opt/agent/codex": native})


def test_a_folder_is_shown_at_its_own_path_with_its_links_resolved(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "agent").write_bytes(b"\x7fELF")
    (real / "agent").chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(real)
    found = find("mine", adapter="acp", program=[str(link / "agent")], mounts=[str(link)])
    assert (found.command, found.shown) == ([str(link / "agent")], {str(link): real})


def test_a_python_of_an_environment_is_shown_with_it(tmp_path: Path) -> None:
    base, env = tmp_path / "base", tmp_path / "env"
    for folder in (base / "bin", env / "bin"):
        folder.mkdir(parents=True)
    (base / "bin/python3.12").write_bytes(b"\x7fELF")
    (base / "bin/python3.12").chmod(0o755)
    (env / "bin/python").symlink_to(base / "bin/python3.12")
    (env / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\n")
    found = find("openhands", program=[str(env / "bin/python")])
    assert (found.command, found.shown) == ([str(env / "bin/python")], {str(env): env, str(base): base})


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(agents.ProgramMissing, match="mounts"):
        find("mine", adapter="acp", program=["/bin/sleep"], mounts=[str(tmp_path / "none")])


@pytest.mark.parametrize("name", ["openhands", "mini"])
def test_an_agent_that_is_a_package_says_how_to_get_it(name: str) -> None:
    with pytest.raises(agents.ProgramMissing) as raised:
        find(name)
    assert "uv venv" in raised.value.hint
