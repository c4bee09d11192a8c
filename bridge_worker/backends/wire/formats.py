"""The wire formats by name, and the decoder of each, made when it is first needed.

Owns the table of names, and `Recipe`: what makes the decoder of a response, in a form that a file can hold. Refuses to know which
provider has which format.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from bridge_worker.backends.wire.decoder import Decoder
from bridge_worker.backends.wire.restoring import restoring


class Format(NamedTuple):
    """A wire format: its name, the module in ``backends/wire`` and the class in it."""

    name: str
    module: str
    decoder: str


OPENAI_CHAT = Format("openai_chat", "openai_chat", "OpenAIChat")
OPENAI_RESPONSES = Format("openai_responses", "openai_responses", "OpenAIResponses")
ANTHROPIC = Format("anthropic", "anthropic", "Anthropic")
GEMINI = Format("gemini", "gemini", "Gemini")
BEDROCK_CONVERSE = Format("bedrock_converse", "bedrock_converse", "BedrockConverse")
BEDROCK_ANTHROPIC = Format("bedrock_anthropic", "anthropic", "Anthropic")  # in frames of AWS's event stream
OLLAMA = Format("ollama", "ollama", "Ollama")
COHERE = Format("cohere", "cohere", "Cohere")

FORMATS: Mapping[str, Format] = {
    found.name: found
    for found in (
        OPENAI_CHAT,
        OPENAI_RESPONSES,
        ANTHROPIC,
        GEMINI,
        BEDROCK_CONVERSE,
        BEDROCK_ANTHROPIC,
        OLLAMA,
        COHERE,
    )
}


@cache
def decoder_class(found: Format) -> Callable[[], Decoder]:
    module = importlib.import_module(f"bridge_worker.backends.wire.{found.module}")
    made: Callable[[], Decoder] = getattr(module, found.decoder)
    return made


def decoder_of(format: str, renamed: Mapping[str, str], *, schema_tool: bool) -> Decoder:
    """A new decoder. Raises KeyError for an unknown format."""
    decoder = decoder_class(FORMATS[format])()
    if not renamed and not schema_tool:
        return decoder
    return restoring(decoder, renamed, schema=schema_tool)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Makes the decoders of the responses to one request. ``renamed`` and ``schema_tool``: what is undone in them (`restoring`).

    Its construction loads the format's module. Raises KeyError for an unknown format.
    """

    format: str
    renamed: Mapping[str, str] = field(default_factory=dict)
    schema_tool: bool = False

    def __post_init__(self) -> None:
        decoder_class(FORMATS[self.format])

    def __call__(self) -> Decoder:
        return decoder_of(self.format, self.renamed, schema_tool=self.schema_tool)
