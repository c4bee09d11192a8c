"""What bin/build-bundle makes, unpacked on a machine that has no Python: a root folder with glibc and nothing else.

One bundle is built for this file (half a minute of a core), and one more to see that it is the same.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundle import contents
from bundle.__main__ import verify
from tests.support.bare_root import BareRoot
from tests.support.data import ROOT
from tests.support.upstream import Upstream
from tests.support.worker import WAIT_SECONDS, Worker, pass_the_tests_of_the_process

FOLDER = "/opt/Mein Agent – 代理"
PROGRAM = f"{FOLDER}/omni-bridge/omni-bridge"
PYTHON = f"{FOLDER}/omni-bridge/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if sys.platform != "linux":
        pytest.skip("bundles are made on Linux; docs/packaging.md says what to do elsewhere")
    out = tmp_path_factory.mktemp("bundle") / "dist"
    done = subprocess.run(
        [sys.executable, "-m", "bundle", "--out", str(out)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.tar.gz")
    yield made
    shutil.rmtree(out)  # pytest keeps the folders of three runs, and this is 400 MB a run


@pytest.fixture(scope="module")
def bare(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareRoot]:
    """With the archive unpacked, in a folder with spaces and letters of other scripts in its name."""
    bare = BareRoot(tmp_path_factory.mktemp("bare") / "root")
    folder = bare.folder / FOLDER.lstrip("/")
    folder.mkdir(parents=True)
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="tar")
    for above in (*folder.parents, folder):
        if above.is_relative_to(bare.folder):
            above.chmod(0o755)
    (bare.folder / "omni").symlink_to(PROGRAM)
    yield bare
    shutil.rmtree(bare.folder)


@pytest.fixture(scope="module")
def unpacked(bare: BareRoot) -> Path:
    """The same folder, as this machine sees it."""
    return bare.folder / FOLDER.lstrip("/") / "omni-bridge"


@pytest.fixture(scope="module")
def manifest(unpacked: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((unpacked / "manifest.json").read_text(encoding="utf-8"))
    return read


@pytest.fixture
def inside(bare: BareRoot) -> Iterator[Any]:
    """Starts a worker in there, with nothing in its environment but what is given."""
    started: list[Worker] = []

    def start(*, tmp: bool = True, **env: str) -> Worker:
        started.append(Worker(command=bare.command(PROGRAM, env=env, tmp=tmp)))
        return started[-1]

    yield start
    for worker in started:
        worker.close()


# ---- where there is no Python ------------------------------------------------------------------------------------------------


def test_it_serves_with_an_empty_environment_under_another_user(inside: Any) -> None:
    worker = inside()
    assert worker.call("initialize", {"protocolVersion": "omni-bridge/1"})["result"]["serverInfo"]["name"] == "omni-bridge"
    assert worker.chat("offline/echo", "ключ 鍵")["content"] == "ключ 鍵"
    status = Path(f"/proc/{worker.process.pid}/status").read_text()  # the child that was started is the worker itself
    assert re.search(r"^Name:\s+python3", status, re.MULTILINE), status
    assert re.search(r"^Uid:\s+65534\s", status, re.MULTILINE) or os.geteuid(), status
    worker.end_input()
    assert worker.exit_code() == 0
    assert worker.stderr == ""


# Prints how many modules the import of LiteLLM loads: without deferred imports 2,000.
COUNT = """
import sys
from bridge_worker.backends.litellm import setup
setup.set_environment()
setup.defer_imports()
import litellm
print(sum(name.partition(".")[0] in ("litellm", "openai") for name in sys.modules))
litellm.Router
"""


def test_litellm_is_loaded_as_it_is_used(bare: BareRoot) -> None:
    done = subprocess.run(bare.command(PYTHON, "-I", "-c", COUNT), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert 50 < int(done.stdout) < 400


@pytest.mark.parametrize("tmp", [True, False], ids=["with-tmp", "nothing-can-be-written"])
def test_it_chats_with_a_provider_through_litellm(inside: Any, upstream: Upstream, tmp: bool) -> None:
    worker = inside(tmp=tmp, OPENAI_API_KEY="sk-secret-123", OPENAI_BASE_URL=upstream.base_url)
    for stream in (False, True):
        assert worker.chat("openai/gpt-4o-mini", stream=stream)["usage"]["input_tokens"]
    counted = worker.call("tokens/count", {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]})
    assert counted["result"], worker.stderr
    worker.end_input()
    assert (worker.exit_code(), worker.stderr) == (0, "")


def test_a_link_to_it_works_and_so_does_a_relative_path(bare: BareRoot) -> None:
    for command in (bare.command("/omni", "--version"), bare.command(f".{PROGRAM}", "--version")):
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("omni-bridge ")


# The chat configuration of each provider that LiteLLM names, and whether its modules can be imported: all, or those that are given.
PROVIDERS = """
import contextlib, importlib, io, json, os, pkgutil, sys
from bridge_worker.backends.litellm import setup
setup.set_environment()
setup.defer_imports()
import litellm
from litellm.types.utils import LlmProviders
from litellm.utils import ProviderConfigManager

configs = {}
for provider in LlmProviders:
    try:
        configs[provider.value] = type(ProviderConfigManager.get_provider_chat_config("some-model", provider)).__name__
    except Exception as error:
        configs[provider.value] = f"{type(error).__name__}: {error}"
modules = {}
given = json.loads(sys.argv[1])
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    for module in pkgutil.walk_packages(litellm.__path__, "litellm.", onerror=lambda name: None):
        if given is not None and module.name not in given:
            modules[module.name] = "not tried"
        elif not module.name.startswith("litellm.proxy."):
            try:
                importlib.import_module(module.name)
                modules[module.name] = "imported"
            except BaseException as error:
                modules[module.name] = type(error).__name__
print(json.dumps({"providers": sorted(map(str, litellm.provider_list)), "configs": configs, "modules": modules}))
sys.stdout.flush()
os._exit(0)
"""


def test_every_provider_that_litellm_names_is_in_it(bare: BareRoot) -> None:
    """Its chat configuration, and each module of LiteLLM's: one that can't be imported there can't be imported either where LiteLLM
    is installed and loaded without deferred imports."""
    flags = ["-I", "-X", "utf8", "-W", "ignore", "-c", PROVIDERS]

    def run(command: list[str], modules: list[str] | None) -> Any:
        done = subprocess.run(
            [*command, json.dumps(modules)], capture_output=True, text=True, timeout=10 * WAIT_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    there = run(bare.command(PYTHON, *flags, env={"HOME": "/tmp"}), None)  # two providers make a folder there
    failed = [name for name, result in there["modules"].items() if result != "imported"]
    here = run(["env", "OMNI_BRIDGE_EAGER=1", sys.executable, *flags], failed)
    assert there["providers"] == here["providers"]
    assert len(there["providers"]) > 100
    assert there["configs"] == here["configs"]
    assert len([config for config in there["configs"].values() if config != "NoneType"]) > 80
    assert [name for name in failed if here["modules"][name] == "imported"] == []
    assert [name for name in here["modules"].keys() - there["modules"].keys() if not name.startswith("litellm.proxy.")] == []
    assert list(there["modules"].values()).count("imported") > 700


# ---- what is in it -----------------------------------------------------------------------------------------------------------


def test_its_manifest_lists_its_content_and_its_requirements(unpacked: Path, manifest: dict[str, Any]) -> None:
    for name in ("litellm", "pydantic", "jsonrpcserver", "pyyaml", "redis", "opentelemetry-sdk"):
        assert manifest["parts"][name] == importlib.metadata.version(name)
    assert tuple(map(int, manifest["glibc"].split("."))) <= tuple(map(int, platform.libc_ver()[1].split(".")))
    bill = json.loads((unpacked / "sbom.json").read_text(encoding="utf-8"))
    assert {component["name"] for component in bill["components"]} == {*manifest["parts"], "CPython"}
    graph = {node["ref"]: node.get("dependsOn", []) for node in bill["dependencies"]}
    assert {ref for needed in graph.values() for ref in needed} <= set(graph)


def test_each_part_has_its_licence(unpacked: Path, manifest: dict[str, Any]) -> None:
    texts = {file.stem: file.read_text(encoding="utf-8", errors="replace") for file in (unpacked / "licenses").iterdir()}
    assert set(texts) == {*manifest["parts"], "python", "omni-bridge"}
    assert [
        name
        for name, text in texts.items()
        if not re.search("licen[cs]e|permission|redistribution|public domain", text, re.IGNORECASE)
    ] == []


def test_omitted_parts_are_reported_and_absent(unpacked: Path, manifest: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "packaging.md").read_text(encoding="utf-8")
    files = [
        file.relative_to(unpacked / contents.SITE).as_posix() for file in (unpacked / contents.SITE).rglob("*") if file.is_file()
    ]
    for rule in contents.FROM_PACKAGES:
        assert manifest["left_out"][rule.reason] == list(rule.patterns)
        assert rule.reason in page
        there = [file for pattern in rule.patterns for file in fnmatch.filter(files, pattern)]
        assert [file for file in there if not any(fnmatch.fnmatchcase(file, kept) for kept in contents.KEPT)] == []
    assert [file for file in files if file.endswith(".py")] == []


def test_its_checksums_are_right_and_no_folder_of_this_machine_is_in_it(archive: Path, unpacked: Path) -> None:
    for folder, sums in ((unpacked, unpacked / "SHA256SUMS"), (archive.parent, Path(f"{archive}.sha256"))):
        done = subprocess.run(["sha256sum", "--quiet", "--strict", "--check", sums], cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout
    listed = {line.split("  ", 1)[1] for line in (unpacked / "SHA256SUMS").read_text(encoding="utf-8").splitlines()}
    assert listed == {file.relative_to(unpacked).as_posix() for file in unpacked.rglob("*") if file.is_file()} - {"SHA256SUMS"}
    words = [str(ROOT).encode(), str(archive.parents[1]).encode()]
    assert [file for file in unpacked.rglob("*") if file.is_file() and any(word in file.read_bytes() for word in words)] == []


USE_THE_EXTRAS = """
import redis.asyncio
from opentelemetry import context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
context.get_current()  # found by an entry point
TracerProvider().get_tracer("x").start_span("y").end()
"""


def test_the_extras_are_in_it(bare: BareRoot) -> None:
    done = subprocess.run(bare.command(PYTHON, "-I", "-c", USE_THE_EXTRAS), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_modified_file_is_not_shipped(tmp_path: Path) -> None:
    """What was added at the end, as some networks do with certificates, is left off; any other change stops the build."""
    package = importlib.metadata.distribution("certifi")
    (file,) = [file for file in package.files or [] if file.name == "core.py"]
    copied = tmp_path / file
    copied.parent.mkdir()
    published = Path(str(file.locate())).read_bytes()
    copied.write_bytes(published + b"# one more line\n")
    metadata = tmp_path / "certifi-1.dist-info"
    metadata.mkdir()
    assert file.hash
    (metadata / "RECORD").write_text(f"{file},{file.hash.mode}={file.hash.value},{len(published)}\n")
    (changed,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert [source.read_bytes() for _, source in contents.files_of(changed, tmp_path)] == [published]
    copied.write_bytes(published.replace(b"def", b"dev"))
    with pytest.raises(ValueError, match="not what was installed"):
        list(contents.files_of(changed, tmp_path))


# ---- that it is the same thing -------------------------------------------------------------------------------------------------


def test_made_elsewhere_it_is_the_same_byte_for_byte(archive: Path) -> None:
    verify(archive, with_local=False)


def test_it_passes_the_tests_of_the_process(unpacked: Path) -> None:
    pass_the_tests_of_the_process(unpacked / "omni-bridge", besides="no_influence")


def test_its_errors_name_the_package_that_has_local_models(inside: Any) -> None:
    worker = inside()
    error = worker.call("chat", {"model": "local/smollm2", "messages": [{"role": "user", "content": "hello"}]})["error"]
    assert error["data"]["kind"] == "model_not_found"
