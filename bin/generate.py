"""Rewrites the parts of protocol.md and docs/ that the code already says; each stands between two marker comments.

    .venv-dev/bin/python bin/generate.py            rewrites them
    .venv-dev/bin/python bin/generate.py --check    changes nothing; exit code 1 and a message where a part has drifted

Owns how the tables look. Refuses to say anything that is not in the code: prose belongs outside the markers.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any, Literal, get_args

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the code beside this script, not an installed one

from pydantic import BaseModel  # noqa: E402

from bridge_worker.config.settings import DEFAULTS, FLAGS, SETTINGS  # noqa: E402
from bridge_worker.deferred_imports.sources import Sources  # noqa: E402
from bridge_worker.errors import KINDS  # noqa: E402
from bridge_worker.invariants import INVARIANTS  # noqa: E402
from bridge_worker.protocol.lifecycle_table import LIFECYCLE, Input, State  # noqa: E402
from bridge_worker.runtime.flags import parser  # noqa: E402
from bridge_worker.schema import (  # noqa: E402
    chat_request,
    messages,
)
from bridge_worker.schema.tasks import ExceededTask  # noqa: E402
from tests.support import cases  # noqa: E402

DIGESTS = "bridge_worker/backends/litellm/deferred_sources.json"
FILES = ("protocol.md", "docs/configuration.md", "docs/matrix.md")
COMMAND = ".venv-dev/bin/python bin/generate.py"
_PART = re.compile(r"(<!-- generated: ([a-z ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

Schema = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description="Rewrites the generated parts of protocol.md and docs/.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a part has drifted")
    check = parser.parse_args().check
    drifted = []
    for name in FILES:
        path = ROOT / name
        old = path.read_text(encoding="utf-8")
        new = regenerated(old)
        if new == old:
            continue
        drifted += [f"{name}: {part}" for part in differing(old, new)]
        if not check:
            path.write_text(new, encoding="utf-8")
    if write_digests(check):
        drifted.append(DIGESTS)
    for part in drifted:
        print(f"{part} {'has drifted' if check else 'rewritten'}")
    if drifted and check:
        print(f"the code has changed since these were made; run: {COMMAND}")
    return 1 if drifted and check else 0


def write_digests(check: bool) -> bool:
    """Of the installed packages whose imports are deferred. Returns whether they have changed."""
    path = ROOT / DIGESTS
    old = path.read_text(encoding="utf-8")
    new = json.dumps({package: Sources(package).digest() for package in json.loads(old)}, indent=2) + "\n"
    if new != old and not check:
        path.write_text(new, encoding="utf-8")
    return new != old


def regenerated(text: str) -> str:
    """``text`` with each part made anew. KeyError: a marker names a part that there is none of."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[4]}", text)


def differing(old: str, new: str) -> list[str]:
    pairs = zip(_PART.finditer(old), _PART.finditer(new), strict=True)
    return [before[2] for before, after in pairs if before[3] != after[3]]


# --- the parts ------------------------------------------------------------------------------------------------------------


def errors() -> str:
    rows = ((kind.code, f"`{name}`", "yes" if kind.retryable else "no", kind.when) for name, kind in KINDS.items())
    return table(("code", "kind", "retryable", "when"), rows)


def lifecycle() -> str:
    def cell(state: State, message: Input) -> str:
        action, next_state = LIFECYCLE[state, message]
        then = "" if next_state is state else f"; now {next_state.value}"
        return action.value.replace("{}", "`{}`") + then

    head = ("", *(state.value for state in State))
    return table(head, ((message_name(message), *(cell(state, message) for state in State)) for message in Input))


def message_name(message: Input) -> str:
    return message.value if " " in message.value else f"`{message.value}`"


def methods() -> str:
    rows = [(f"`{name}`", "client", members(method.params), members(method.result)) for name, method in messages.METHODS.items()]
    rows += [
        (f"`{name}`", "worker", members(method.params), members(method.result))
        for name, method in messages.METHODS_OF_CLIENT.items()
    ]
    rows += [(f"`{name}`", "client", members(params), "") for name, params in messages.NOTIFICATIONS_IN.items()]
    rows += [(f"`{name}`", "worker", members(params), "") for name, params in messages.NOTIFICATIONS_OUT.items()]
    return table(("message", "sent by", "params", "result"), rows)


def members(type: type[BaseModel]) -> str:
    """The names of the members, `?` after those that may be left out."""
    if type in (messages.ChatParams, messages.ChatResult):
        return "below"
    named = (
        (field.alias or name, field) for name, field in type.model_fields.items()
    )  # `_meta` is an alias: pydantic has no such name
    fields = (name if field.is_required() else f"{name}?" for name, field in named)
    return f"`{{{', '.join(fields)}}}`"


def chat_params() -> str:
    return typescript(messages.ChatParams, "validation")


def chat_result() -> str:
    return typescript(messages.ChatResult, "serialization")


def models() -> str:
    return together(typescript(messages.ModelsListResult, "serialization"), typescript(messages.ModelInfo, "serialization"))


def chat_check() -> str:
    return together(typescript(messages.TokenCount, "serialization"), typescript(messages.ChatCheck, "serialization"))


def embed_and_rerank() -> str:
    return together(
        typescript(messages.EmbedParams, "validation"),
        typescript(messages.EmbedResult, "serialization", known={"Usage", "Receipt"}),
        typescript(messages.RerankParams, "validation", known={"TotalDeadline"}),
        typescript(messages.RerankResult, "serialization", known={"Usage", "Receipt"}),
    )


def budgets() -> str:
    return typescript(messages.BudgetsGetResult, "serialization")


def tokens_fit() -> str:
    return typescript(messages.TokensFitResult, "serialization")


def tasks() -> str:
    return together(typescript(messages.TaskBudget, "serialization"), typescript(ExceededTask, "serialization"))


def status() -> str:
    return typescript(messages.Status, "serialization")


def invariants() -> str:
    rows = ((f"`{name}`", one.text, f"[{one.rule}]", one.checked) for name, one in INVARIANTS.items())
    return table(["name", "invariant", "rule", "checked by"], rows)


def config_reload() -> str:
    return typescript(messages.ConfigReloaded, "serialization")


def chat_delta() -> str:
    return typescript(messages.ChatDelta, "validation")


def flags() -> str:
    rows = []
    for action in parser()._actions:
        name = action.option_strings[-1]
        one = SETTINGS[action.dest] if action.dest in FLAGS else None
        variable = f"`OMNI_BRIDGE_{action.dest.upper()}`" if one or action.dest == "config" else ""
        rows.append((f"`{name}`", variable, *default_and_help(one, str(action.help))))
    return table(("flag", "or in the environment", "default", "what it does"), rows)


def default_and_help(one: Field[Any] | None, help: str) -> tuple[str, str]:
    default = getattr(DEFAULTS, one.name) if one else None
    shown = f"`{default}`" if isinstance(default, str | int | float) else ""
    values = f"`{'`, `'.join(one.metadata['choices'])}`; " if one and one.metadata["choices"] else ""
    return shown, f"{values}{help}"


def matrix() -> str:
    """A row a feature, a column a format, from the table that the tests run."""
    head = ("", *cases.ALL)
    rows = [(feature.name, *(cell(feature, wire) for wire in cases.ALL)) for feature in cases.FEATURES]
    return table(head, rows)


def cell(feature: cases.Feature, wire: str) -> str:
    if wire not in feature.formats:
        return feature.elsewhere
    limit = cases.LIMITS.get((feature.name, wire))
    if not limit:
        return "✓"
    where = "" if set(limit.modes) >= set(feature.modes) else f", {limit.modes[0]}"
    suffix = "; an error" if limit.refused else "; the receipt reports it" if limit.dropped else ""
    return f"{limit.why}{where}{suffix}"


PARTS: Mapping[str, Callable[[], str]] = {
    "methods": methods,
    "lifecycle": lifecycle,
    "chat params": chat_params,
    "chat result": chat_result,
    "chat delta": chat_delta,
    "models": models,
    "chat check": chat_check,
    "embed and rerank": embed_and_rerank,
    "budgets": budgets,
    "tasks": tasks,
    "tokens fit": tokens_fit,
    "status": status,
    "invariants": invariants,
    "config reload": config_reload,
    "errors": errors,
    "flags": flags,
    "matrix": matrix,
}


# --- Markdown -------------------------------------------------------------------------------------------------------------


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    return "\n".join(map(row, [head, ["---"] * len(head), *rows]))


def row(cells: Iterable[object]) -> str:
    texts = [str(cell).replace("|", "\\|") for cell in cells]
    return "|" + "|".join(f" {text} " if text else " " for text in texts) + "|"


# --- TypeScript: the notation for JSON that most readers know -------------------------------------------------------------


def typescript(root: type[BaseModel], mode: Literal["validation", "serialization"], known: Collection[str] = ()) -> str:
    """The type and all that it refers to, each after its first use, without those that are ``known`` from elsewhere.

    What is written out whole is told by "serialization".
    """
    schema = root.model_json_schema(mode=mode)
    types = schema.pop("$defs", {}) | {root.__name__: schema}
    order = [root.__name__]
    for name in order:  # grows while it is read
        for found in re.findall(r"#/\$defs/(\w+)", json.dumps(types[name])):
            if found not in order and found not in known:
                order.append(found)
    text = "\n".join(interface(name, types[name]) for name in order)
    for alias, union in unions().items():
        if union in text:
            text = text.replace(f"({union})[]", f"{alias}[]")
            text += f"\ntype {alias} = {union}"
    return f"```ts\n{text}\n```"


def together(*blocks: str) -> str:
    """One block of several."""
    return "\n".join(blocks).replace("\n```\n```ts", "")


def unions() -> Mapping[str, str]:
    """Those that have a name in protocol/asked.py, as `typed` writes them."""
    aliases = {"ChatMessage": chat_request.ChatMessage, "ContentPart": chat_request.ContentPart}
    return {name: " | ".join(member.__name__ for member in get_args(get_args(of)[0])) for name, of in aliases.items()}


def interface(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    shown = [line(member, of, must=member in required) for member, of in schema.get("properties", {}).items()]
    one_line = f"type {name} = {{ {'; '.join(shown)} }}"
    if len(one_line) <= 120 and "//" not in one_line:
        return one_line
    return "\n".join([f"type {name} = {{", *(f"  {member}" for member in shown), "}"])


def line(name: str, schema: Schema, *, must: bool) -> str:
    of, limits = typed(schema), note(schema)
    if not must:  # what may be left out may be null
        of = of.removesuffix(" | null")
    return f"{name}{'' if must else '?'}: {of}" + (f"  // {limits}" if limits else "")


def typed(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(typed(choice) for choice in schema[union]))
    if "const" in schema or "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            of = typed(schema["items"])
            return f"({of})[]" if " " in of else f"{of}[]"
        case "object":
            values = schema.get("additionalProperties")
            return f"{{ [name: string]: {typed(values) if isinstance(values, dict) else 'unknown'} }}"
        case str(name):
            return name
    return "unknown"


def note(schema: Schema) -> str:
    """The limits that the type can't say."""
    notes = []
    for part in (schema, *schema.get("anyOf", ())):
        if part.get("minItems") or part.get("minLength"):
            notes.append("not empty")
        if "minimum" in part:
            notes.append(f"at least {part['minimum']}")
        if "exclusiveMinimum" in part:
            notes.append(f"more than {part['exclusiveMinimum']}")
        if "pattern" in part:
            notes.append(f"like {part['pattern']}")
    return ", ".join(dict.fromkeys(notes))


if __name__ == "__main__":
    sys.exit(main())
