"""The layers of tests/ are what tests/README.md calls them."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.data import ROOT


def test_the_unit_tests_do_not_import_litellm() -> None:
    """Not by their imports either; tests/unit/conftest.py watches what happens while each test runs."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted((ROOT / "tests/unit").rglob("*.py"))]
    code = (
        "import sys, importlib; sys.path.insert(0, sys.argv[1]);"
        "[importlib.import_module(name) for name in sys.argv[2:]]; print('litellm' in sys.modules, end='')"
    )
    command = [sys.executable, "-c", code, str(ROOT), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "False", done.stderr


def test_each_layer_can_be_run_by_its_name() -> None:
    done = subprocess.run([ROOT / "bin/test", "server", "--collect-only", "-q", "-n0"], capture_output=True, text=True, check=False)
    files = {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert files == {f"tests/server/{path.name}" for path in (ROOT / "tests/server").glob("test_*.py")}, done.stdout + done.stderr


def test_no_test_file_imports_another() -> None:
    """What two of them need is in tests/support."""
    importers = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(("from tests.", "import tests.")) and re.search(r"\btest_", line)
    ]
    assert importers == []
