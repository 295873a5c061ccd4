"""Lines of Claude Code of a shape we do not know: a newer program must not fail an order."""

import pytest

from shopfloor_worker.adapters.claude_lines import Lines
from shopfloor_worker.costs import Costs


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"usage"}',
        b'{"type":"took"}',
        b'{"type":"__class__"}',
        b'{"type":"assistant"}',
        b'{"type":"assistant","message":{"content":"words"}}',
        b'{"type":"assistant","message":{"content":[{"type":"text"}]}}',
        b'{"type":"user","message":"words"}',
        b'{"type":["list"]}',
        b"[" * 5000,
        b"no json",
    ],
)
def test_an_odd_line_has_no_facts(line: bytes, tmp_path: object) -> None:
    assert Lines({}, Costs(f"{tmp_path}/costs.json"), "p").read(line) == []


def test_what_came_before_the_odd_part_counts(tmp_path: object) -> None:
    line = b'{"type":"assistant","message":{"content":[{"type":"text","text":"hello"},{"type":"tool_use"}]}}'
    [fact] = Lines({}, Costs(f"{tmp_path}/costs.json"), "p").read(line)
    assert "hello" in str(fact)
