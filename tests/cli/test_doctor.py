"""The doctor tries things and tells the truth."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Shop
from tests.support.github_server import GitHubServer
from tests.support.hub_state import Token
from tests.support.word_model import word_model

KEYED = {
    "OPENAI_API_KEY": "sk-very-secret-value",
    "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
    "ANTHROPIC_API_KEY": "",
    "GEMINI_API_KEY": "",
}


@pytest.fixture(scope="module")
def told(shop: Shop) -> dict[str, dict[str, object]]:
    """What the doctor says beside a running server."""
    done = shop("doctor", "--json", env=KEYED)
    assert "very-secret" not in done.out + done.err
    return {check["name"]: check for check in json.loads(done.out)["checks"]}


def test_git_was_tried(told: dict[str, dict[str, object]]) -> None:
    assert "commits" in str(told["git"]["detail"])


def test_a_sandbox_was_started(told: dict[str, dict[str, object]]) -> None:
    assert told["local: sandbox"]["ok"], told["local: sandbox"]


def test_the_script_agent_is_found(told: dict[str, dict[str, object]]) -> None:
    assert any("script" in name and check["ok"] for name, check in told.items() if check["area"] == "agents")


def test_a_key_is_tried(told: dict[str, dict[str, object]]) -> None:
    assert told["account openai"]["detail"] == "http://127.0.0.1:1 was not reached: ConnectError"


def test_a_key_that_is_not_set_is_named(told: dict[str, dict[str, object]]) -> None:
    assert told["account anthropic"]["detail"] == "ANTHROPIC_API_KEY is not set"


def test_the_server_was_reached(told: dict[str, dict[str, object]]) -> None:
    assert told["server"]["ok"]


def test_without_a_server_the_rest_is_tried(nobody: Shop) -> None:
    done = nobody("doctor", "git", "data", "server", "--json")
    checks = {check["name"]: check["ok"] for check in json.loads(done.out)["checks"]}
    assert (done.code, checks) == (0, {"git": True, "data folder": True, "server": False})


def test_a_required_thing_that_fails_is_1(nobody: Shop, place: Path) -> None:
    (place / "file").write_text("no folder")
    assert nobody("doctor", "data", env={"SHOPFLOOR_DATA_DIR": str(place / "file")}).code == 1


def test_a_bad_configuration_is_told_not_thrown(nobody: Shop) -> None:
    done = nobody("doctor", env={"SHOPFLOOR_PORT": "many"})
    assert (done.code, "SHOPFLOOR_PORT" in done.out) == (1, True)


def test_an_unknown_area_is_2(nobody: Shop) -> None:
    assert nobody("doctor", "plumbing").code == 2


def forge(api_url: str) -> dict[str, str]:
    """A GitHub of our own, as the environment says it."""
    said = {"https://git.example": {"kind": "github", "api_url": api_url, "token_env": "A_TOKEN"}}
    return {"SHOPFLOOR_FORGES": json.dumps(said), "A_TOKEN": "ghp_doctor"}


def test_a_forge_is_asked_who_we_are(nobody: Shop, place: Path) -> None:
    (place / "served").mkdir()
    github = GitHubServer(place / "served")
    github.start()
    github.tokens["ghp_doctor"] = Token("shopfloor-bot", {})
    done = nobody("doctor", "forges", "--json", env=forge(f"http://{github.host}"))
    github.close()
    (check,) = json.loads(done.out)["checks"]
    assert (check["ok"], check["detail"]) == (True, "knows us as shopfloor-bot")
    assert "ghp_doctor" not in done.out


def test_a_forge_that_does_not_know_us_is_told_with_what_to_do(nobody: Shop, place: Path) -> None:
    (place / "served").mkdir()
    github = GitHubServer(place / "served")
    github.start()
    done = nobody("doctor", "forges", "--json", env=forge(f"http://{github.host}"))
    github.close()
    (check,) = json.loads(done.out)["checks"]
    assert (check["ok"], bool(check["fix"])) == (False, True)


def board(nobody: Shop, **env: str) -> tuple[int, dict[str, object]]:
    done = nobody("doctor", "board", "--json", env=env)
    (check,) = json.loads(done.out)["checks"]
    return done.code, check


def test_without_a_model_tickets_are_compared_by_letters(nobody: Shop) -> None:
    code, check = board(nobody)
    assert (code, check["ok"], check["detail"]) == (0, True, "compared by letters; no model")


def test_a_model_is_tried(nobody: Shop, place: Path) -> None:
    code, check = board(nobody, SHOPFLOOR_BOARD__DUPLICATE_MODEL=str(word_model(place / "model")))
    assert (code, check["ok"], "8 numbers" in str(check["detail"])) == (0, True, True)


def test_a_model_that_is_not_there_is_told(nobody: Shop, place: Path) -> None:
    code, check = board(nobody, SHOPFLOOR_BOARD__DUPLICATE_MODEL=str(place / "model"))
    assert (code, check["ok"], "no folder" in str(check["detail"])) == (1, False, True)


def test_a_missing_extra_is_told_with_what_to_install(nobody: Shop, place: Path) -> None:
    """As it is where the extra was not installed: the import fails."""
    (place / "model2vec.py").write_text("raise ModuleNotFoundError(\"No module named 'model2vec'\", name='model2vec')")
    model = str(word_model(place / "model"))
    code, check = board(nobody, SHOPFLOOR_BOARD__DUPLICATE_MODEL=model, PYTHONPATH=str(place))
    assert (code, check["ok"], "pip install 'shopfloor[embeddings]'" in str(check["fix"])) == (1, False, True)
