"""The wheel, as somebody has it who installs it: in an environment that knows nothing of this checkout.

What the project depends on is lent by the environment of the tests, by a path, which spares a minute; that the lock installs is
test_launcher's. pip sees what is lent as installed, so `pip check` holds the metadata against it.
"""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from tests.support.data import ROOT
from tests.support.worker import clean_environment, pass_the_tests_of_the_process

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def build(out: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_string(opened.read(name).decode())


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``omni-bridge`` as pip makes it, in an environment whose path has a space."""
    folder = tmp_path_factory.mktemp("an environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth, of the checkout, is not read on this way
    installer(folder, "install", "--quiet", "--no-index", "--no-deps", str(wheel)).check_returncode()
    return folder / "bin" / "omni-bridge"


def installer(folder: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """uv, or the pip of the Python that this environment was made from."""
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv")
    base = os.path.realpath(sys.executable)
    command = [uv, "pip", verb, "--python", python, *words] if uv else [base, "-m", "pip", "--python", python, verb, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=clean_environment(), check=False)


def test_it_has_the_whole_package_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "bridge_worker"
    sources = [file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert packed == {file.relative_to(ROOT).as_posix() for file in sources}
    assert "bridge_worker/py.typed" in packed


def test_its_metadata_is_that_of_pyproject(wheel: Path, metadata: Message) -> None:
    assert (metadata["Name"], metadata["License-Expression"]) == ("omni-bridge", "MIT")
    assert metadata["Summary"] == PROJECT["description"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(PROJECT["optional-dependencies"]) >= {"local", "redis", "otel"}
    required = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    assert len(metadata.get_all("Requires-Dist", [])) == len(required)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (ROOT / "README.md").read_text(encoding="utf-8")
    with zipfile.ZipFile(wheel) as opened:
        (licence,) = [name for name in opened.namelist() if name.endswith("/licenses/LICENSE")]
        assert opened.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_built_twice_it_is_the_same(wheel: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == wheel.read_bytes()


# Not by `pip check` or uv's, which differ in whether they see what is lent.
UNMET = """
from importlib.metadata import requires, version
from packaging.requirements import Requirement

needed = [each for each in map(Requirement, requires("omni-bridge")) if not each.marker or each.marker.evaluate({"extra": ""})]
print("checked" if len(needed) > 4 else "nothing to check")
for each in needed:
    if version(each.name) not in each.specifier:
        print(each, "is", version(each.name))
"""


def test_it_requires_what_the_tests_run_on(command: Path) -> None:
    python = command.with_name("python")
    found = subprocess.run([python, "-I", "-c", UNMET], capture_output=True, text=True, check=True).stdout.splitlines()
    assert found.pop(0) == "checked"
    assert found == []


def test_the_installed_command_runs_the_installed_package(command: Path) -> None:
    """And not the checkout's, though this is run in it."""
    done = subprocess.run([command, "--version"], cwd=ROOT, capture_output=True, text=True, env=clean_environment(), check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("omni-bridge ")
    where = "import bridge_worker, sys; print(bridge_worker.__file__)"
    python = command.with_name("python")
    found = subprocess.run([python, "-I", "-c", where], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(command.parents[1])


def test_the_installed_command_passes_the_tests_of_the_process(command: Path) -> None:
    pass_the_tests_of_the_process(command)
