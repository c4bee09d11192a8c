"""protocol.md and the tests hold each other: every rule has a test, and every mark names a rule."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from tests.support.data import ROOT

PROTOCOL = (ROOT / "protocol.md").read_text(encoding="utf-8")
RULES = re.findall(r"^- \[([A-Z]+-\d+)\] ", PROTOCOL, re.MULTILINE)


def marks() -> Iterator[tuple[str, str]]:
    """(rule, where) of each ``pytest.mark.rule(...)`` under tests/, and of each ``# rules:`` of a golden transcript."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rule":
                for argument in node.args:
                    rule = argument.value if isinstance(argument, ast.Constant) else ast.unparse(argument)
                    yield str(rule), f"{path.name}:{node.lineno}"
    for path in sorted((ROOT / "tests/golden").glob("*.transcript")):
        for rules in re.findall(r"^# rules: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield from ((rule, path.name) for rule in rules.split())


def test_every_rule_of_the_protocol_has_a_test() -> None:
    missing = sorted(set(RULES) - {rule for rule, _ in marks()})
    assert not missing, f'no test is marked @pytest.mark.rule("...") with {", ".join(missing)}'


def test_every_mark_names_a_rule_of_the_protocol() -> None:
    unknown = [f"{rule} ({place})" for rule, place in marks() if rule not in RULES]
    assert not unknown, f"protocol.md has no such rules: {', '.join(unknown)}"


def test_no_rule_has_another_rules_id() -> None:
    assert [rule for rule, times in Counter(RULES).items() if times > 1] == []


def test_every_id_in_the_text_is_a_rule() -> None:
    mentioned = set(re.findall(r"\[([A-Z]{3}-\d+)\]", PROTOCOL))
    assert mentioned - set(RULES) == set()
