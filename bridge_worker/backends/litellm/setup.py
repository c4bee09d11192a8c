"""Prepares LiteLLM for the bridge: every environment variable, logger, switch and patch, in one list.

Owns what the bridge changes of the process and of LiteLLM before the first call. `prepare` comes before every other module of this
package, because LiteLLM reads its environment at import. Refuses to know a config's settings: `gateway_config` applies those.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from bridge_worker.deferred_imports import hook as deferred_imports
from bridge_worker.security.url_policy import UrlPolicy

# LiteLLM reads these at import. A value that the operator has set wins.
ENVIRONMENT = {
    "LITELLM_MODE": "PRODUCTION",  # else it loads any .env file between the working directory and the root
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices over the network at import, and retries in a thread
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # the same for a list of header names, at the first call
    "LITELLM_DISABLE_BUG_REPORT_LINK": "true",  # else a link to its issue tracker is in every error message
    "HF_HUB_OFFLINE": "1",  # else a tokenizer download can freeze the loop for 47 s
    "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",  # else a stream with 100 equal chunks, such as a ruled line, is killed
    "AIOHTTP_CONNECTOR_LIMIT": "8192",  # else streams beyond 500 a host wait in a queue without a log line
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "4096",
    "DEFAULT_MAX_RETRIES": "0",  # else an embedding that fails is tried twice more: a max_retries of 0 counts as none given there
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",  # LiteLLM's own HTTP path for OpenAI: half the CPU a call and a chunk
}
REMOVED = (
    "JSON_LOGS",  # hangs a handler on the root logger and replaces sys.excepthook
    "LITELLM_PRINT_STANDARD_LOGGING_PAYLOAD",  # prints every prompt
    "LITELLM_LOG",  # an unknown value in it breaks the import; --log-level is the switch here
)
LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")  # their lines hold prompts, keys and tracebacks
# Aliases of other packages: LiteLLM looks whether their namespaces have a `__getattr__`.
NOT_DEFERRED = ("litellm.experimental_mcp_client", "litellm.proxy._experimental.mcp_server")
CONSTANTS = {
    # The tokenizer of older Claude models as text, for which its file is parsed and written: 0.08 s and 16 MB that few calls use.
    "litellm.utils": ("json_data", "claude_json_str"),
    # aiohttp's own TLS contexts, 0.04 s: LiteLLM gives it another one.
    "aiohttp.connector": ("_SSL_CONTEXT_VERIFIED", "_SSL_CONTEXT_UNVERIFIED"),
}
# A thousand pydantic models and dataclasses, of which a chat needs some: each is made when it is used. 0.2 s of a first chat.
LATE_TYPES = ("litellm",)
# Attributes of the litellm module. It prints and logs to stdout by design; fd 1 is stderr, and these keep the log readable.
SWITCHES = {
    "suppress_debug_info": True,
    "set_verbose": False,
    "disable_hf_tokenizer_download": True,  # a blocking download with retries, up to 47 s
    "redact_messages_in_exceptions": True,
    "user_url_validation": True,  # where LiteLLM itself fetches a URL it checks every address and redirect, not only the name
}


def prepare(policy: UrlPolicy) -> None:
    """Imports LiteLLM. Repeating it changes nothing. Raises UnsafeError where a security patch does not fit."""
    set_environment()
    defer_imports()
    leave_out_httpx_command()
    quieten_loggers()
    name_a_temporary_folder()
    set_switches(policy)
    apply_patches()


def degraded() -> list[dict[str, str]]:
    """The rows of ``status.degraded``: what of the bridge does not fit the installed LiteLLM. Imports nothing."""
    found = (sys.modules.get(f"bridge_worker.backends.litellm.{name}") for name in ("patches.table", "rehearsal"))
    return [row for module in found for row in getattr(module, "degraded", list)()]


def set_environment() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in REMOVED:
        os.environ.pop(name, None)


def defer_imports() -> None:
    """LiteLLM loads, makes and computes what a call uses: an eighth of the CPU and a third of the memory of its import."""
    if os.environ.get("OMNI_BRIDGE_EAGER") == "1":
        return
    deferred_imports.install(read_digests(), NOT_DEFERRED, CONSTANTS, LATE_TYPES)


def read_digests() -> dict[str, str]:
    """Package -> the digest of the sources that deferred imports were tested with. `bin/generate.py` writes the file."""
    with open(os.path.join(os.path.dirname(__file__), "deferred_sources.json"), encoding="utf-8") as file:
        digests: dict[str, str] = json.load(file)
    return digests


def leave_out_httpx_command() -> None:
    """httpx imports its command line if rich and click are installed: 30 ms and 5 MB. It continues without."""
    if "httpx" not in sys.modules:
        sys.modules["httpx._main"] = None  # type: ignore[assignment]  # importlib raises ImportError for it


def quieten_loggers() -> None:
    """Call it before the import, which otherwise logs to stdout in a host with a root logger at level debug, and after it, because
    LiteLLM adds handlers. LiteLLM also raises the important lines as exceptions."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.CRITICAL)


def name_a_temporary_folder() -> None:
    """LiteLLM looks one up at import, which fails where no folder can be written to, as in a read-only container.

    It only puts tokens of some log-ins there, so a name is enough: then those log-ins fail, and nothing else does.
    """
    import tempfile  # 10 ms, and a file on the disk

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.path.abspath(os.sep + "tmp")


def set_switches(policy: UrlPolicy) -> None:
    """Again after a gateway's settings were applied, which may have set them otherwise."""
    import litellm

    for name, value in SWITCHES.items():
        setattr(litellm, name, value)
    litellm.user_url_allowed_hosts = sorted(policy.allowed_hosts)
    quieten_loggers()


def apply_patches() -> None:
    """`capture` and `gate` are how the bridge takes part in a call; the patches correct faults of LiteLLM and httpx."""
    from bridge_worker.backends.litellm import bounded_http, capture, client_keys, gate
    from bridge_worker.backends.litellm.patches import table

    capture.install()
    bounded_http.install()  # outside of the capture, which sends nothing
    gate.install()
    client_keys.install()
    table.install()
