"""Plain technical English in the package, the pages, the command line's help, the names of tests and all identifiers.

`WORDS` are the words that the project does not use in prose, each with the words to write instead. `python -m
tests.contract.test_language` prints all findings.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.data import ROOT
from tests.support.worker import COMMAND, WAIT_SECONDS, clean_environment

PAGES = ("README.md", "protocol.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
COMMANDS = ("", "chat", "models", "tokens", "demo", "doctor", "trace", "replay", "schema", "completion")

WORDS = {
    r"mend(s|ed|ing)?": "fix (code), correct (a config), patch (of LiteLLM)",
    r"ways?": "path (of a request), mode (plain or streamed), direction (of messages)",
    r"told|tells?": "reported, returned, sent, logged: name what carries it",
    r"said|says?": "set (settings), content (chats), contains, returns, reports (files, errors)",
    r"asked|asks": "requested, called (a provider), prompted (a user)",
    r"answers?|answered|answering": "response, result; completion (of a model)",
    r"whoever|nobody|somebody|anybody": "name the actor: the parent process, the client, the operator",
    r"whose": "split the sentence, or: with, of",
    r"anew": "again; re-read, reload, restart",
    r"in force": "active, effective",
    r"of (its|their|our) own": "own, separate, dedicated",
    r"worth a word|without a word": "worth reporting; silently",
    r"what there is|those there are": "list what it is: available models, supported settings",
    r"remed(y|ies)|complaints?": "hint (what to do), warning, error",
    r"greet(s|ed|ing)?": "initialize, handshake",
    r"beside|likewise|all the same|but for|as good as": "besides; same as above; still; except; equivalent to",
    r"pictures?": "image",
}
# Names of tests are read without a context, so these are unclear there too.
IN_NAMES = {
    r"(is|are) no": "is not, does not, has no",
    r"goes on": "continues, stays active",
    r"at once": "immediately; together",
    r"stands?( for)?(?! in)": "is, means, is written at",
    r"mistakes?": "error, warning",
    r"nobodys": "name the actor",
    r"sounds?": "audio",
    r"rehearsals?|lessons?": "self-test",
}
# Where the verb is meant, prose may have it; an identifier names what is sent or returned.
IN_IDENTIFIERS = {
    r"ask|asking": "request, call, evaluate: name what is sent",
    r"sounds?": "audio",
}


def compiled(words: Mapping[str, str]) -> dict[re.Pattern[str], str]:
    return {re.compile(rf"\b(?:{word})\b", re.IGNORECASE): instead for word, instead in words.items()}


FORBIDDEN = compiled(WORDS)
FORBIDDEN_IN_NAMES = compiled(WORDS | IN_NAMES)
FORBIDDEN_IN_IDENTIFIERS = compiled(WORDS | IN_IDENTIFIERS)

# Phrases that are meant as they are, with the reason.
ALLOWED = {
    "Say hi": "a prompt that is quoted",
    "by the way": "an idiom in a quoted prompt",
    "halfway": "one word, no path",
    "question and answer": "a kind of text",
}
_ALLOWED = re.compile("|".join(map(re.escape, ALLOWED)), re.IGNORECASE)
_CODE = re.compile(r"```.*?```|``[^`]*``|`[^`\n]*`", re.DOTALL)


TAKE_IDS = ("pytest.mark.parametrize", "pytest.param", "pytest.fixture")


class Finding(NamedTuple):
    file: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.word!r}; write: {self.instead}"


def findings(file: str, line: int, prose: str, forbidden: Mapping[re.Pattern[str], str] = FORBIDDEN) -> Iterator[Finding]:
    """The forbidden words of a text that begins at ``line``; code in backquotes is not prose."""
    blank = _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code.group()), prose)
    blank = _ALLOWED.sub("", blank)
    for pattern, instead in forbidden.items():
        for match in pattern.finditer(blank):
            yield Finding(file, line + blank.count("\n", 0, match.start()), match.group(), instead)


def of_module(path: Path) -> Iterator[Finding]:
    """Comments, docstrings and strings; an expression inside an f-string is code."""
    file = path.relative_to(ROOT).as_posix()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield from findings(file, token.start[0], token.string)
        elif token.type == tokenize.STRING:
            formatted = "f" in re.split("['\"]", token.string, maxsplit=1)[0].lower()
            yield from findings(file, token.start[0], re.sub(r"\{[^{}]*\}", " ", token.string) if formatted else token.string)


def of_page(path: Path) -> Iterator[Finding]:
    yield from findings(path.relative_to(ROOT).as_posix(), 1, path.read_text(encoding="utf-8"))


def of_help(command: str) -> Iterator[Finding]:
    words = [word for word in (command, "--help") if word]
    done = subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, timeout=WAIT_SECONDS, env=clean_environment(), check=False
    )
    yield from findings(f"help:{command or 'omni-bridge'}", 1, done.stdout)


def names() -> Iterator[tuple[str, int, str]]:
    """(file, line, name) of each test function, and of each id that is written in a test file."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield file, node.lineno, node.name.replace("_", " ")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "pytest.mark.parametrize",
                "pytest.param",
                "pytest.fixture",
            ):
                for part in (part for keyword in node.keywords if keyword.arg in ("id", "ids") for part in ast.walk(keyword.value)):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield file, part.lineno, part.value.replace("_", " ").replace("-", " ")


def identifiers(file: str, source: str) -> Iterator[Finding]:
    """The forbidden words of a module's names, which are split at underscores and before capitals."""
    lines: dict[str, int] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            lines.setdefault(token.string, token.start[0])
    for name, line in lines.items():
        yield from findings(file, line, re.sub(r"_|(?<=[a-z])(?=[A-Z])", " ", name), FORBIDDEN_IN_IDENTIFIERS)


def programs() -> list[Path]:
    folders = ("bridge_worker", "tests", "benchmarks", "bin", "bundle", "docs", "clients")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if "target" not in path.parts)


def modules() -> list[Path]:
    return sorted((ROOT / "bridge_worker").rglob("*.py"))


def pages() -> list[Path]:
    return [path for name in PAGES if (path := ROOT / name).exists()] + sorted((ROOT / "docs").rglob("*.md"))


def listed(found: Iterable[Finding]) -> str:
    return "\n".join(map(str, found))


def test_the_package_is_written_in_plain_english() -> None:
    assert not listed(one for path in modules() for one in of_module(path))


def test_the_pages_are_written_in_plain_english() -> None:
    assert not listed(one for path in pages() for one in of_page(path))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command or "omni-bridge")
def test_the_help_is_written_in_plain_english(command: str) -> None:
    assert not listed(of_help(command))


def test_names_of_tests_are_in_plain_english() -> None:
    assert not listed(one for file, line, name in names() for one in findings(file, line, name, FORBIDDEN_IN_NAMES))


def test_identifiers_are_in_plain_english() -> None:
    found = (one for path in programs() for one in identifiers(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
    assert not listed(found)


def test_a_forbidden_word_is_found_in_an_identifier_and_not_in_a_string() -> None:
    source = 'class AnswerError: ...\ntask = "whoever"\ndef is_told(ask): ...\n'
    assert [(one.line, one.word) for one in identifiers("module.py", source)] == [(1, "Answer"), (3, "told"), (3, "ask")]


def test_a_forbidden_word_is_found_in_prose_and_not_in_code() -> None:
    text = "A caller is told.\nIts `answer` and\n```\nwhoever\n```\nwill be Mended; Say hi.\n"
    assert [(one.line, one.word) for one in findings("page.md", 1, text)] == [(6, "Mended"), (1, "told")]


if __name__ == "__main__":
    everything = [one for path in modules() for one in of_module(path)] + [one for path in pages() for one in of_page(path)]
    sys.stdout.write(listed(everything + [one for command in COMMANDS for one in of_help(command)]) + "\n")
