"""What LiteLLM's prologue came to for a model and its options, so that it need not run again for the next turn of a conversation.

Owns that memory, of a bounded size. A plan is kept only if it makes the very request again that it was taken from, byte for byte;
it is forgotten when the environment changes, where keys and base URLs are. Refuses to know a provider: it keeps the arguments of
the coroutine that a prologue ends in, and asks LiteLLM's provider class for the body of each further conversation.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
from collections.abc import Callable, Mapping
from types import CoroutineType
from typing import Any

import litellm
from litellm.llms.custom_httpx.llm_http_handler import BaseLLMHTTPHandler
from litellm.types.utils import ModelResponse
from litellm.utils import validate_and_fix_openai_messages

from bridge_worker.core.ports import ChatRequest

MAX_PLANS = 64
Lesson = Callable[[Any, Mapping[str, Any]], None]

_handler = BaseLLMHTTPHandler()


class Plan:
    """Of one model, set of options, and way to be answered."""

    def __init__(self, started: CoroutineType[Any, Any, Any], details: Mapping[str, Any]) -> None:
        """``started`` is what a prologue returned; it is not run here."""
        arguments = inspect.getcoroutinelocals(started)  # of one that has not begun: what it was called with
        self._run = getattr(BaseLLMHTTPHandler, started.cr_code.co_name)
        self._config = arguments["provider_config"]
        self._streams = "model_response" not in arguments
        self._fixed = {name: value for name, value in arguments.items() if name not in ("self", "messages", "data", "headers")}
        self._headers = pickle.dumps(arguments["headers"])
        self._params = pickle.dumps((arguments["optional_params"], arguments["litellm_params"]))
        self._details = dict(details)
        self.model: str = arguments["model"]

    def body(self, messages: list[dict[str, Any]]) -> tuple[list[Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
        """As the prologue makes it, with the messages, params and headers that it was made with."""
        prepared = self._config.translate_developer_role_to_system_role(messages=validate_and_fix_openai_messages(messages))
        optional_params, litellm_params = pickle.loads(self._params)  # noqa: S301  # our own; a copy, as LiteLLM writes into it
        headers = pickle.loads(self._headers)  # noqa: S301
        body = self._config.transform_request(
            model=self.model,
            messages=prepared,
            optional_params=optional_params,
            litellm_params=litellm_params,
            headers=headers,
        )
        if self._streams and self._config.supports_stream_param_in_request_body:
            body["stream"] = True
        return prepared, body, {"optional_params": optional_params, "litellm_params": litellm_params}, headers

    def begin(self, messages: list[dict[str, Any]], call: Any, client: Any) -> CoroutineType[Any, Any, Any]:
        """What the prologue would return."""
        prepared, body, params, headers = self.body(messages)
        call.update_environment_variables(**self._details)
        call.pre_call(prepared, None, {"complete_input_dict": body})
        arguments = self._fixed | params | {"messages": prepared, "data": body, "headers": headers}
        arguments |= {"logging_obj": call, "client": client}
        if not self._streams:
            arguments["model_response"] = response = ModelResponse()
            response.usage = litellm.Usage()
            response._hidden_params["custom_llm_provider"] = arguments["custom_llm_provider"]
        made: CoroutineType[Any, Any, Any] = self._run(_handler, **arguments)
        return made


class Plans:
    def __init__(self) -> None:
        self._plans: dict[str, Plan | None] = {}
        self._environment: Mapping[Any, Any] = {}

    def key(self, request: ChatRequest) -> str | None:
        """None for what has parts that the prologue itself looks into."""
        environment = os.environ._data  # type: ignore[attr-defined]  # PRIVATE: of CPython; comparing it costs a microsecond
        if environment != self._environment:
            self._environment = dict(environment)
            self._plans.clear()
        if any(has_file(message) for message in request.messages):
            return None
        return json.dumps([request.model, request.stream, request.options])

    def find(self, key: str | None) -> Plan | None:
        return None if key is None else self._plans.get(key)

    def lesson(self, key: str | None, messages: list[dict[str, Any]]) -> Lesson | None:
        """To be asked before the prologue runs, which writes into messages, and called with what it came to."""
        if key is None or key in self._plans:
            return None
        untouched = pickle.dumps(messages)

        def learn(started: CoroutineType[Any, Any, Any], details: Mapping[str, Any]) -> None:
            while len(self._plans) >= MAX_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = _proved(pickle.loads(untouched), started, details)  # noqa: S301  # our own

        return learn


def _proved(messages: list[dict[str, Any]], started: CoroutineType[Any, Any, Any], details: Mapping[str, Any]) -> Plan | None:
    try:
        plan = Plan(started, details)
        arguments = inspect.getcoroutinelocals(started)
        same = json.dumps(plan.body(messages)[1]) == json.dumps(arguments["data"])
        return plan if same and not arguments.get("fake_stream") and arguments.get("signed_json_body") is None else None
    except Exception:  # whatever it is, LiteLLM's prologue will do
        return None


def has_file(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(part.get("type") == "file" for part in content)
