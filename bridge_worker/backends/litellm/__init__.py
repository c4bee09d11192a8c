"""The Model port's implementations, one file each. The only folder that imports LiteLLM.

This file owns what must be true of the environment before LiteLLM is imported, because LiteLLM reads it at import. A value that the
operator has set wins. Refuses to import LiteLLM itself: the offline models live here too, and do not wait for it.
"""

import logging
import os

_BEFORE_IMPORT = {
    "LITELLM_MODE": "PRODUCTION",  # else it loads any .env file it finds on the way up from the working directory
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices over the network at import, and retries in a thread
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # the same for a list of header names, at the first call
    "LITELLM_DISABLE_BUG_REPORT_LINK": "true",  # else a link to its issue tracker is in every error message
    "HF_HUB_OFFLINE": "1",  # else a tokenizer download can freeze the loop for 47 s
    "REPEATED_STREAMING_CHUNK_LIMIT": "1000000000",  # else a stream with 100 equal chunks, a ruled line say, is killed
    "AIOHTTP_CONNECTOR_LIMIT": "8192",  # else streams beyond 500 a host wait in a queue that nobody sees
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "4096",
    "DEFAULT_MAX_RETRIES": "0",  # else an embedding that fails is tried twice more: a max_retries of 0 counts as none given there
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",  # LiteLLM's own HTTP path for OpenAI: half the CPU a call and a chunk
}
LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")
_NEVER = (
    "JSON_LOGS",  # hangs a handler on the root logger and replaces sys.excepthook
    "LITELLM_PRINT_STANDARD_LOGGING_PAYLOAD",  # prints every prompt
    "LITELLM_LOG",  # an unknown value in it breaks the import; --log-level is the switch here
)

for _name, _value in _BEFORE_IMPORT.items():
    os.environ.setdefault(_name, _value)
for _name in _NEVER:
    os.environ.pop(_name, None)
for _name in LOGGERS:  # else its import logs to stdout in a host whose root logger is at level debug
    logging.getLogger(_name).setLevel(logging.CRITICAL)


def name_a_temporary_folder() -> None:
    """LiteLLM asks for one at import, which fails where no folder can be written to, as in a read-only container.

    It only puts tokens of some log-ins there, so a name is enough: then those log-ins fail, and nothing else does.
    """
    import tempfile  # 10 ms, and a file on the disk: not on the way to the first answer

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.path.abspath(os.sep + "tmp")
