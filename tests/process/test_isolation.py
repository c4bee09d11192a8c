"""What code runs, who is spoken to, who may read and write: a process among hostile surroundings."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import tests.support.worker
from bridge_worker.security.isolation import INTERPRETER_VARIABLES
from tests.conftest import Spawn
from tests.support.data import HELLO_ASCII as HELLO
from tests.support.processes import line, script
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, clean_environment

HIJACK = "import os; os.write(2, b'HIJACKED by ' + __file__.encode() + b'\\n')\n"
PING = line(1, "ping")


def run_as(command: list[str], folder: Path, **env: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command, input=PING, capture_output=True, cwd=folder, env=clean_environment() | env, timeout=WAIT_SECONDS, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of modules that shadow ours and our libraries', with the files that Python runs at start."""
    for name in ("bridge_worker", "litellm", "pydantic", "yaml", "jsonrpcserver"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HIJACK)
    for name in ("asyncio", "json", "logging", "argparse", "socket", "ssl", "httpx", "usercustomize"):
        (tmp_path / f"{name}.py").write_text(HIJACK)
    return tmp_path


@pytest.mark.rule("SEC-10")
def test_the_installed_command_starts_isolated(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As pip writes it: `from bridge_worker.cli.main import main; main()`, and no -I. Hostile folder and user site."""
    home = tmp_path_factory.mktemp("home")
    user_site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    user_site.mkdir(parents=True)
    (user_site / "stray.pth").write_text(HIJACK.replace("__file__", "'stray.pth'"))
    command = home / "omni-bridge"
    command.write_text(f"#!{sys.executable}\nimport sys\nfrom bridge_worker.cli.main import main\nsys.exit(main())\n")
    command.chmod(0o755)
    env = {"PYTHONUSERBASE": str(home), "PYTHONSTARTUP": str(hostile / "json.py"), "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error"}
    assert run_as([str(command), "--stdio"], hostile, **env) == (0, '{"jsonrpc":"2.0","id":1,"result":{}}\n', "")


@pytest.mark.rule("SEC-10")
def test_python_m_from_a_folder_of_other_modules_runs_none_of_them(tmp_path: Path) -> None:
    """Of those that `python -m` itself has not imported before any code of ours runs; the rest is Python's, and -I is its cure."""
    for name in ("litellm", "pydantic", "yaml", "jsonrpcserver"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HIJACK)
    env = {"OPENAI_API_KEY": "sk-secret-123"}
    code, stdout, stderr = run_as([sys.executable, "-m", "bridge_worker", "--stdio"], tmp_path, **env)
    assert (code, stderr) == (0, "")
    assert json.loads(stdout)["result"] == {}


@pytest.mark.rule("SEC-10")
def test_a_process_that_can_not_be_isolated_reports_it(tmp_path: Path) -> None:
    """As where only PYTHONPATH knows the package: isolated, it would not be found at all."""
    code = (
        "from bridge_worker.cli import main; from bridge_worker.security import isolation; "
        "isolation._ROOT = '/nowhere'; main.main()"
    )
    status, stdout, stderr = run_as([sys.executable, "-c", code, "--stdio"], tmp_path)
    assert (status, stdout.count("\n")) == (0, 1), stderr
    assert "PYTHONPATH" in stderr


@pytest.mark.rule("SEC-10")
def test_a_restart_keeps_the_process_id_and_its_input() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "from bridge_worker.cli.main import main; main()", "--stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(PING)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert b"-I" in command
        process.stdin.close()
        assert process.wait(WAIT_SECONDS) == 0


# ---- files -------------------------------------------------------------------------------------------------------------------

CONFIG = """
model_list:
  - model_name: m
    litellm_params: {model: openai/m, api_key: sk-secret-123456}
"""


@pytest.mark.rule("SEC-11")
@pytest.mark.parametrize(
    ("mode", "who"), [(0o600, ""), (0o644, ""), (0o664, "its group"), (0o666, "all users"), (0o602, "all users")], ids=str
)
def test_a_config_that_others_may_write_to_is_a_warning(tmp_path: Path, mode: int, who: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    path.chmod(mode)
    code, stdout, stderr = tests.support.worker.run("--stdio", "--config", str(path), input=PING)
    assert (code, stdout.count("\n")) == (0, 1)
    assert (f"is writable by {who}" in stderr) is bool(who), stderr


@pytest.mark.rule("SEC-7")
@pytest.mark.parametrize(
    ("policy", "passes"), [("", True), ("{schemes: [data]}", False), ("{schemes: [data], allowed_hosts: [example.com]}", False)]
)
def test_the_config_narrows_what_urls_are_passed_on(tmp_path: Path, policy: str, passes: bool) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + f"omni_bridge: {{image_policy: {policy}}}\n")
    path.chmod(0o600)
    content = [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}, {"type": "text", "text": "x"}]
    messages = [{"role": "user", "content": content}]
    code, stdout, stderr = tests.support.worker.run(
        "--stdio", "--config", str(path), input=line(1, "chat", model="offline/echo", messages=messages)
    )
    assert (code, stderr) == (0, "")
    assert ("result" in json.loads(stdout)) is passes, stdout


@pytest.mark.rule("SEC-7", "EXT-2")
@pytest.mark.parametrize("policy", ["{schemes: [http]}", "{scheme: [data]}", "[data]", "{allowed_hosts: 7}"])
def test_an_invalid_policy_exits_2_and_names_its_line(tmp_path: Path, policy: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG + f"omni_bridge: {{image_policy: {policy}}}\n")
    code, stdout, stderr = tests.support.worker.run("--stdio", "--config", str(path), input=PING)
    assert (code, stdout) == (2, "")
    assert "omni_bridge.image_policy" in stderr


@pytest.mark.rule("SEC-11")
def test_files_that_it_makes_are_for_its_user_only(tmp_path: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    text = (
        "import os\nfrom bridge_worker.cli import main as cli\nfrom bridge_worker.runtime import startup as serve\n"
        "start = serve.App.start\n"
        f"serve.App.start = lambda self, *pipe: (open({str(made)!r}, 'w').close(), start(self, *pipe))\ncli.main()"
    )
    monkeypatch.setattr(tests.support.worker, "COMMAND", script(tmp_path / "make.py", text))
    os.umask(os.umask(0o000))
    spawn().chat("offline/echo")
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


# ---- who is spoken to ----------------------------------------------------------------------------------------------------------

# Notes every connection, look-up, bound port and child before it happens; an audit hook can't be taken out again.
NOTE_CONNECTIONS = """
import os, sys
fd = os.open(os.environ["TEST_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

def note(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        os.write(fd, f"{event} {arguments[1]!r}\\n".encode())
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        os.write(fd, f"look-up {arguments[:2]!r}\\n".encode())
    elif event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty"):
        os.write(fd, f"{event}\\n".encode())

sys.addaudithook(note)
from bridge_worker.cli.main import main
main()
"""


@pytest.mark.rule("SEC-12", "SEC-2")
def test_it_connects_to_the_provider_and_to_no_other_host(
    upstream: Upstream, tmp_path: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From start to exit, with all kinds of chats and LiteLLM's whole import and warm-up in between."""
    notes = tmp_path / "notes"
    monkeypatch.setattr(tests.support.worker, "COMMAND", script(tmp_path / "noted.py", NOTE_CONNECTIONS))
    env = {"TEST_NOTES": str(notes), "OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
    worker = spawn(env=env | {"ANTHROPIC_API_KEY": "sk-ant-1", "ANTHROPIC_BASE_URL": upstream.base_url})
    for model in (
        "openai/gpt-4o-mini",
        "openai/llama-3-70b",
        "openai/status-500",
        "openai/truncated",
        "anthropic/claude-x",
        "nobody/x",
    ):
        for stream in (False, True):
            worker.call("chat", {"model": model, "messages": HELLO, "stream": stream})
    worker.end_input()
    assert worker.exit_code() == 0
    port = re.search(r":(\d+)/", upstream.base_url)
    assert port
    spoken = set(notes.read_text().splitlines())
    provider = {f"socket.connect ('127.0.0.1', {port[1]})", f"look-up ('127.0.0.1', {port[1]})"}
    tried_out = {"socket.bind ('::1', 0)"}  # urllib3 finds out at its import whether there is IPv6, and closes the socket again
    own = {"os.fork"}  # of the template and the engines
    assert spoken <= provider | tried_out | own, spoken - provider
    assert spoken & provider  # the notes were taken


IN_A_SEPARATE_NETWORK = """
import fcntl, json, socket, struct, sys
with socket.socket() as any:  # up with the loopback interface, the only one there is
    fcntl.ioctl(any, 0x8914, struct.pack("16sh14x", b"lo", 1 | 64))
sys.path.insert(0, sys.argv[1])
from tests.support.upstream import Upstream
from tests.support.worker import Worker
with Upstream() as upstream, Worker(env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}) as worker:
    print(json.dumps([worker.chat("openai/gpt-4o-mini", stream=stream)["content"] for stream in (False, True)]))
"""


@pytest.mark.rule("SEC-12")
def test_it_needs_no_network_except_the_route_to_its_provider() -> None:
    """In a network namespace with a loopback interface and nothing else, not even a way to a name server."""
    alone = ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody make a network namespace; the test above holds the same rule")
    root = str(Path(__file__).parents[2])
    done: subprocess.CompletedProcess[Any] = subprocess.run(
        [*alone, sys.executable, "-I", "-c", IN_A_SEPARATE_NETWORK, root],
        capture_output=True,
        timeout=3 * WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    plain, streamed = json.loads(done.stdout)
    assert plain == streamed


@pytest.mark.rule("SEC-10")
def test_the_launcher_clears_each_variable_that_cpython_reads() -> None:
    """By the names in the interpreter's own binary and standard library, so that a newer Python's are found."""
    binaries = {
        Path(sys.executable).resolve(),
        Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("INSTSONAME")),
    }
    name = rb"(?<![A-Za-z0-9_])(_?PYTHON[A-Z0-9_]{2,})(?![A-Za-z0-9_])"
    read = {found.decode() for path in binaries if path.is_file() for found in re.findall(name, path.read_bytes())}
    for path in Path(sysconfig.get_path("stdlib")).glob("*.py"):
        read |= set(re.findall(r"environ[^\n]{0,12}[\"'](_?PYTHON[A-Z0-9_]+)[\"']", path.read_text(errors="ignore")))
    launcher = Path(__file__).parents[2] / "bin/omni-bridge"
    cleared = set(re.search(r"^unset ((?:.|\\\n)*?[^\\])$", launcher.read_text(), re.MULTILINE)[1].split())  # type: ignore[index]
    assert len(read) > 20
    assert read - {"PYTHON_CLASSMETHOD"} <= cleared  # a name in a regular expression's way, not a variable
    assert {"PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__"} <= cleared
    assert all(variable.startswith(INTERPRETER_VARIABLES) for variable in cleared - {"\\"})
