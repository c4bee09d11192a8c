"""Facts about providers by LiteLLM's names: default hosts, services on this machine, unusable ones, first models.

Owns these tables. Refuses to know LiteLLM and the environment: `backends/litellm/patches/hosts.py` applies the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Endpoint(NamedTuple):
    """``variables``: each may hold the base URL, the first one is named in errors. ``key``: the variable of the key."""

    variables: tuple[str, ...]
    key: str
    default: str | None = None


# LiteLLM sends their requests, and a key, to OpenAI's host (or litellm_proxy's rerank to Cohere's) when no base URL is set.
NO_DEFAULT_HOST: Mapping[str, Endpoint] = {
    "ai21": Endpoint(("AI21_API_BASE",), "AI21_API_KEY"),
    "azure_ai": Endpoint(("AZURE_AI_API_BASE",), "AZURE_AI_API_KEY"),
    "custom_openai": Endpoint(("OPENAI_BASE_URL", "OPENAI_API_BASE"), "OPENAI_API_KEY"),
    "hosted_vllm": Endpoint(("HOSTED_VLLM_API_BASE",), "HOSTED_VLLM_API_KEY"),
    "litellm_proxy": Endpoint(("LITELLM_PROXY_API_BASE",), "LITELLM_PROXY_API_KEY"),
}

# Their default host is this machine. LiteLLM has the same defaults, except for lm_studio and xinference's chat, which have none.
LOCAL_SERVICES: Mapping[str, Endpoint] = {
    "docker_model_runner": Endpoint(
        ("DOCKER_MODEL_RUNNER_API_BASE",), "DOCKER_MODEL_RUNNER_API_KEY", "http://localhost:22088/engines/llama.cpp"
    ),
    "langflow": Endpoint(("LANGFLOW_API_BASE",), "LANGFLOW_API_KEY", "http://localhost:7860"),
    "langgraph": Endpoint(("LANGGRAPH_API_BASE",), "LANGGRAPH_API_KEY", "http://localhost:2024"),
    "lemonade": Endpoint(("LEMONADE_API_BASE",), "LEMONADE_API_KEY", "http://localhost:8000/api/v1"),
    "llamafile": Endpoint(("LLAMAFILE_API_BASE",), "LLAMAFILE_API_KEY", "http://127.0.0.1:8080/v1"),
    "lm_studio": Endpoint(("LM_STUDIO_API_BASE",), "LM_STUDIO_API_KEY", "http://localhost:1234/v1"),
    "ollama": Endpoint(("OLLAMA_API_BASE",), "OLLAMA_API_KEY", "http://localhost:11434"),
    "xinference": Endpoint(("XINFERENCE_API_BASE",), "XINFERENCE_API_KEY", "http://127.0.0.1:9997/v1"),
}
SERVICE_OF = {"ollama_chat": "ollama"}  # a second name of the same service
DEFAULT_LOCAL_SERVICES = frozenset({"lm_studio", "ollama"})

# LiteLLM makes one text of their conversations, by a chat template that it fetches from a model hub.
HUB_TEMPLATES = frozenset(
    """
    anthropic_text azure_text bedrock huggingface predibase replicate sagemaker text-completion-codestral triton watsonx
    watsonx_text
    """.split()
)

# With the reason, as the error gives it.
_INTERACTIVE = "it would wait for an interactive log-in"
_IN_PROCESS = "it would load the model into the worker"
UNUSABLE_PROVIDERS: Mapping[str, str] = {
    "aiohttp_openai": "its client ignores proxies and follows redirects with the key; use openai/... with OPENAI_BASE_URL",
    "chatgpt": _INTERACTIVE,
    "github_copilot": _INTERACTIVE,
    "petals": _IN_PROCESS,
    "vllm": _IN_PROCESS,
}

# Providers with prices in LiteLLM's map but without a client in LiteLLM, or with an interactive log-in.
NOT_SERVED = frozenset(
    "github_copilot chatgpt inferenceapis anyscale coralbricks scaledown openinfer microsoft_365_copilot".split()
)

# Provider names of OpenTelemetry's semantic conventions where they differ from LiteLLM's.
OPENTELEMETRY_NAMES: Mapping[str, str] = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "azure_text": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock_converse": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "sagemaker_chat": "aws.bedrock",
    "vertex_ai": "gcp.vertex_ai",
    "vertex_ai_beta": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}

# The variables that `omni-bridge chat` looks for, in this order, with a small model of the provider that has no announced end.
FIRST_MODELS: Mapping[str, str] = {
    "OPENAI_API_KEY": "openai/gpt-5.4-mini",
    "ANTHROPIC_API_KEY": "anthropic/claude-haiku-4-5",
    "GEMINI_API_KEY": "gemini/gemini-flash-latest",
    "GOOGLE_API_KEY": "gemini/gemini-flash-latest",
    "MISTRAL_API_KEY": "mistral/mistral-small-latest",
    "DEEPSEEK_API_KEY": "deepseek/deepseek-flash",
    "XAI_API_KEY": "xai/grok-4.5-latest",
    "GROQ_API_KEY": "groq/openai/gpt-oss-20b",
    "COHERE_API_KEY": "cohere_chat/command-r7b-12-2024",
    "PERPLEXITYAI_API_KEY": "perplexity/sonar",
}

EXAMPLE_MODEL = FIRST_MODELS["OPENAI_API_KEY"]  # the model that messages name as an example


class Package(NamedTuple):
    """``module``: what must be importable. ``install``: what brings it."""

    module: str
    install: str


# Providers for which LiteLLM needs a package that it does not bring. AWS's (bedrock, sagemaker) has boto3, which it brings.
_GOOGLE = Package("google.auth", "omni-bridge[vertex]")
PACKAGES: Mapping[str, Package] = {
    "vertex_ai": _GOOGLE,
    "vertex_ai_beta": _GOOGLE,
    "oci": Package("cryptography", "cryptography"),
}
# For Azure's deployments without a key, which sign in to Entra ID.
AZURE_IDENTITY = Package("azure.identity", "azure-identity")
# By the top module that an import does not find.
INSTALLS: Mapping[str, str] = {"google": _GOOGLE.install, "azure": AZURE_IDENTITY.install, "cryptography": "cryptography"}

# They may get a key from a role, a login or a file, or need none, so a missing variable does not mean a missing key.
KEY_MAY_BE_ELSEWHERE = ("bedrock", "sagemaker", "vertex_ai", "azure", "watsonx", "oci", "snowflake", "ollama", "ollama_chat")
