"""Tries a version of LiteLLM against this project and prints one table, worst first. See CONTRIBUTING.md, "Another LiteLLM".

Works in a throw-away copy of the project: pin and locks are written there, and an environment is made from them. Nothing of the
project itself changes without --accept. Exit code 0 when everything holds, 1 when something does not, 2 when it could not be tried.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(r'"litellm==([^"]+)"')
# (name of the check, its tests). The suite comes last and without --quick only.
CHECKS = (
    ("canaries", ("tests/upstream_contract",)),  # the table of hosts contacted among them
    ("captured requests against LiteLLM's own", ("tests/providers/test_requests.py", "tests/providers/test_modes.py")),
    ("hosts and refused parameters", ("tests/process/test_security.py", "-k", "refuse or host")),
)
_SUITE = ("suite", ("tests",))
_ORDER = ("broken", "look at", "new", "gone", "ratio", "holds")
_MAX_RATIO = 1.1  # a cost above it is listed among what to look at


class Row(NamedTuple):
    kind: str  # of _ORDER
    subject: str
    detail: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/try-litellm", description="Tries a version of LiteLLM and prints what holds.")
    parser.add_argument("version")
    parser.add_argument("--quick", action="store_true", help="without the whole suite")
    parser.add_argument("--accept", action="store_true", help="write the pin, the locks, the generated tables and a CHANGELOG line")
    options = parser.parse_args()
    if not re.fullmatch(r"[0-9]+(\.[0-9A-Za-z]+)+", options.version):
        parser.error(f"{options.version!r} is not a version, such as 1.110.2")
    with tempfile.TemporaryDirectory(prefix="try-litellm-") as folder:
        try:
            return try_version(Path(folder), options)
        except subprocess.CalledProcessError as error:
            print(f"bin/try-litellm: {' '.join(map(str, error.cmd))}: exit code {error.returncode}", file=sys.stderr)
            return 2


def try_version(folder: Path, options: argparse.Namespace) -> int:
    pinned = pinned_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    before = facts_of(make_copy(folder / "pinned", pinned))
    copy = make_copy(folder / "tried", options.version) if options.version != pinned else folder / "pinned"
    after = facts_of(copy)
    rows = [*compare(before, after), *run_checks(copy, quick=options.quick)]
    print(table(rows, pinned, options.version))
    if options.accept:
        accept(copy, pinned, options.version)
    return int(any(row.kind == "broken" for row in rows))


def pinned_version(pyproject: str) -> str:
    found = PIN.search(pyproject)
    if found is None:
        raise SystemExit('bin/try-litellm: pyproject.toml has no line "litellm==VERSION"; write the pin there')
    return found[1]


def make_copy(folder: Path, version: str) -> Path:
    """The project's files that git knows, with ``version`` pinned, its locks and an environment of it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    pyproject = folder / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    if pinned_version(text) != version:
        pyproject.write_text(PIN.sub(f'"litellm=={version}"', text, count=1), encoding="utf-8")
        run(["bin/lock", "--upgrade-package", "litellm"], folder)
    run(["bin/test", "--version"], folder)
    return folder


def facts_of(folder: Path) -> dict[str, Any]:
    python = folder / ".venv-dev/bin/python"
    done = subprocess.run([python, "-I", "bin/litellm_facts.py"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def run_checks(folder: Path, *, quick: bool) -> Iterator[Row]:
    for name, arguments in (*CHECKS, *(() if quick else (_SUITE,))):
        command = [str(folder / ".venv-dev/bin/python"), "-m", "pytest", "-q", "-n2", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        yield from of_pytest(name, done.returncode, done.stdout)


def of_pytest(name: str, code: int, output: str) -> Iterator[Row]:
    """A row a failed test, or one for all that passed."""
    lines = output.splitlines()
    failed = [line.partition(" ")[2] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    yield from (Row("broken", name, test[:160]) for test in failed)
    summary = next((line.strip("= ") for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "no test ran")
    if not failed:
        yield Row("holds" if code == 0 else "broken", name, summary)


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Row]:
    if "error" in after:
        yield Row("broken", "import", after["error"])
        return
    for name, (state, detail) in after["patches"].items():
        kind = {"holds": "holds", "removed upstream": "holds", "does not apply": "broken"}.get(state, "look at")
        yield Row(kind, f"patch {name}", f"{state}: {detail}" if kind != "holds" else state)
    if "error" in before:
        yield Row("look at", "the pinned version", before["error"])
        return
    refused = after["parameters"]
    for name in sorted(refused.keys() - before["parameters"].keys()):
        yield Row(
            "new" if refused[name] else "look at", f"parameter {name}", "refused" if refused[name] else "not refused by a rule"
        )
    yield from (Row("gone", f"parameter {name}", "") for name in sorted(before["parameters"].keys() - refused.keys()))
    for what in ("providers", "settings", "Router arguments"):
        old, new = set(before[what]), set(after[what])
        kind = "look at" if what == "providers" else "new"
        yield from (Row(kind, f"{what}: {name}", "new") for name in sorted(new - old))
        yield from (Row("gone", f"{what}: {name}", "") for name in sorted(old - new))
    for what, cost in after["costs"].items():
        ratio = cost / before["costs"][what]
        yield Row("look at" if ratio > _MAX_RATIO else "ratio", what, f"{cost}, {ratio:.2f} of the pinned version's")


def table(rows: list[Row], pinned: str, version: str) -> str:
    """Worst first."""
    ordered = sorted(rows, key=lambda row: _ORDER.index(row.kind))
    width = max((len(row.subject) for row in ordered), default=0)
    lines = [f"LiteLLM {version} against the pinned {pinned}", ""]
    lines += [f"{row.kind:8} {row.subject:{width}}  {row.detail}".rstrip() for row in ordered]
    counts = ", ".join(f"{sum(row.kind == kind for row in rows)} {kind}" for kind in _ORDER)
    return "\n".join([*lines, "", counts])


def accept(copy: Path, pinned: str, version: str) -> None:
    """The result goes into the project. The day of publication in price_map.py is left to a human: no file of LiteLLM has it."""
    if version == pinned:
        return
    run([str(copy / ".venv-dev/bin/python"), "bin/generate.py"], copy)
    for name in ("pyproject.toml", "protocol.md", "README.md", *LOCKS):
        shutil.copy2(copy / name, ROOT / name)
    changelog = ROOT / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8").rstrip("\n")
    changelog.write_text(f"{text}\n- LiteLLM {version} instead of {pinned}, tried on {date.today()}.\n", encoding="utf-8")
    print(f"bin/try-litellm: the pin is {version}; add its day of publication to DATES in bridge_worker/providers/price_map.py")


def run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
