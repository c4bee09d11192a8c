"""The patches: each fits the installed LiteLLM, its fault is still there, and one that breaks costs only itself."""

from __future__ import annotations

import ast
import asyncio
import functools
import inspect
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_worker.backends.litellm.patches import correctness, hosts, table
from bridge_worker.backends.litellm.patches.patch import MORE, Patch, _parameters, apply_each, left_out
from bridge_worker.errors import BridgeError
from bridge_worker.providers.facts import HUB_TEMPLATES, UNUSABLE_PROVIDERS
from tests.support.package_modules import PACKAGE

# LiteLLM's types make pydantic warn, which no default filter shows.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211"),
]
PATCHES = {patch.name: patch for patch in table.PATCHES}
GONE = "removed by LiteLLM, and the fault with it: nothing to apply"


@pytest.mark.parametrize("patch", table.PATCHES, ids=lambda patch: patch.name)
def test_each_patch_is_applied_where_its_function_exists(patch: Patch) -> None:
    found = patch.find()  # loads the module that some patches wait for
    assert patch.problem is None
    assert (patch.place is None) == (found is None)
    assert patch.place is not None or patch.since_gone


_WAITS = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
from bridge_worker.backends.litellm import setup
from bridge_worker.security.url_policy import UrlPolicy
setup.prepare(UrlPolicy())
from bridge_worker.backends.litellm.patches import table
for patch in [patch for patch in table.PATCHES if patch.waits]:
    module, _, name = patch.places[0].partition(":")
    was_loaded = module in sys.modules
    found = getattr(importlib.import_module(module), name)
    print(was_loaded, patch.place == patch.places[0], found.__module__.partition(".")[0])
"""
_RUN_THE_REST = _WAITS.replace("for patch in", "table.install_rest()\nprint(table.degraded())\nfor patch in", 1)


def test_a_patch_that_waits_is_applied_by_the_import_of_its_module() -> None:
    assert run(_WAITS) == ["False True bridge_worker"] * sum(patch.waits for patch in table.PATCHES)


def test_patches_that_wait_are_applied_once_by_the_end_of_the_start() -> None:
    assert run(_RUN_THE_REST) == ["[]", *["True True bridge_worker"] * sum(patch.waits for patch in table.PATCHES)]


def run(program: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OMNI_BRIDGE_EAGER"}
    code = [sys.executable, "-I", "-W", "ignore", "-c", program, str(PACKAGE.parent)]
    return subprocess.run(code, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def test_the_loaded_price_map_is_the_bundled_one() -> None:
    bundled, loaded = PATCHES["one price map"].original(), litellm.utils.get_bundled_model_cost_map()
    rules = bundled.get("fallback_generalizations")
    own = {name: facts for name, facts in bundled.items() if facts is not rules and "alias_of" not in facts}
    assert len(own) > 1000
    assert {name: loaded[name] for name in own} == own
    aliases = {alias for facts in bundled.values() for alias in facts.get("aliases", ())}
    assert loaded.keys() - own.keys() <= aliases | bundled.keys()


@pytest.mark.parametrize("patch", table.PATCHES, ids=lambda patch: patch.name)
def test_the_fault_is_still_there(patch: Patch) -> None:
    if patch.find() is None:
        pytest.skip(GONE)
    assert patch.is_needed(), f"LiteLLM has corrected this itself: delete the patch {patch.name}"


@pytest.mark.parametrize("patch", table.PATCHES, ids=lambda patch: patch.name)
def test_the_evidence_of_a_patch_exists(patch: Patch, pytestconfig: pytest.Config) -> None:
    file, _, name = patch.evidence.partition("::")
    source = (pytestconfig.rootpath / file).read_text(encoding="utf-8")
    assert f"def {name}(" in source if name else "def test_" in source


@pytest.mark.parametrize("patch", table.PATCHES, ids=lambda patch: patch.name)
def test_a_patched_function_is_called_where_it_is_patched(patch: Patch) -> None:
    """LiteLLM may stop calling a function and keep it, and then the patch has no effect."""
    if patch.find() is None:
        pytest.skip(GONE)
    place = patch.place or ""
    module, _, path = place.partition(":")
    name = path.rpartition(".")[2]
    own = Path(str(sys.modules[module].__file__))
    sources = [own.read_text(encoding="utf-8")] if patch.keeps_elsewhere else sources_of(module.partition(".")[0])
    assert any(uses(text, name) for text in sources), f"nothing calls {place} any more: find what does the work now"


@functools.cache
def sources_of(package: str) -> list[str]:
    root = Path(str(sys.modules[package].__file__)).parent
    return [file.read_text(encoding="utf-8") for file in root.rglob("*.py")]


def uses(text: str, name: str) -> bool:
    """Whether a module names the function anywhere but in its definition and in imports."""
    if name not in text:
        return False
    nodes = ast.walk(ast.parse(text))
    return any(name in (getattr(node, "id", ""), getattr(node, "attr", "")) for node in nodes)


@pytest.mark.parametrize("patch", table.PATCHES, ids=lambda patch: patch.name)
def test_no_module_keeps_what_a_patch_replaces(patch: Patch) -> None:
    """A function that was imported by its name before it was patched would be called there as it was."""
    if patch.original is None:
        pytest.skip(GONE)
    kept = [
        f"{module.__name__}:{name}"
        for module in list(sys.modules.values())
        for name, value in list(getattr(module, "__dict__", {}).items())
        if value is patch.original and module.__name__.startswith(("litellm", "httpx", "openai"))
    ]
    assert not kept or patch.keeps_elsewhere, kept


def test_every_user_of_a_hubs_templates_is_a_provider_that_its_patch_protects() -> None:
    folders = set()
    root = Path(litellm.__file__).parent / "llms"
    for file in root.rglob("*.py"):
        if re.search(r"\b(?:prompt_factory|a?hf_chat_template)\(", file.read_text(encoding="utf-8")):
            folders.add(file.relative_to(root).parts[0])
    protected = HUB_TEMPLATES | UNUSABLE_PROVIDERS.keys()
    assert folders
    assert {folder for folder in folders if not any(folder in provider for provider in protected)} == set()
    assert protected <= {str(getattr(provider, "value", provider)) for provider in litellm.provider_list} | {"aiohttp_openai"}


def test_a_provider_without_its_security_patch_is_refused_wherever_it_is_resolved() -> None:
    hosts.refuse({"replicate": "hub templates"})
    try:
        for resolve in (hosts.base_url, lambda provider: litellm.main.get_llm_provider(model=f"{provider}/owner/name")):
            with pytest.raises(BridgeError, match="the security patch hub templates does not fit LiteLLM") as refused:
                resolve("replicate")
            assert refused.value.kind == "model_not_found"
        assert litellm.main.get_llm_provider(model="groq/x")[1] == "groq"
    finally:
        hosts.refuse({})


def test_a_protected_provider_is_one_that_exists_or_every_one() -> None:
    known = {str(getattr(provider, "value", provider)) for provider in litellm.provider_list}
    assert all(patch.protects <= known | {"*"} for patch in table.PATCHES)
    assert {patch.name for patch in table.PATCHES if patch.protects} >= {"provider hosts", "rerank hosts", "redirects"}


class Victim:
    """Two functions, as a library has them."""

    @staticmethod
    def good(text: str) -> str:
        return text

    @staticmethod
    def changed(text: str, added: int) -> str:
        return text * added


def patch_of(name: str, takes: tuple[str, ...] = ("text",), make: Any = None) -> Patch:
    return Patch(
        name=name,
        wrong="it is",
        evidence=__file__,
        places=(f"{__name__}:Victim.{name}",),
        takes=takes,
        make=make or (lambda original: lambda text: text.upper()),
        has_fault=lambda original: original("a") == "a",
    )


def broken_make(original: Any) -> Any:
    raise RuntimeError("written for another version")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda: patch_of("gone"), "has no attribute 'gone'"),
        (lambda: patch_of("changed"), "takes (text, added) instead of (text)"),
        (lambda: patch_of("good", make=broken_make), "written for another version"),
    ],
    ids=["removed", "other parameters", "raises"],
)
def test_a_broken_patch_costs_exactly_that_patch(
    broken: Any, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Victim, "other", staticmethod(lambda text: text), raising=False)
    patches = [patch_of("other"), broken(), patch_of("other")]
    with caplog.at_level(logging.WARNING):
        apply_each(patches)
    assert Victim.other("a") == "A"  # type: ignore[attr-defined]
    assert Victim.good("a") == "a"
    assert list(left_out(patches)) == [patches[1]]
    assert reason in str(patches[1].problem)
    (line,) = caplog.records
    assert line.getMessage().startswith(f"the patch {patches[1].name} does not fit")


def test_a_patch_may_let_the_original_take_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Victim, "other", staticmethod(lambda text, added=1: text * added), raising=False)
    strict, lenient = patch_of("other"), patch_of("other", takes=("text", MORE))
    apply_each([strict, lenient])
    assert (strict.place, lenient.problem) == (None, None)
    assert Victim.other("a") == "A"  # type: ignore[attr-defined]


def test_applying_twice_replaces_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Victim, "other", staticmethod(lambda text: text), raising=False)
    patch = patch_of("other", make=lambda original: lambda text: original(text) + "!")
    apply_each([patch, patch])
    assert Victim.other("a") == "a!"  # type: ignore[attr-defined]


def test_a_cut_stream_has_no_finish_reason() -> None:
    stream = litellm.CustomStreamWrapper(
        completion_stream=iter(()), model="gpt-4o", custom_llm_provider="openai", logging_obj=SimpleNamespace(model_call_details={})
    )
    assert stream.finish_reason_handler().choices[0].finish_reason is None
    stream.received_finish_reason = "length"
    assert stream.finish_reason_handler().choices[0].finish_reason == "length"


def test_reasoning_is_not_tokenized() -> None:
    assert PATCHES["reasoning count"].make(None)(None, litellm.ModelResponse()) is None


def test_a_malformed_event_raises_and_an_end_is_not_an_event() -> None:
    parse = PATCHES["malformed events"].make(None)
    iterator = SimpleNamespace(chunk_parser=lambda chunk: ("parsed", chunk))
    assert parse(iterator, 'data: {"a": "[DONE]"}') == ("parsed", {"a": "[DONE]"})
    for line in ("data: [DONE]", "data:", ": comment", "event: message", "<html>", ""):
        assert parse(iterator, line) == correctness._NOTHING
    for line in ('data: {"a', "data: null", "data: []", 'data: "x"'):
        with pytest.raises(ValueError, match=r".+"):
            parse(iterator, line)


def test_a_line_without_an_event_is_what_litellm_makes_of_one() -> None:
    """``_NOTHING`` has the members that LiteLLM takes for one of its own chunks."""
    from litellm.types.utils import GenericStreamingChunk

    assert GenericStreamingChunk.__required_keys__ <= correctness._NOTHING.keys()


def test_a_property_named_strict_stays_in_a_schema() -> None:
    clean = PATCHES["properties named strict"].make(None)
    tool = {"function": {"strict": True, "parameters": {"strict": None, "properties": {"strict": {"type": "boolean"}}}}}
    assert clean([tool]) == [{"function": {"parameters": {"properties": {"strict": {"type": "boolean"}}}}}]


def test_the_tokenizer_is_loaded_at_its_first_use() -> None:
    loads: list[str] = []

    def load() -> str:
        loads.append("once")
        return "an encoding"

    encoding = PATCHES["encoding"].make(load)()
    assert loads == []
    assert encoding.upper() == "AN ENCODING"
    assert loads == ["once"]


@given(st.lists(st.text(alphabet="ab\r\n\u2028\x85", max_size=6), max_size=6))
def test_lines_end_where_events_end_however_the_text_is_cut(pieces: list[str]) -> None:
    decoder = correctness.SseLineDecoder()
    lines = [line for piece in pieces for line in decoder.decode(piece)] + decoder.flush()
    expected = re.split(r"\r\n|\n|\r", "".join(pieces))
    assert lines == (expected if expected[-1] else expected[:-1])


def test_ollama_is_looked_up_in_a_thread_and_never_in_a_loop() -> None:
    looked_up: list[str] = []

    def look_up(self: Any, model: str, api_base: str | None, api_key: str | None) -> dict[str, Any]:
        looked_up.append(model)
        return {"key": model, "found": True}

    get = PATCHES["ollama model info"].make(look_up)
    itself = SimpleNamespace(_strip_ollama_model_prefix=lambda model: model)

    async def main() -> list[Any]:
        before = get(itself, "new-one", "http://127.0.0.1")
        within = await asyncio.to_thread(get, itself, "new-one", "http://127.0.0.1")
        return [before, within, get(itself, "new-one", "http://127.0.0.1")]

    before, within, after = asyncio.run(main())
    assert (before["input_cost_per_token"], looked_up) == (0.0, ["new-one"])
    assert within == after == {"key": "new-one", "found": True}


def test_parameters_are_those_of_the_signature() -> None:
    def plain(a: Any, /, b: Any, *c: Any, d: Any, e: Any = None, **f: Any) -> None: ...
    def short(a: Any, *, b: Any) -> None: ...

    wrapped = functools.wraps(plain)(lambda *_: None)
    for function in (plain, short, wrapped, functools.partial(plain, 1), functools.cache(short)):
        assert _parameters(function) == tuple(inspect.signature(function).parameters)
