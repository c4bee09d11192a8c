"""The kill matrix: {server, template, engine, llama.cpp's process} x {SIGKILL, SIGSTOP, SIGSEGV} x {idle, a plain chat, mid-stream,
during a reload, during a fork}. Every cell: each request gets one response, or the pipe closes and the exit code is the signal's;
no process, descriptor or zombie is left.

A run holds the cells of one victim and one signal that share a moment: a plain chat and a stream are in flight together. Runs share
one worker, but for those that end it. `CELLS` names the run of every cell; a test compares it with the product of the three sets.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge_worker.config.local_models import packaged_file
from tests.conftest import Spawn
from tests.support.data import Json
from tests.support.gateway_config import KEY, write
from tests.support.processes import children, descendants, is_zombie
from tests.support.upstream import Upstream
from tests.support.worker import Worker, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="engine processes need Linux")

VICTIMS = ("server", "template", "engine", "llama.cpp")
SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)
MOMENTS = ("idle", "plain chat", "mid-stream", "reload", "fork")
GONE_SECONDS = 2  # after the server process
HANG_SECONDS = "3"  # a busy machine must not look like a hung engine
HELLO = [{"role": "user", "content": "hello"}]
STORY = [{"role": "user", "content": "Tell me a very long story."}]

# The moment that a run makes, by the cell's moment. No cell is left out.
CELLS = {"idle": "idle", "plain chat": "in flight", "mid-stream": "in flight", "reload": "reload", "fork": "fork"}
RUNS = [
    pytest.param(victim, number, moment, id=f"{victim}-{number.name}-{moment}")
    for victim, number, moment in itertools.product(VICTIMS, SIGNALS, dict.fromkeys(CELLS.values()))
]


class Processes(NamedTuple):
    template: int
    engines: dict[int, str]  # the state of each, as `status` has it
    llama: list[int]


class Scene:
    """A worker with one engine and a loaded local model. ``owed`` are the requests that a run has sent."""

    def __init__(self, worker: Worker, upstream: Upstream) -> None:
        self.worker = worker
        self.upstream = upstream
        self.owed: list[int | str] = []
        self.first_template: int | None = None

    def request(self, method: str, **params: object) -> int | str:
        id = self.worker.request(method, dict(params))
        self.owed.append(id)
        return id

    def serves(self, model: str) -> None:
        """A chat works. One with a local model may still meet its process that has ended; the next one loads it again."""
        tokens = {"max_tokens": 2} if model.startswith("local/") else {}

        def outcome_of_next() -> str:
            return outcome(self.worker.response(self.request("chat", model=model, messages=HELLO, **tokens)))

        found = outcome_of_next()
        while found == "provider_unavailable" and tokens:
            found = outcome_of_next()
        assert found == "ok"

    def processes(self) -> Processes:
        """Of a settled worker."""
        rows = self.worker.call("status")["result"]["engines"]
        engines = {row["pid"]: row["state"] for row in rows if row["pid"] is not None}
        llama = sorted(pid for pid in descendants(self.worker.process.pid) if "llama_server" in command_of(pid))
        (template,) = children(self.worker.process.pid) - engines.keys() - set(llama)
        return Processes(template, engines, llama)

    def is_settled(self) -> bool:
        """One engine, one template that is loaded, no zombie, and at most one process of llama.cpp."""
        rows = self.worker.call("status")["result"]["engines"]
        if [row["state"] for row in rows] != ["ready"]:
            return False
        pids = descendants(self.worker.process.pid)
        llama = sum("llama_server" in command_of(pid) for pid in pids)
        if llama > 1 or len(pids) != 2 + llama or any(map(is_zombie, pids)):
            return False
        template = self.processes().template
        loaded = f'"the next template process is loaded", "pid": {template}}}' in self.worker.stderr
        return loaded or template == (self.first_template or template)

    def settle(self) -> None:
        wait_until(self.is_settled, "one engine and one template are left, and no zombie", 120)

    def check_responses(self) -> None:
        for id in self.owed:
            self.worker.response(id)
        responses = [m["id"] for m in self.worker.received if isinstance(m, dict) and "method" not in m]
        assert sorted(map(str, (id for id in responses if id in set(self.owed)))) == sorted(map(str, self.owed))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.worker.process.pid}/fd"))


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def state_of(pid: int) -> str:
    """As in /proc/PID/stat; X for a process that has ended and was reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Callable[[Spawn], Scene]:
    """Starts a worker, with a file that it can read again."""
    deployment = {"model": "openai/*", "api_base": upstream.base_url, "api_key": KEY}
    local = {"small": {"file": str(packaged_file()), "context_tokens": 512, "slots": 2}}
    config = {
        "model_list": [{"model_name": "openai/*", "litellm_params": deployment}],
        "router_settings": {"disable_cooldowns": True, "num_retries": 0},
        "omni_bridge": {"local": local},
    }
    file = write(tmp_path_factory.mktemp("matrix") / "gateway.yaml", config)

    def started(spawn: Spawn) -> Scene:
        flags = ("--engines", "1", "--engine-hang-seconds", HANG_SECONDS, "--config", str(file), "--log-level", "info")
        scene = Scene(spawn(*flags), upstream)
        scene.settle()
        scene.first_template = scene.processes().template
        return scene

    return started


@pytest.fixture(scope="module")
def shared(start: Callable[[Spawn], Scene]) -> Iterator[Scene]:
    workers: list[Worker] = []

    def spawn(*flags: str) -> Worker:
        workers.append(Worker(*flags))
        return workers[0]

    try:
        yield start(spawn)
    finally:
        for worker in workers:
            worker.close()


@pytest.fixture
def scene(request: pytest.FixtureRequest, start: Callable[[Spawn], Scene], spawn: Spawn) -> Scene:
    """Settled, with nothing in flight. A run that ends its worker has one to itself."""
    victim, number = request.node.callspec.params["victim"], request.node.callspec.params["number"]
    if victim == "server" and number is not signal.SIGSTOP:
        return start(spawn)
    scene: Scene = request.getfixturevalue("shared")
    scene.owed = []
    scene.settle()
    if victim == "llama.cpp" and not scene.processes().llama:
        scene.serves("local/small")
    return scene


def test_every_cell_has_its_run() -> None:
    runs = {tuple(run.values) for run in RUNS}
    cells = {(victim, number, CELLS[moment]) for victim, number, moment in itertools.product(VICTIMS, SIGNALS, MOMENTS)}
    assert runs == cells


@pytest.mark.rule("ENG-1", "ENG-2", "ENG-5", "ENG-7", "ENG-9")
@pytest.mark.parametrize(("victim", "number", "moment"), RUNS)
def test_each_request_gets_one_response_and_nothing_is_left(scene: Scene, victim: str, number: signal.Signals, moment: str) -> None:
    before, descriptors = scene.processes(), scene.descriptors()
    template_stopped = moment in ("reload", "fork")
    if template_stopped:  # so that what it is to fork is pending when the signal comes
        stop(before.template)
    in_flight = make(scene, moment, victim, before)
    pid = find(scene, victim, moment, before)
    if template_stopped and victim == "engine" and moment == "fork":
        os.kill(before.template, signal.SIGCONT)
        pid = wait_for_forked(scene, before)
    send(pid, number)
    if template_stopped and victim != "template":
        with suppress(ProcessLookupError):  # it has ended with the server process
            os.kill(before.template, signal.SIGCONT)
    if victim == "server" and number is not signal.SIGSTOP:
        check_end(scene, number, before)
        return
    if victim == "server":
        os.kill(pid, signal.SIGCONT)
    elif number is signal.SIGSTOP and victim == "llama.cpp":
        check_stopped_llama(scene, in_flight, pid)
    elif number is signal.SIGSTOP and victim == "template" and not template_stopped:
        scene.serves("openai/one")  # without a fork, nothing needs it
        os.kill(pid, signal.SIGCONT)
    scene.serves("local/small" if victim == "llama.cpp" else "openai/one")
    for id in in_flight:
        scene.worker.notify("notifications/cancelled", {"requestId": id})
    scene.check_responses()
    scene.settle()
    check_outcomes(scene, victim, number, moment, before)
    wait_until(lambda: scene.descriptors() <= descriptors + (not before.llama) * 3, "no descriptor is left")


# --- the moments -------------------------------------------------------------------------------------------------------------


def make(scene: Scene, moment: str, victim: str, before: Processes) -> list[int | str]:
    """Returns the requests that are in flight until they are cancelled."""
    match moment:
        case "in flight" if victim == "llama.cpp":
            story = {"model": "local/small", "messages": STORY, "temperature": 1.0}
            ids = [scene.request("chat", **story), scene.request("chat", stream=True, **story)]
            scene.worker.wait_for_delta(ids[1])
            return ids
        case "in flight":
            reached = scene.upstream.counts["hang"]
            ids = [
                scene.request("chat", model="openai/hang", messages=HELLO),
                scene.request("chat", model="openai/hang-after-1", messages=HELLO, stream=True),
            ]
            scene.upstream.wait_for_request(model="hang", nth=reached + 1, timeout=60)
            scene.worker.wait_for_delta(ids[1])
            return ids
        case "reload":
            scene.request("config/reload")
            wait_until(lambda: states(scene) == ["ready", "starting"], "the new engine waits for the template")
        case "fork":
            (engine,) = before.engines
            os.kill(engine, signal.SIGKILL)
            wait_until(lambda: states(scene) == ["starting"], "the next engine waits for the template")
            if victim == "llama.cpp" and before.llama and state_of(before.llama[0]) != "X":
                scene.request("chat", model="local/small", messages=HELLO, max_tokens=2)  # waits for the engine
    return []


def states(scene: Scene) -> list[str]:
    return [row["state"] for row in scene.worker.call("status")["result"]["engines"]]


def find(scene: Scene, victim: str, moment: str, before: Processes) -> int:
    match victim:
        case "server":
            return scene.worker.process.pid
        case "template":
            return before.template
        case "engine":
            (engine,) = before.engines
            return engine
    (llama,) = before.llama
    return llama


def wait_for_forked(scene: Scene, before: Processes) -> int:
    """The engine that is being forked: as soon as its process exists."""

    def forked() -> list[int]:
        rows = scene.worker.call("status")["result"]["engines"]
        return [row["pid"] for row in rows if row["pid"] not in (None, *before.engines)]

    wait_until(lambda: bool(forked()), "it is forked")
    return forked()[0]


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state_of(pid) in "TXZ", "it is stopped, or has ended with its engine")


def send(pid: int, number: signal.Signals) -> None:
    if number is signal.SIGSTOP:
        with suppress(ProcessLookupError):
            stop(pid)
        return
    with suppress(ProcessLookupError):  # it has ended with its engine
        os.kill(pid, number)
        if state_of(pid) == "T":
            os.kill(pid, signal.SIGCONT)  # only SIGKILL reaches a process that is stopped
    wait_until(lambda: state_of(pid) in "XZ", "it has ended")


# --- what must hold ----------------------------------------------------------------------------------------------------------


def check_end(scene: Scene, number: signal.Signals, before: Processes) -> None:
    """The pipe is closed, what was sent before is whole lines, and all processes have ended."""
    assert scene.worker.exit_code() == -number
    assert scene.worker.ended
    pids = [before.template, *before.engines, *before.llama]
    wait_until(lambda: all(state_of(pid) in "XZ" for pid in pids), "all processes have ended", GONE_SECONDS)
    responses = [m["id"] for m in scene.worker.received if isinstance(m, dict) and "method" not in m]
    assert len(responses) == len(set(responses))


def check_stopped_llama(scene: Scene, in_flight: list[int | str], pid: int) -> None:
    """A cancel gets its response, which reports that the model still computes; it serves again once it runs again."""
    for id in in_flight:
        scene.worker.notify("notifications/cancelled", {"requestId": id})
    for id in in_flight:
        data = scene.worker.response(id)["error"]["data"]
        assert (data["kind"], data["upstream_closed"]) == ("cancelled", False)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def check_outcomes(scene: Scene, victim: str, number: signal.Signals, moment: str, before: Processes) -> None:
    after, outcomes = scene.processes(), [outcome(scene.worker.response(id)) for id in scene.owed]
    if moment == "in flight":
        assert outcomes[:2] == IN_FLIGHT.get((victim, number), ["cancelled", "cancelled"])
    template_ended = victim == "template" and (number is not signal.SIGSTOP or moment in ("reload", "fork"))
    assert (after.template != before.template) == template_ended, scene.worker.stderr
    if victim != "engine" and moment not in ("reload", "fork"):
        assert after.engines.keys() == before.engines.keys()
    if victim == "engine":
        assert not after.engines.keys() & before.engines.keys()


def outcome(response: Json) -> str:
    return "ok" if "result" in response else str(response["error"]["data"]["kind"])


# Of a plain chat and a stream.
IN_FLIGHT = {
    **{("engine", number): ["engine_lost", "engine_lost"] for number in SIGNALS},
    ("llama.cpp", signal.SIGKILL): ["provider_unavailable", "stream_interrupted"],
    ("llama.cpp", signal.SIGSEGV): ["provider_unavailable", "stream_interrupted"],
}
