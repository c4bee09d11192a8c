"""``omni-bridge models``: lists models with prices, limits and configured keys.

Owns the list, its search and its table. Without a config the list is LiteLLM's price map, read as a file, which needs no worker;
with a config it comes from a worker, which loads LiteLLM. Refuses to call a provider.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from bridge_worker.cli.command_error import CommandError, from_wire_error
from bridge_worker.cli.model_choice import LOCAL, is_installed
from bridge_worker.cli.terminal import echo_table, note
from bridge_worker.cli.worker_process import Json, Worker
from bridge_worker.config.local_models import LocalModel

_ABILITIES = {
    "tools": "supports_function_calling",
    "json_schema": "supports_response_schema",
    "reasoning": "supports_reasoning",
    "vision": "supports_vision",
    "pdf_input": "supports_pdf_input",
    "audio_input": "supports_audio_input",
    "prompt_caching": "supports_prompt_caching",
}
_SHORT = {"json_schema": "json", "pdf_input": "pdf", "audio_input": "audio", "prompt_caching": "cache"}
_FREE = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
_HEAD = ("model", "mode", "in $/M", "out $/M", "context", "key", "can")
_EXAMPLES = """\b
Examples:
  omni-bridge models gemini flash      models with both words in the name
  omni-bridge models --key             models with a configured key
  omni-bridge models --json | jq 'map(select(.input_usd_per_million < 0.1))'
"""


@click.command(epilog=_EXAMPLES, short_help="List models, with prices, limits and configured keys.")
@click.argument("search", nargs=-1)
@click.option("--key", "with_key", is_flag=True, help="Only models with a configured key, and those that need none.")
@click.option("--config", envvar="OMNI_BRIDGE_CONFIG", metavar="FILE", help="A LiteLLM gateway's config.yaml: only its models.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects with all members.")
def models(search: tuple[str, ...], with_key: bool, config: str | None, as_json: bool) -> int:
    """List models: prices in US dollars per million tokens, the longest input, abilities, and whether a key is configured.

    A model is listed when its name has all SEARCH words.
    """
    words = [word.lower() for word in search]
    rows = sorted(_configured(config) if config else _known(), key=lambda row: (row["key_present"] is not True, row["model"]))
    found = [row for row in rows if all(word in row["model"].lower() for word in words)]
    found = [row for row in found if row["key_present"] is True or not row["provider_needs_key"]] if with_key else found
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return 0
    if not found:
        raise CommandError(f"no model has {' and '.join(search) or 'a configured key'}", hint="use fewer words, or none")
    echo_table(_HEAD, map(_cells, found), right=_HEAD[2:5])
    note(_source(config, len(found)))
    return 0


def _known() -> Iterator[Json]:
    from bridge_worker.backends.offline.services import MODES
    from bridge_worker.providers import key_variables, price_map

    for name, mode in MODES.items():
        yield _row(name, "offline", mode, None, _FREE, needs_key=False)
    if is_installed():
        longest = LocalModel().context_tokens
        limits = {"max_input_tokens": longest, "max_output_tokens": longest}
        yield _row(LOCAL, "local", "chat", None, {**_FREE, **limits, "supports_response_schema": True}, needs_key=False)
    present: dict[str, bool | None] = {}
    for name, provider, facts in price_map.rows():
        if provider not in present:
            present[provider] = True if key_variables.variable(provider) else None
        yield _row(name, provider, facts["mode"], present[provider], facts, needs_key=True)


def _row(name: str, provider: str | None, mode: str | None, key: bool | None, facts: Mapping[str, Any], *, needs_key: bool) -> Json:
    return {
        "model": name,
        "provider": provider,
        "mode": mode,
        "key_present": key,
        "provider_needs_key": needs_key,
        "input_usd_per_million": _per_million(facts.get("input_cost_per_token")),
        "output_usd_per_million": _per_million(facts.get("output_cost_per_token")),
        "context_tokens": facts.get("max_input_tokens"),
        "output_tokens": facts.get("max_output_tokens"),
        "can": [name for name, key in _ABILITIES.items() if facts.get(key)],
        "deprecation_date": facts.get("deprecation_date"),
    }


def _configured(config: str) -> Iterator[Json]:
    """The worker's own models, with the facts that it reports."""
    with Worker(config=config) as worker:
        names: list[Json] = []
        cursor = None
        while True:
            page = _result(worker.call("models/list", {"cursor": cursor} if cursor else {}))
            names += page["models"]
            if not (cursor := page["nextCursor"]):
                break
        pending = [(row, worker.request("models/get", {"model": row["model"]})) for row in names]
        for row, request in pending:
            info = request.response().get("result")
            # models/get fails for a wildcard name and for a model that LiteLLM does not know; these still get a row.
            yield (
                _row_of(info) if info else _row(row["model"], row["provider"], row["mode"], row["key_present"], {}, needs_key=True)
            )


def _row_of(info: Json) -> Json:
    prices, limits, supports = info["prices"], info["limits"], info["supports"]
    return {
        "model": info["model"],
        "provider": info["provider"],
        "mode": info["mode"],
        "key_present": info["key_present"],
        "provider_needs_key": info["key_present"] is not None,
        "input_usd_per_million": _per_million(prices["input_usd"]),
        "output_usd_per_million": _per_million(prices["output_usd"]),
        "context_tokens": limits["context_tokens"],
        "output_tokens": limits["output_tokens"],
        "can": [name for name in _ABILITIES if supports[name]],
        "deprecation_date": info["deprecation_date"],
    }


def _result(response: Json) -> Json:
    if "error" in response:
        raise from_wire_error(response["error"])
    result: Json = response["result"]
    return result


def _cells(row: Json) -> tuple[str, ...]:
    price_in, price_out = (_price(row[f"{direction}_usd_per_million"]) for direction in ("input", "output"))
    key = {True: "yes", False: "no", None: ""}[row["key_present"]]
    can = " ".join(_SHORT.get(name, name) for name in row["can"])
    return row["model"], row["mode"] or "", price_in, price_out, _thousands(row["context_tokens"]), key, can


def _per_million(price: float | None) -> float | None:
    return None if price is None else round(price * 1_000_000, 6)


def _price(usd: float | None) -> str:
    return "" if usd is None else f"{usd:.4g}" if usd < 1 else f"{usd:.2f}"


def _thousands(tokens: int | None) -> str:
    return "" if tokens is None else f"{tokens / 1000:.0f}k" if tokens >= 1000 else str(tokens)


def _source(config: str | None, count: int) -> str:
    from bridge_worker.providers import price_map

    return f"{count} models of " + (config or f"LiteLLM's price map of {price_map.DATE or 'an unknown day'}, and offline ones")
