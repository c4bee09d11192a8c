"""Tries a version of LiteLLM against this project and prints one table, worst first. See CONTRIBUTING.md, "Another LiteLLM".

Works in a throw-away clone of the project: pin, locks and generated parts are written there, and an environment is made from them.
Nothing of the project itself changes without --accept. Exit code 0 when nothing is broken, 1 when something is, 2 when the version
could not be tried.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r'"litellm==([^"]+)"')
_FACTS_SECONDS = 1200
_STEP_SECONDS = 1800  # an environment, the locks, the generated parts
_CHECK_SECONDS = 2400
_SUITE_SECONDS = 3 * 3600
_MAX_RATIO = 1.1  # a cost above it is listed among what to look at
_WIDTH = 130

# (name of the check, its tests). What the suite has besides comes with the suite only.
CHECKS = (
    ("canaries", ("tests/upstream_contract", "--ignore=tests/upstream_contract/test_hosts.py")),  # the hosts are rows of their own
    ("requests against LiteLLM's own path", ("tests/providers/test_requests.py",)),
)
_SUITE = ("suite", ("tests",))

SECTIONS = {
    "broken": "BROKEN: correct these before --accept",
    "look at": "LOOK AT: decide for each, then --accept",
    "new": "NEW",
    "gone": "GONE",
    "cost": "COST",
    "holds": "HOLDS",
}


class Row(NamedTuple):
    kind: str  # of SECTIONS
    subject: str
    detail: str = ""
    next: str = ""  # what to do about it


# ---- the command -----------------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/try-litellm", description="Tries a version of LiteLLM and prints what holds.")
    parser.add_argument("version", help="such as 1.110.2; pinned: the project's own; newest: the registry's newest")
    parser.add_argument("--quick", action="store_true", help="without the whole suite")
    parser.add_argument("--accept", action="store_true", help="write pin, locks, generated parts and a CHANGELOG line")
    parser.add_argument("--keep", action="store_true", help="leave the clone in place, for work on what is broken")
    options = parser.parse_args()
    pinned = pinned_version((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    version = {"pinned": lambda: pinned, "newest": newest_version}.get(options.version, lambda: options.version)()
    if not re.fullmatch(r"[0-9]+(\.[0-9A-Za-z]+)+", version):
        parser.error(f"{version!r} is not a version, such as 1.110.2")
    folder = Path(tempfile.mkdtemp(prefix="try-litellm-"))
    try:
        return try_version(folder, pinned, version, options)
    except subprocess.SubprocessError as error:
        print(f"bin/try-litellm: {reason_of(error)}", file=sys.stderr)
        return 2
    finally:
        if options.keep:
            print(f"bin/try-litellm: kept {folder}/clone", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def try_version(folder: Path, pinned: str, version: str, options: argparse.Namespace) -> int:
    began = time.monotonic()
    step("the environment of the pinned version")
    run(["bin/test", "--version"], ROOT)
    clone = ROOT if version == pinned else make_clone(folder / "clone", pinned, version)
    step("facts of the pinned version")
    before = after = facts_of(ROOT)
    if version != pinned:
        step("facts of the tried version, with the hosts that each provider contacts")
        after = facts_of(clone, "--hosts")
    rows = list(compare(before, after))
    if version != pinned and "error" not in after:
        rows += write_generated_parts(clone, pinned, version, after["hosts"].get("page"))
    rows += run_checks(clone, quick=options.quick)
    print(table(rows, pinned, version, time.monotonic() - began))
    if options.accept and version != pinned:
        accept(clone, version)
    print("\n" + what_next(rows, pinned, version, options))
    return int(any(row.kind == "broken" for row in rows))


def pinned_version(pyproject: str) -> str:
    found = PIN.search(pyproject)
    if found is None:
        raise SystemExit('bin/try-litellm: pyproject.toml has no line "litellm==VERSION"; write the pin there')
    return found[1]


def newest_version() -> str:
    command = [sys.executable, "-m", "pip", "index", "versions", "litellm", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_STEP_SECONDS, check=False)
    found = re.search(r"\(([0-9][^)]*)\)", done.stdout)
    if found is None:
        raise SystemExit(f"bin/try-litellm: pip index versions litellm: {done.stderr.strip()[-300:] or 'no version'}")
    return found[1]


# ---- the clone -------------------------------------------------------------------------------------------------------------------


def make_clone(clone: Path, pinned: str, version: str) -> Path:
    """The project as it is now, changes without a commit included, with ``version`` pinned, its locks and an environment of it."""
    step("a clone of the project")
    run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], ROOT)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, timeout=_STEP_SECONDS).stdout
    for name in filter(None, listed.decode().split("\0")):
        (clone / name).unlink(missing_ok=True)
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    commit(clone, "The project as it is")
    rewrite(clone / "pyproject.toml", f'"litellm=={pinned}"', f'"litellm=={version}"')
    step(f"locks with LiteLLM {version}")
    run(["bin/lock", "--upgrade-package", "litellm"], clone)
    step(f"the environment of LiteLLM {version}")
    run(["bin/test", "--version"], clone)
    return clone


def commit(clone: Path, message: str) -> None:
    """What `git diff` shows afterwards is what the upgrade changes."""
    run(["git", "add", "--all"], clone)
    names = ("-c", "user.name=try-litellm", "-c", "user.email=try-litellm@localhost")
    run(["git", *names, "commit", "--quiet", "--allow-empty", "--no-verify", "--message", message], clone)


def write_generated_parts(clone: Path, pinned: str, version: str, hosts: str | None) -> Iterator[Row]:
    """All that `accept` will write. The suite runs on it. ``hosts`` is the page of the recorded hosts."""
    step("generated parts")
    day = publication_day(version)
    if day is None:
        yield Row(
            "look at",
            "day of publication",
            "the registry does not tell it",
            "correct DATES in bridge_worker/providers/price_map.py",
        )
    dates = clone / "bridge_worker/providers/price_map.py"
    if f'"{version}"' not in dates.read_text(encoding="utf-8"):
        rewrite(dates, "\nDATES = {", f'\nDATES = {{"{version}": "{day or date.today()}", ')
    rewrite(clone / "docs/operators.md", f'"version": "{pinned}"', f'"version": "{version}"')
    if hosts is not None:
        (clone / "docs/hosts.md").write_text(hosts, encoding="utf-8")
    changelog = clone / "CHANGELOG.md"
    changelog.write_text(with_entry(changelog.read_text(encoding="utf-8"), pinned, version), encoding="utf-8")
    python = str(clone / ".venv-dev/bin/python")
    for command in ([python, "bin/generate.py"], [python, "-m", "ruff", "format", "--quiet", str(dates)]):
        try:
            run(command, clone)
        except subprocess.SubprocessError as error:
            yield Row("broken", "generated parts", reason_of(error), "bin/generate.py in the clone shows the traceback")


def with_entry(changelog: str, pinned: str, version: str) -> str:
    """A line at the end of the newest release, which is the first."""
    releases = [match.start() for match in re.finditer(r"^## ", changelog, re.MULTILINE)]
    end = releases[1] if len(releases) > 1 else len(changelog)
    newest, rest = changelog[:end].rstrip("\n"), changelog[end:]
    return f"{newest}\n- LiteLLM {version} instead of {pinned}.\n" + (f"\n{rest}" if rest else "")


def publication_day(version: str) -> str | None:
    """From the index that pip is set up with, where that has the times of uploads (PEP 700)."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, timeout=60, check=False
    )
    url = (done.stdout.strip() or "https://pypi.org/simple").rstrip("/") + "/litellm/"
    request = urllib.request.Request(url, headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310  # pip's own
    try:
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
            files = json.load(response)["files"]
    except (OSError, ValueError, KeyError):
        return None
    days = [
        file["upload-time"][:10] for file in files if file["filename"].startswith(f"litellm-{version}-") and "upload-time" in file
    ]
    return min(days, default=None)


def accept(clone: Path, version: str) -> None:
    """The clone's changes go into the project. `git diff` shows them."""
    changed = subprocess.run(["git", "diff", "--binary"], cwd=clone, check=True, capture_output=True, timeout=_STEP_SECONDS).stdout
    subprocess.run(["git", "apply", "--whitespace=nowarn"], cwd=ROOT, check=True, input=changed, timeout=_STEP_SECONDS)
    names = subprocess.run(["git", "diff", "--name-only"], cwd=clone, check=True, capture_output=True, text=True, timeout=60).stdout
    print(f"\nThe project is now on LiteLLM {version}. Written: {', '.join(names.split())}")


# ---- facts -----------------------------------------------------------------------------------------------------------------------


def facts_of(folder: Path, *arguments: str) -> dict[str, Any]:
    command = [str(folder / ".venv-dev/bin/python"), "-I", "bin/litellm_facts.py", *arguments]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_FACTS_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        return {"error": reason_of(error)}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Row]:
    if "error" in after:
        yield Row("broken", "import", after["error"], "the bridge can't be imported with this version: correct that first")
        return
    yield from rows_of_patches(after["patches"])
    yield from rows_of_parts(after["degraded"])
    if "error" in before:
        yield Row("look at", "the pinned version", before["error"], "nothing can be compared with it: repair .venv-dev, try again")
        return
    yield from rows_of_parameters(before["parameters"], after["parameters"])
    for what in ("providers", "settings", "Router arguments"):
        yield from rows_of_names(what, set(before[what]), set(after[what]))
    if after["hosts"] is not None:
        yield from rows_of_hosts(accepted_hosts((ROOT / "docs/hosts.md").read_text(encoding="utf-8")), after["hosts"])
    yield from rows_of_costs(before["costs"], after["costs"])


def rows_of_patches(patches: Mapping[str, list[str]]) -> Iterator[Row]:
    for name, (state, reason, file, evidence) in patches.items():
        match state:
            case "holds" | "removed upstream":
                yield Row("holds", f"patch {name}" + (f" ({state})" if state != "holds" else ""))
            case "does not apply":
                yield Row("broken", f"patch {name}", f"{state}: {reason}", f"correct its row in {file}; {evidence} shows the fault")
            case "no longer needed":
                yield Row("look at", f"patch {name}", f"{state}, LiteLLM has corrected: {reason}", f"delete it from {file}")
            case _:
                yield Row("look at", f"patch {name}", f"its {state}: {reason}", f"correct has_fault of its row in {file}")


def rows_of_parts(degraded: Iterable[Mapping[str, str]]) -> Iterator[Row]:
    """Of a real worker. A patch has its own row already."""
    rehearsed = [row for row in degraded if not row["part"].startswith("patch ")]
    for row in rehearsed:
        where = "correct bridge_worker/backends/litellm/ where rehearsal.py fails"
        yield Row("broken", f"rehearsal of the {row['part']}", f"{row['reason']}; {row['effect']}", where)
    if not rehearsed:
        yield Row("holds", "every format and mode in a real worker")


def rows_of_parameters(before: Mapping[str, bool], after: Mapping[str, bool]) -> Iterator[Row]:
    hint = "does it name a host, a secret, a file or code? then add it to bridge_worker/security/refused_params.py"
    for name in sorted(after.keys() - before.keys()):
        yield (
            Row("new", "parameters, refused by rule", name)
            if after[name]
            else Row("look at", "parameters, not refused", name, hint)
        )
    yield from (Row("gone", "parameters", name) for name in sorted(before.keys() - after.keys()))


def rows_of_names(what: str, before: set[str], after: set[str]) -> Iterator[Row]:
    hints = {
        "providers": "has one no default host, a log-in or a service on this machine? add it to bridge_worker/providers/facts.py",
        "Router arguments": "does the lane hold with one of them? add that one to _PLAIN_SETTINGS in backends/litellm/lane.py",
    }
    kind = "look at" if what in hints else "new"
    yield from (Row(kind, f"{what}, new", name, hints.get(what, "")) for name in sorted(after - before))
    yield from (Row("gone", what, name) for name in sorted(before - after))


def accepted_hosts(page: str) -> dict[str, str]:
    """``PROVIDER METHOD`` -> the hosts that were reviewed, of docs/hosts.md."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    head = rows[0]
    return {f"{row[0]} {method}": cell.replace("`", "") for row in rows[1:] for method, cell in zip(head[1:], row[1:], strict=True)}


def rows_of_hosts(accepted: Mapping[str, str], hosts: Mapping[str, Any]) -> Iterator[Row]:
    if "error" in hosts:
        yield Row("broken", "hosts", f"they could not be recorded: {hosts['error']}", "try again on an idle machine")
        return
    for wrong in hosts["forbidden"]:
        yield Row("broken", "hosts", wrong, "bridge_worker/backends/litellm/patches/hosts.py must keep the request at its own host")
    recorded: Mapping[str, str] = hosts["rows"]
    hint = "is it the provider's own host? --accept writes it into docs/hosts.md"
    for key in sorted(accepted.keys() | recorded.keys()):
        old, new = accepted.get(key, ""), recorded.get(key, "")
        if old != new:
            yield Row(
                "look at" if new else "gone", "hosts", f"{key}: {new or 'none'}, accepted: {old or 'none'}", hint if new else ""
            )
    if not hosts["forbidden"]:
        yield Row("holds", "no key goes to another provider's host")


def rows_of_costs(before: Mapping[str, float], after: Mapping[str, float]) -> Iterator[Row]:
    for what, cost in after.items():
        old = before.get(what)
        ratio = cost / old if old else None
        detail = f"{cost}" + (f", {ratio:.2f} of the pinned version's {old}" if ratio else ", not known for the pinned version")
        is_high = ratio is not None and ratio > _MAX_RATIO
        yield Row(
            "look at" if is_high else "cost",
            what,
            detail,
            "try again on an idle machine; then is it worth the upgrade?" if is_high else "",
        )


# ---- tests -----------------------------------------------------------------------------------------------------------------------


def run_checks(folder: Path, *, quick: bool) -> Iterator[Row]:
    for name, arguments in CHECKS if quick else (_SUITE,):
        step(f"tests: {name}")
        command = [str(folder / ".venv-dev/bin/python"), "-m", "pytest", "-q", "-n2", "--color=no", *arguments]
        try:
            seconds = _CHECK_SECONDS if quick else _SUITE_SECONDS
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            yield Row("broken", name, reason_of(error), "a test hangs: run it by hand in the clone (--keep)")
            continue
        yield from of_pytest(name, done.returncode, done.stdout)


def of_pytest(name: str, code: int, output: str) -> Iterator[Row]:
    """A row a failed test, or one for all that passed."""
    lines = output.splitlines()
    failed = [line.partition(" ")[2] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    for test in failed:
        id, _, reason = test.partition(" - ")
        yield Row("broken", name, id + (f": {reason[:160]}" if reason else ""), "--keep, then in the clone: bin/test TEST -n0")
    summary = next((line.strip("= ") for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "no test ran")
    if not failed:
        yield Row("holds" if code == 0 else "broken", f"{name}: {summary}" if code == 0 else name, "" if code == 0 else summary)


# ---- the table -------------------------------------------------------------------------------------------------------------------


def table(rows: list[Row], pinned: str, version: str, seconds: float) -> str:
    """Worst first; rows of one subject are one entry."""
    title = f"LiteLLM {version}" + (", the pinned version," if version == pinned else f" against the pinned {pinned},")
    lines = [f"{title} in {seconds / 60:.0f} min"]
    for kind, heading in SECTIONS.items():
        found = [row for row in rows if row.kind == kind]
        if found:
            lines += ["", f"{heading} ({len(found)})", *section(kind, found)]
    return "\n".join(lines)


def section(kind: str, rows: list[Row]) -> Iterator[str]:
    if kind == "holds":
        yield wrapped("; ".join(row.subject for row in rows), "  ")
        return
    subjects = list(dict.fromkeys((row.subject, row.next) for row in rows))
    for subject, advice in subjects:
        details = [row.detail for row in rows if (row.subject, row.next) == (subject, advice)]
        if len(details) == 1 or all(" " not in detail for detail in details):
            yield wrapped(f"{subject}: {', '.join(details)}", "  ", "      ")
        else:
            yield f"  {subject}: {len(details)}"
            yield from (wrapped(detail, "      - ", "        ") for detail in details)
        if advice:
            yield wrapped(f"-> {advice}", "    ", "       ")


def wrapped(text: str, first: str, rest: str | None = None) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def what_next(rows: list[Row], pinned: str, version: str, options: argparse.Namespace) -> str:
    count = {kind: sum(row.kind == kind for row in rows) for kind in SECTIONS}
    quick = "" if not options.quick else " The suite was left out (--quick): run it before a release."
    if version == pinned:
        return ("Everything holds." if not count["broken"] else f"{count['broken']} broken: correct them.") + quick
    if options.accept:
        return f"Next: git diff, correct what is broken ({count['broken']}), bin/test, commit.{quick}"
    if count["broken"]:
        keep = "" if options.keep else " --keep"
        work = (
            f"bin/try-litellm {version}{keep} leaves the clone to work in, or --accept takes the version and you correct them here"
        )
        return f"Next: {count['broken']} broken and {count['look at']} to look at. {work}.{quick}"
    return f"Next: nothing is broken, {count['look at']} to look at; then bin/try-litellm {version} --accept.{quick}"


# ---- steps -----------------------------------------------------------------------------------------------------------------------


def step(what: str) -> None:
    print(f"bin/try-litellm: {what}", file=sys.stderr, flush=True)


def rewrite(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=_STEP_SECONDS)


def reason_of(error: subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{command_of(error.cmd)}: not done after {error.timeout:.0f} s"
    assert isinstance(error, subprocess.CalledProcessError)  # noqa: S101  # the only other one
    return f"{command_of(error.cmd)}: exit code {error.returncode}"


def command_of(command: Any) -> str:
    return " ".join(map(str, command))[:200]


if __name__ == "__main__":
    sys.exit(main())
