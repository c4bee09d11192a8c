"""Fixtures that more than one test file uses."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from bridge_worker.backends.litellm import setup
from bridge_worker.security.url_policy import UrlPolicy
from tests.support import worker as worker_process
from tests.support.data import Json
from tests.support.fork_server import ForkServer
from tests.support.gateway_config import write
from tests.support.upstream import Upstream
from tests.support.worker import Worker

if eager := os.environ.get("TEST_EAGER"):
    os.environ["OMNI_BRIDGE_EAGER"] = eager  # in this process as in the workers
pytest.register_assert_rewrite("tests.support.cases")  # it asserts, but is no test module
# How long an example takes says as much about the machine as about the code. A test that bounds time sets its deadline itself.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

Spawn = Callable[..., Worker]  # for one test
WorkerFor = Callable[..., Worker]  # for the tests of a file
_IMPORTS_LITELLM = re.compile(r"^(?:from|import) (?:litellm|bridge_worker\.backends\.litellm)\b", re.MULTILINE)


def pytest_pycollect_makemodule(module_path: Path) -> None:
    """LiteLLM in the tests' own process is prepared as in a worker, before a test file imports it."""
    if _IMPORTS_LITELLM.search(module_path.read_text(encoding="utf-8")):
        setup.prepare(UrlPolicy())


# The simulation replaces clocks, pipes and threads of its process, so it runs before other tests leave threads there. The others
# take more than 20 s of CPU: files are given to the test processes in order, and a long one that begins last would keep one core
# busy while the other has no test left.
FIRST = (
    "simulation/test_simulation.py",
    "contract/test_docs.py",
    "packaging/test_bundle.py",
    "packaging/test_benchmarks.py",
    "packaging/test_launcher.py",
    "packaging/test_wheel.py",
    "process/test_load.py",
    "process/test_kill_matrix.py",
    "gateway/test_files.py",
    "process/test_every_provider.py",
    "process/test_bounded_work.py",
    "process/test_kinds.py",
    "gateway/test_proxy.py",
    "process/test_process.py",
    "process/test_engines.py",
    "providers/test_local.py",
)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """More than there are cores: a third of the time of the suite is waiting for processes that end, hang or time out. Unit tests
    wait for nothing."""
    cores = os.cpu_count() or 1
    return cores if all("tests/unit" in argument for argument in config.args) else max(2, cores * 3 // 2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {Path(__file__).parent / name: position for position, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(item.path, len(FIRST)))


def pytest_collection_finish() -> None:
    """What the collection made lives as long as the process: no garbage collection looks at it again, of which pytest runs ten at
    the end. That saves each test process a second of CPU."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """A provider that speaks OpenAI's wire format, one for the tests of a file; each test begins without requests and scripts."""
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(autouse=True)
def forgotten_requests(request: pytest.FixtureRequest) -> None:
    if "upstream" in request.fixturenames and isinstance(upstream := request.getfixturevalue("upstream"), Upstream):
        upstream.forget()


# Tests of anything but a worker's start: their workers are forked from a process that has LiteLLM imported, which saves each
# 1.5 s of CPU. All others start theirs.
FORKED = (
    "contract/",
    "fuzz/",
    "gateway/",
    "providers/",
    "process/test_cancel.py",
    "process/test_chaos.py",
    "process/test_client_keys.py",
    "process/test_engines.py",
    "process/test_faults.py",
    "process/test_fuzz.py",
    "process/test_hosts.py",
    "process/test_kill_matrix.py",
    "process/test_kinds.py",
    "process/test_logs.py",
    "process/test_odd_params.py",
    "process/test_once.py",
    "process/test_record_and_replay.py",
    "process/test_security.py",
    "process/test_telemetry.py",
    "process/test_trace.py",
)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    with contextlib.closing(ForkServer(worker_process.clean_environment())) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def started_or_forked(request: pytest.FixtureRequest) -> Iterator[None]:
    name = request.path.relative_to(Path(__file__).parent).as_posix()
    has_other_start = sys.platform != "linux" or os.environ.keys() & {"OMNI_BRIDGE_UNDER_TEST"}
    if name.startswith(FORKED) and not has_other_start:
        worker_process.fork_server = request.getfixturevalue("fork_server")
    yield
    worker_process.fork_server = None


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts workers, as many as a test wants, and ends them after it."""
    with ExitStack() as stack:
        yield lambda *flags, **options: stack.enter_context(Worker(*flags, **options))


@pytest.fixture(scope="module")
def worker_for(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerFor]:
    """Starts workers that the tests of a file share. ``config`` is a gateway's config."""
    with ExitStack() as stack:

        def start(*flags: str, config: Json | None = None, env: Mapping[str, str] | None = None) -> Worker:
            if config is not None:
                flags = ("--config", str(write(tmp_path_factory.mktemp("gateway") / "gateway.yaml", config)), *flags)
            return stack.enter_context(Worker(*flags, env=env))

        yield start


@pytest.fixture
def worker(upstream: Upstream, spawn: Spawn) -> Worker:
    """A worker with ``upstream`` as the host of its ``openai/...`` models."""
    return spawn(env={"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url})


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def streamed(request: pytest.FixtureRequest) -> bool:
    """A test that takes this holds both modes of a chat, with the same assertions."""
    return bool(request.param)
