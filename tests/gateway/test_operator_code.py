"""The operator's own code next to the config: callbacks and providers, as the gateway loads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.data import HELLO
from tests.support.gateway_config import deployment, write
from tests.support.otlp_collector import Collector
from tests.support.upstream import Upstream
from tests.support.worker import Worker, wait_until

CODE = """
import asyncio
from pathlib import Path
import litellm
from litellm import CustomLLM
from litellm.integrations.custom_batch_logger import CustomBatchLogger
from litellm.integrations.custom_logger import CustomLogger

SEEN = Path(__file__).with_name("seen.txt")


class Handler(CustomLogger):
    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        with SEEN.open("a") as file:
            file.write(kwargs["model"] + "\\n")


class House(CustomLLM):
    async def acompletion(self, *args, model, messages, model_response, **kwargs):
        model_response.model = model
        message = litellm.Message(role="assistant", content="from the house: " + messages[-1]["content"])
        model_response.choices = [litellm.Choices(finish_reason="stop", message=message)]
        model_response.usage = litellm.Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
        return model_response


class Batch(CustomBatchLogger):
    def __init__(self):
        super().__init__(flush_lock=asyncio.Lock(), flush_interval=3600)

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.log_queue.append(kwargs["model"])

    async def async_send_batch(self):
        Path(__file__).with_name("batches.txt").write_text(" ".join(self.log_queue))


batch = Batch()
proxy_handler_instance = Handler()
house = House()
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("code")


@pytest.fixture(scope="module")
def worker(upstream: Upstream, folder: Path) -> Iterator[Worker]:
    (folder / "custom_code.py").write_text(CODE)
    (folder / "custom_code.py").chmod(0o600)
    config = {
        "model_list": [
            deployment(upstream, "plain", "one"),
            {"model_name": "house", "litellm_params": {"model": "house/anything"}},
        ],
        "litellm_settings": {
            "callbacks": ["custom_code.proxy_handler_instance", "custom_code.Handler", "custom_code.gone", "not_there.handler"],
            "custom_provider_map": [{"provider": "house", "custom_handler": "custom_code.house"}],
        },
    }
    path = write(folder / "gateway.yaml", config)
    path.chmod(0o600)
    with Worker("--config", str(path)) as worker:
        yield worker


@pytest.mark.rule("CFG-11")
def test_a_callback_of_the_operators_hears_of_each_chat_also_after_a_reload_and_once(worker: Worker, folder: Path) -> None:
    seen = folder / "seen.txt"
    worker.chat("plain")
    wait_until(lambda: seen.is_file() and seen.read_text() == "one\n", "the callback is called")
    assert worker.call("config/reload")["result"]["restart_needed"] == []
    worker.chat("plain", stream=True)
    wait_until(lambda: seen.read_text() == "one\none\n", "the callback is called once for each chat")


@pytest.mark.rule("CFG-11")
def test_a_provider_of_the_operators_serves_chats(worker: Worker) -> None:
    result = worker.chat("house", "hello")
    assert (result["content"], result["provider"]) == ("from the house: hello", "house")


@pytest.mark.rule("CFG-10", "CFG-11")
def test_code_that_can_not_be_used_is_reported_with_its_place_and_the_rest_is_served(worker: Worker) -> None:
    warnings = worker.call("config/reload")["result"]["warnings"]
    reasons = ("custom_code.Handler is a class", "custom_code has no gone", "not_there.py is not next to the config")
    for reason in reasons:
        (warning,) = (warning for warning in warnings if reason in warning)
        assert warning.startswith("gateway.yaml:")
    assert "result" in worker.call("chat", {"model": "plain", "messages": HELLO})


@pytest.mark.rule("CFG-11")
def test_code_that_others_can_write_to_is_not_run(worker: Worker, folder: Path) -> None:
    other = folder / "loose.py"
    other.write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\nhandler = print\n")
    other.chmod(0o666)
    config = (folder / "gateway.yaml").read_text().replace("not_there.handler", "loose.handler")
    (folder / "gateway.yaml").write_text(config)
    warnings = json.dumps(worker.call("config/reload")["result"]["warnings"])
    assert "loose.handler can't be loaded: loose.py is writable by" in warnings
    assert not (folder / "ran").exists()


@pytest.mark.rule("CFG-11")
def test_what_callbacks_gather_for_a_batch_is_sent_before_the_worker_ends(upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "custom_code.py").write_text(CODE)
    (tmp_path / "custom_code.py").chmod(0o600)
    settings = {"callbacks": ["custom_code.batch", "otel"]}
    path = write(tmp_path / "gateway.yaml", {"model_list": [deployment(upstream, "plain", "one")], "litellm_settings": settings})
    path.chmod(0o600)
    with Collector() as collector:
        env = {"OTEL_EXPORTER": "otlp_http", "OTEL_ENDPOINT": f"{collector.url}/v1/traces", "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
        with Worker("--config", str(path), env=env) as worker:
            worker.chat("plain")
            worker.chat("plain", stream=True)
            worker.end_input()
            assert worker.exit_code() == 0, worker.stderr
        assert (tmp_path / "batches.txt").read_text() == "one one"
        assert sum("gen_ai.request.model" in span.attributes for span in collector.spans) >= 2
