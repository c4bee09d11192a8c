"""Facts of a Gemini response besides its parts: token counts, log probabilities, and sources as annotations.

Owns these conversions. Refuses to know events and parts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from bridge_worker.backends.wire.json_values import Json, count_of, object_of, objects_of, text_of
from bridge_worker.core.deltas import TokenUsage


def usage_of(usage: Json) -> TokenUsage | None:
    """Gemini's prompt count includes cached tokens, but not tool results; its candidates count does not include thoughts.

    Vertex AI has included thoughts in the candidates; the total distinguishes the two.
    """
    prompt, tools = count_of(usage.get("promptTokenCount")), count_of(usage.get("toolUsePromptTokenCount"))
    taken, thought = count_of(usage.get("candidatesTokenCount")), count_of(usage.get("thoughtsTokenCount"))
    total = count_of(usage.get("totalTokenCount"))
    if taken is None:
        taken = count_of(usage.get("responseTokenCount"))
    given = prompt + (tools or 0) if prompt is not None else None
    if thought and (taken is None or given is None or given + taken != total):
        taken = (taken or 0) + thought
    if not (given or taken or total):
        return None
    if total is None and given is not None and taken is not None:
        total = given + taken
    prompt_parts, taken_parts = _by_modality(usage, "promptTokensDetails"), _by_modality(usage, "candidatesTokensDetails")
    return TokenUsage(
        given,
        taken,
        total,
        count_of(usage.get("cachedContentTokenCount")),
        None,
        thought,
        audio_input_tokens=prompt_parts.get("AUDIO"),
        audio_output_tokens=taken_parts.get("AUDIO"),
        image_input_tokens=prompt_parts.get("IMAGE"),
        image_output_tokens=taken_parts.get("IMAGE"),
    )


def _by_modality(usage: Json, name: str) -> dict[str, int]:
    counted = ((text_of(part.get("modality")), count_of(part.get("tokenCount"))) for part in objects_of(usage.get(name)))
    return {modality: count for modality, count in counted if modality and count is not None}


def logprobs_of(result: Json) -> list[Any]:
    """OpenAI's shape: a token, its log probability and the alternatives at its place."""
    tops = result.get("topCandidates")
    tops = tops if isinstance(tops, list) else []
    return [
        {**_token(token), "top_logprobs": [_token(one) for one in objects_of(object_of(_at(tops, position)).get("candidates"))]}
        for position, token in enumerate(objects_of(result.get("chosenCandidates")))
    ]


def _token(value: Json) -> Json:
    return {"token": text_of(value.get("token")) or "", "logprob": value.get("logProbability")}


def _at(values: list[Any], position: int) -> Any:
    return values[position] if position < len(values) else None


def annotations_of(grounding: Json, text: str) -> list[Json]:
    """Sources of texts as OpenAI's url_citation; the positions that Gemini counts in bytes are given in characters."""
    chunks = grounding.get("groundingChunks")
    chunks = chunks if isinstance(chunks, list) else []
    cited = list(_supports(grounding, chunks, text))
    return cited or [_citation(chunk) for chunk in chunks if _source(chunk)]


def _supports(grounding: Json, chunks: list[Any], text: str) -> Iterator[Json]:
    ends = list(accumulate(len(character.encode("utf-8", "replace")) for character in text)) if not text.isascii() else None
    for support in objects_of(grounding.get("groundingSupports")):
        where = _characters(object_of(support.get("segment")), len(text), ends)
        indices = support.get("groundingChunkIndices")
        for index in indices if isinstance(indices, list) else ():
            if isinstance(index, int) and 0 <= index < len(chunks) and _source(chunks[index]):
                yield _citation(chunks[index], where)


def _characters(segment: Json, size: int, ends: list[int] | None) -> Json:
    """Only for the first part: positions in others count from the part's start. ``ends`` are the characters' last bytes."""
    start, end = count_of(segment.get("startIndex")) or 0, count_of(segment.get("endIndex"))
    if end is None or segment.get("partIndex") or not start <= end <= (ends[-1] if ends else size):
        return {}
    if ends:
        start, end = bisect_right(ends, start), bisect_right(ends, end)
    return {"start_index": start, "end_index": end}


def _source(chunk: Any) -> Json:
    members = object_of(chunk)
    return next((source for kind in ("web", "retrievedContext", "maps") if (source := object_of(members.get(kind))).get("uri")), {})


def _citation(chunk: Any, where: Json | None = None) -> Json:
    source = _source(chunk)
    title = {"title": source["title"]} if text_of(source.get("title")) else {}
    return {"type": "url_citation", "url_citation": {"url": source["uri"], **title, **(where or {})}}


def citations_of(metadata: Json) -> Iterator[Json]:
    """The sources of a recited text; Vertex AI and AI Studio have different names for the list."""
    for name in ("citationSources", "citations"):
        for source in objects_of(metadata.get(name)):
            yield {"type": "citation", **source}
