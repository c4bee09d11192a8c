"""The ordinary path: LiteLLM's `acompletion`, or its Router when there is a gateway config. Importing this file imports LiteLLM.

Owns every LiteLLM switch, and every private thing of it that a call relies on (each marked PRIVATE and held by a canary test).
Refuses to know the wire, deadlines, the shape of LiteLLM's answers (`answers`) and what it does on the way (`attempts`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import litellm
from litellm.caching.caching import InMemoryCache  # noqa: F401  # first use would import it on the loop
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER  # PRIVATE: its queue is flushed at exit
from litellm.types.utils import CallTypes

from bridge_worker.backends.litellm import LOGGERS, local_deployment, receipts, request_diff, responses, router
from bridge_worker.backends.litellm.gateway_config import Configured
from bridge_worker.backends.litellm.patches import correctness, hosts  # noqa: F401  # importing them patches LiteLLM
from bridge_worker.backends.local.chat import Local
from bridge_worker.config.gateway import Gateway
from bridge_worker.core.ports import ChatRequest, Delta
from bridge_worker.errors import BridgeError
from bridge_worker.providers.facts import DEFAULT_LOCAL_SERVICES, SERVICE_OF, UNUSABLE_PROVIDERS
from bridge_worker.schema.chat_result import EngineVersion
from bridge_worker.security import url_policy

# One value for every call: a timeout that varies makes LiteLLM build a new client and connection pool each time. The deadlines of a
# request are the bridge's own and usually end it earlier.
REQUEST_TIMEOUT_SECONDS = 600.0
CLOSE_SECONDS = 1.0  # how long a provider's stream may take to close before the caller is told that it has not


class LiteLLM:
    """A `Model`, set up for ``gateway``; ``complaints`` say what of that LiteLLM does not take.

    ``local`` are the models of this machine, which a deployment may name too; ``local_services`` the providers on this machine that
    a model's name may reach at their default address. Without a gateway's models any model is served by its
    LiteLLM name, with the key and base URL that LiteLLM finds in the environment. ``loop`` is the one it will be used in, None for
    the current one.
    """

    def __init__(
        self,
        gateway: Gateway | None = None,
        local: Local | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        local_services: frozenset[str] = DEFAULT_LOCAL_SERVICES,
    ) -> None:
        _quieten()
        receipts.watch()
        self.engine = EngineVersion(name="litellm", version=litellm_version())
        if local is not None:
            local_deployment.register(local)
        self._configured = Configured(gateway or Gateway(), loop)
        self._router: Any = self._configured.router
        self.complaints = self._configured.complaints
        self._chats, self._retired = 0, False
        self._permitted_before = hosts.permit(local_services | _providers_of(gateway))
        _quieten()  # the last word: the gateway's settings may have said otherwise

    def put_in_force(self) -> None:
        """After a reload, with the new policy of URLs."""
        _quieten()

    def take_back(self) -> None:
        """It will not be served after all: LiteLLM is again as it was before."""
        self._configured.take_back()
        hosts.permit(self._permitted_before)

    def retire(self) -> None:
        """No chat comes any more; LiteLLM forgets the Router when the last one has ended."""
        self._retired = True
        self._forget_if_done()

    def _forget_if_done(self) -> None:
        if self._retired and self._chats == 0:
            self._configured.discard()

    @property
    def router(self) -> Any:
        """For what is not a chat; None without settings."""
        return self._router

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        request.receipt.engine = self.engine
        self.check_model(request.model)
        streamed = False
        self._chats += 1
        record = receipts.Record(request.model, request.receipt, request_diff.asked_of(request), CallTypes.acompletion)
        try:
            answer = await self._complete(request)  # cancelled here, LiteLLM's clients close their connection by themselves
            if not request.stream:
                delta = responses.whole(answer, record.target)
                record.end("ok")
                yield delta
                return
            request.upstream_open = True
            facts = Delta()
            try:
                async for chunk in answer:
                    delta = responses.piece(chunk, facts)
                    streamed = streamed or bool(delta.content or delta.reasoning or delta.tool_calls)
                    yield delta
            finally:
                request.upstream_open = not await close(answer)
            last = responses.stream_end(answer, facts, record.target, streamed=streamed)
            record.end("ok")
            yield last
        except Exception as error:
            fault = record.fault(error, streamed=streamed)
            record.end(fault.kind, fault.status)
            raise fault from error
        finally:
            record.end("cancelled")
            self._chats -= 1
            self._forget_if_done()

    async def aclose(self) -> None:
        """Flushes LiteLLM's callbacks and closes its connections."""
        with suppress(TimeoutError):
            await asyncio.wait_for(GLOBAL_LOGGING_WORKER.flush(), 2)
        await GLOBAL_LOGGING_WORKER.stop()
        await litellm.close_litellm_async_clients()

    async def _complete(self, request: ChatRequest) -> Any:
        options = dict(request.options)
        if "metadata" in options:
            options["metadata"] = router.metadata(options["metadata"])
        if request.stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        # PRIVATE: else tools need the mcp package, and could be run here instead of by the agent.
        options["_skip_mcp_handler"] = True
        if self._router:
            return await self._router.acompletion(model=request.model, messages=request.messages, **options)
        return await litellm.acompletion(
            model=request.model, messages=request.messages, timeout=REQUEST_TIMEOUT_SECONDS, max_retries=0, **options
        )

    def check_model(self, model: str) -> None:
        """Raises BridgeError ``model_not_found`` for a name that is not served, whatever it is asked for."""
        if self._router is not None:
            if not router.serves(self._router, model):
                raise BridgeError("model_not_found", f"there is no {model!r:.100} in the config's model_list", model=model)
        elif (provider := model.split("/")[0]) in UNUSABLE_PROVIDERS:
            reason = UNUSABLE_PROVIDERS[provider]
            raise BridgeError("model_not_found", f"{provider} can't be used through the bridge: {reason}", model=model)
        else:
            hosts.base_url(provider)

    def alternatives(self, model: str) -> list[str]:
        """``model``, and what the Router may ask in its place, and in the place of that."""
        router, kinds = self._router, ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
        rows = [row for kind in kinds for row in getattr(router, kind, None) or ()]
        names = [model]
        for name in names:  # grows on the way
            meant = [other for row in rows for key, others in row.items() if key in (name, "*") for other in others]
            names += [other for other in dict.fromkeys(meant) if isinstance(other, str) and other not in names]
        return names


def _providers_of(gateway: Gateway | None) -> frozenset[str]:
    """Those that the config's deployments name: the operator has permitted them by it. A deployment ``*`` names none."""
    deployments = (gateway.router or {}).get("model_list", ()) if gateway else ()
    given = (deployment["litellm_params"] for deployment in deployments)
    named = (params.get("custom_llm_provider") or str(params["model"]).partition("/")[0] for params in given)
    return frozenset(SERVICE_OF.get(provider, provider) for provider in named)


def litellm_version() -> str:
    from importlib.metadata import version  # 40 ms, so not on the way to the first answer

    return version("litellm")


def warm_up() -> None:
    """Does once, in the calling thread, what would else stall the loop for half a second at the first call."""

    async def first_calls() -> None:
        call: dict[str, Any] = {"model": "openai/warm-up", "messages": [{"role": "user", "content": "hi"}], "mock_response": "hi"}
        await litellm.acompletion(**call, _skip_mcp_handler=True)
        async for _ in await litellm.acompletion(**call, stream=True, _skip_mcp_handler=True):
            pass
        await GLOBAL_LOGGING_WORKER.flush()
        await GLOBAL_LOGGING_WORKER.stop()

    _quieten()
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(ThreadPoolExecutor(1))
        runner.run(first_calls())


def warm_up_openai() -> None:
    """The same for the openai package, which LiteLLM has for Azure, embeddings and some others: 500 modules, 0.4 s."""
    from openai import AsyncOpenAI

    _ = AsyncOpenAI(api_key="none").chat.completions


def _quieten() -> None:
    """LiteLLM prints and logs to stdout by design. The descriptor is guarded all the same; this keeps the log readable."""
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    litellm.disable_hf_tokenizer_download = True  # a blocking download with retries, up to 47 s
    litellm.redact_messages_in_exceptions = True
    litellm.user_url_validation = True  # what LiteLLM fetches itself: it checks every address and redirect, not only the name
    litellm.user_url_allowed_hosts = sorted(url_policy.policy.allowed_hosts)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.CRITICAL)  # its lines hold prompts, keys and tracebacks; what matters of them is raised as well


async def close(stream: Any) -> bool:
    """True when it is closed. In a task of its own, because a cancel that comes meanwhile must not leave it half done."""
    closing = asyncio.ensure_future(stream.aclose())
    done, _ = await asyncio.wait({closing}, timeout=CLOSE_SECONDS)
    return bool(done) and closing.exception() is None
