"""Rewrites a JSON Schema into OpenAPI's subset, as Gemini has it, and names what that can't express.

Owns that form, of a function's parameters and of the responses of models that read no JSON Schema. LiteLLM drops what it does not
know of it, or raises AttributeError. Refuses to know LiteLLM and a request.

Source: ai.google.dev/api/caching#Schema.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from bridge_worker.backends.litellm.schema_merge import ANNOTATIONS, MAX_BRANCHES, Json, listed, merged, target
from bridge_worker.core.receipt import Change
from bridge_worker.errors import BridgeError
from bridge_worker.security.schema_size import is_recursive

MAX_CHANGES = 100  # named for one request
MAX_COPIES = 20_000  # JSON values that are copied into branches of one schema
MAX_DEPTH = 64
MAX_SCHEMAS = 20_000  # inner schemas of one, references inlined

# They do not constrain a value, or are written elsewhere.
_SILENT = frozenset(
    """$schema $id $comment $anchor $defs definitions additionalProperties additionalItems propertyOrdering discriminator deprecated
    readOnly writeOnly""".split()
)
# Members with a meaning for one type only: a schema without a type has the type of its members.
_OF_TYPE: Mapping[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains", "additionalItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_OWN = {**_OF_TYPE, "integer": _OF_TYPE["number"], "boolean": ()}
_ANY_TYPE = [{"type": name} for name in ("string", "number", "boolean", "object")]
_PLAIN = {"minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength", "pattern", "minimum", "maximum"}
_FORMATS = ("date-time", "enum")


def parameters(schema: Json, place: str, changes: list[Change]) -> Json:
    """``schema`` in OpenAPI's subset, with an object at its root. What is lost or rewritten is added to ``changes``.

    Raises BridgeError ``rejected_by_provider`` for a recursive reference.
    """
    rewriter = _Rewriter(schema, changes)
    made = rewriter.rewrite(schema, place)
    return rewriter.as_object(made, place)


def response(schema: Json, place: str, changes: list[Change]) -> Json:
    """The same for any root."""
    return _Rewriter(schema, changes).rewrite(schema, place)


class _Rewriter:
    """One schema, with its definitions."""

    def __init__(self, root: Json, changes: list[Change]) -> None:
        if is_recursive(root, {}):
            raise _recursive()
        self._root = root
        self._changes = changes
        self._known = {change.param for change in changes}
        self._copies = self._depth = self._schemas = 0

    def note(self, place: str, *, rewritten: str | None = None) -> None:
        if place not in self._known and len(self._changes) < MAX_CHANGES:
            self._known.add(place)
            self._changes.append(Change(place, "rewritten" if rewritten else "dropped", rewritten))

    # -- one schema ------------------------------------------------------------------------------------------------------------

    def rewrite(self, schema: Any, place: str) -> Json:
        self._depth, self._schemas = self._depth + 1, self._schemas + 1
        if self._depth > MAX_DEPTH or self._schemas > MAX_SCHEMAS:
            raise _recursive()
        made = self._written(self._flat(schema, place, ()), place)
        self._depth -= 1
        return made

    def as_object(self, made: Json, place: str) -> Json:
        """Gemini takes only an object for a function's parameters: a union of objects becomes one with the properties of all."""
        made.pop("nullable", None)
        branches = made.get("anyOf")
        if not branches or not all(branch.get("type") == "object" for branch in branches):
            return made
        self.note(f"{place}.anyOf", rewritten="one object with the properties of all")
        whole: Json = {name: made[name] for name in ANNOTATIONS if name in made} | {"type": "object"}
        properties: Json = {}
        for branch in branches:
            for name, value in branch.get("properties", {}).items():
                properties[name] = value if name not in properties else _either(properties[name], value)
        required = [name for name in properties if all(name in branch.get("required", ()) for branch in branches)]
        return whole | ({"properties": properties} if properties else {}) | ({"required": required} if required else {})

    def _written(self, flat: Json, place: str) -> Json:
        nullable = flat.pop("nullable", None) is True
        branches = flat.pop("anyOf", None)
        types = self._types(flat.pop("type", None), place)
        if isinstance(types, list):
            nullable, types = nullable or "null" in types, [name for name in types if name != "null"]
            types = types[0] if len(types) == 1 else types or "null"
        if types == "null" or _is_null(flat):  # with nothing else: Gemini knows null only as a possibility
            nullable, types = True, "string"
            flat.pop("enum", None)
            self.note(f"{place}.type", rewritten="a string or null")
        if branches is not None:
            return self._union(branches, flat | ({"type": types} if types else {}), place, nullable=nullable)
        if isinstance(types, list):
            return self._union([{"type": name} for name in types], flat, place, nullable=nullable)
        made = self._of_type(types or self._type_of(flat), flat, place)
        return made | ({"nullable": True} if nullable else {})

    def _types(self, given: Any, place: str) -> Any:
        """A name, a list of names, or None; some callers write them in upper case, as Gemini itself does."""
        names = [name.lower() for name in listed(given) if isinstance(name, str) and name.lower() in (*_OWN, "null")]
        if given is not None and not names:
            self.note(f"{place}.type")
        return names if len(names) > 1 else names[0] if names else None

    def _union(self, branches: list[Json], common: Json, place: str, *, nullable: bool) -> Json:
        """Conditions next to a union are written into each of its branches: Gemini takes nothing else next to ``anyOf``."""
        kept = [branch for branch in branches if not _is_null(branch)]
        nullable = nullable or len(kept) < len(branches)
        conditions = {name: value for name, value in common.items() if name not in ANNOTATIONS}
        annotations = {name: common[name] for name in ANNOTATIONS if common.get(name) is not None}
        self._copies += len(kept) * _size(conditions)
        if self._copies > MAX_COPIES or len(kept) > MAX_BRANCHES:
            self.note(f"{place}.anyOf")
            kept = []
        made: list[Json] = []
        for at, branch in enumerate(kept):
            where = f"{place}.anyOf[{at}]" if len(kept) > 1 else place
            one = self._merge([conditions, branch], where) if conditions else branch
            made.append(self.rewrite(one | ({"nullable": True} if nullable else {}), where))
        if not made:
            return self._written(common | ({"nullable": True} if nullable else {}), place)
        if len(made) == 1:
            return annotations | made[0]
        unique = [one for at, one in enumerate(made) if one not in made[:at]]
        if len(unique) == 1:
            return annotations | unique[0]
        words = {name: value for name, value in annotations.items() if name in ("title", "description")}
        for name in annotations.keys() - words.keys():
            self.note(f"{place}.{name}")
        return {"anyOf": [_described(one, words) for one in unique]}

    def _type_of(self, flat: Json) -> str | None:
        """The type of a schema that does not have it."""
        values = flat.get("enum")
        if isinstance(values, list) and values:
            types = {_type_name(value) for value in values if value is not None}
            if types == {"integer", "number"}:
                return "number"
            if len(types) == 1:
                return types.pop()
        return next((name for name, members in _OF_TYPE.items() if any(member in flat for member in members)), None)

    def _of_type(self, name: str | None, flat: Json, place: str) -> Json:
        values = flat.pop("enum", None)
        made: Json = {key: flat[key] for key in ("title", "description") if isinstance(flat.get(key), str)}
        made |= {key: flat[key] for key in ("default", "example") if flat.get(key) is not None}
        if isinstance(values, list) and name is None:
            groups: dict[str | None, list[Any]] = {}
            for value in values:
                groups.setdefault(_type_name(value), []).append(value)
            union = [{"type": "null"} if kind is None else {"type": kind, "enum": group} for kind, group in groups.items()]
            return self._union(union, flat, place, nullable=False)
        if name is None:
            self.note(f"{place}.type", rewritten="string, number, boolean or object")
            return self._rest(made | {"anyOf": [_described(one, made) for one in _ANY_TYPE]}, flat, place, ())
        made["type"] = name
        if isinstance(values, list):
            self._enum(made, [value for value in values if value is not None], place)
            if None in values:
                made["nullable"] = True
        made |= {key: flat[key] for key in _PLAIN if key in flat and key in _OWN.get(name, ())}
        if name == "object":
            self._object(made, flat, place)
        elif name == "array":
            self._array(made, flat, place)
        elif name in ("number", "integer"):
            self._number(made, flat, place)
        elif flat.get("format") in _FORMATS:
            made["format"] = flat["format"]
        return self._rest(made, flat, place, _handled(name))

    def _rest(self, made: Json, flat: Json, place: str, handled: tuple[str, ...]) -> Json:
        """Names the members that found no place."""
        if isinstance(flat.get("additionalProperties"), dict | bool) and _is_map(flat):
            self.note(f"{place}.additionalProperties")
        for name in flat:
            if name not in made and name not in handled and name not in _SILENT and flat[name] is not None:
                self.note(f"{place}.{name}")
        return made

    # -- by type ---------------------------------------------------------------------------------------------------------------

    def _enum(self, made: Json, values: list[Any], place: str) -> None:
        if made["type"] == "string":
            texts = [value for value in values if isinstance(value, str) and value]
            if len(texts) < len(values):
                self.note(f"{place}.enum", rewritten="without values that are empty or no text")
            if texts:
                made["enum"] = texts
            return
        numbers = [value for value in values if _type_name(value) in ("integer", "number")]
        if made["type"] in ("integer", "number") and numbers:
            made["minimum"], made["maximum"] = min(numbers), max(numbers)
            if made["type"] == "integer":
                made["enum"] = numbers  # LiteLLM sends it to the models that take it
            if len(set(numbers)) > 1 and not _is_range(numbers):
                self.note(f"{place}.enum", rewritten="minimum and maximum")
        elif set(map(str, values)) != {"True", "False"}:
            self.note(f"{place}.enum")

    def _number(self, made: Json, flat: Json, place: str) -> None:
        step = 1 if made["type"] == "integer" else 0
        for name, bound, direction in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            value = flat.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                made.setdefault(bound, value + direction * step)
                if not step:
                    self.note(f"{place}.{name}", rewritten=bound)

    def _object(self, made: Json, flat: Json, place: str) -> None:
        given = flat.get("properties")
        properties: Json = {}
        for name, schema in given.items() if isinstance(given, dict) else ():
            if schema is not False:  # a property that may not be there
                properties[name] = self.rewrite(schema, f"{place}.properties.{name}")
        if properties:
            made["properties"] = properties
        names = flat.get("required")
        required = [name for name in (names if isinstance(names, list) else ()) if isinstance(name, str)]
        if known := [name for name in dict.fromkeys(required) if name in properties]:
            made["required"] = known
        if set(required) - properties.keys():
            self.note(f"{place}.required", rewritten="without names that are no properties")

    def _array(self, made: Json, flat: Json, place: str) -> None:
        items = flat.get("items")
        tuple_of = flat.get("prefixItems", items if isinstance(items, list) else None)
        rest = flat.get("additionalItems") if isinstance(items, list) else items
        if not isinstance(tuple_of, list) or not tuple_of:
            if items is False:
                made["maxItems"] = 0
            made["items"] = self.rewrite({} if items in (None, False) else items, f"{place}.items")
            return
        self.note(f"{place}.prefixItems", rewritten="items of any of these schemas, in any order")
        if rest is False:
            made.setdefault("maxItems", len(tuple_of))
        others = [rest] if isinstance(rest, dict) and rest else []
        made["items"] = self.rewrite({"anyOf": [*tuple_of, *others]}, f"{place}.prefixItems")

    # -- references and combinations -------------------------------------------------------------------------------------------

    def _flat(self, schema: Any, place: str, seen: tuple[str, ...]) -> Json:
        """``schema`` as one object, without ``$ref``, ``const``, ``allOf`` and ``oneOf``; its inner schemas stay as they are."""
        if not isinstance(schema, dict):
            if not isinstance(schema, bool):
                self.note(place)
            return {}
        flat = dict(schema)
        parts: list[Json] = []
        if isinstance(reference := flat.pop("$ref", None), str):
            parts.append(self._flat(self._referred(reference, place, seen), place, (*seen, reference)))
        combined = flat.pop("allOf", None)
        for at, part in enumerate(combined if isinstance(combined, list) else ()):
            parts.append(self._flat(part, f"{place}.allOf[{at}]", seen))
        if "const" in flat:
            flat["enum"] = [flat.pop("const")]
        for name in ("anyOf", "oneOf"):
            options = flat.pop(name, None)
            if isinstance(options, list) and (known := [option for option in options if option is not False]):
                flat_options = [self._flat(option, f"{place}.{name}[{at}]", seen) for at, option in enumerate(known)]
                parts.append({"anyOf": flat_options})
        return self._merge([*parts, flat], place) if parts else flat

    def _referred(self, reference: str, place: str, seen: tuple[str, ...]) -> Any:
        if reference in seen:
            raise _recursive()
        value = target(reference, self._root)
        if value is None:
            self.note(f"{place}.$ref")
            return {}
        return value

    def _merge(self, parts: list[Json], place: str) -> Json:
        return merged(copy.deepcopy(parts), lambda name: self.note(f"{place}.{name}"))


def _recursive() -> BridgeError:
    wrong = "it has a recursive $ref, and this provider takes no references; write the levels that are needed"
    return BridgeError("rejected_by_provider", f"a schema of this request can't be sent to this provider: {wrong}")


def _is_null(schema: Json) -> bool:
    return schema.get("type") == "null" or schema.get("enum") == [None]


def _is_map(flat: Json) -> bool:
    """An object that allows other names than those of its properties, explicitly."""
    others = flat.get("additionalProperties")
    return isinstance(others, dict) or (others is True and not flat.get("properties"))


def _is_range(numbers: list[Any]) -> bool:
    """All integers from the least to the greatest."""
    return all(isinstance(number, int) for number in numbers) and max(numbers) - min(numbers) == len(set(numbers)) - 1


def _type_name(value: Any) -> str | None:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return None if value is None else "object"


def _described(schema: Json, words: Json) -> Json:
    """``schema`` with the words of the union that it is a branch of, in front that exist already."""
    made = dict(schema)
    for name in ("title", "description"):
        text, own = words.get(name), schema.get(name)
        if text and own != text:
            made[name] = f"{text} {own}" if own and name == "description" else own or text
    return made


def _either(one: Json, other: Json) -> Json:
    if one == other:
        return one
    branches = [branch for schema in (one, other) for branch in schema.get("anyOf", [schema])]
    return {"anyOf": [branch for at, branch in enumerate(branches) if branch not in branches[:at]]}


def _handled(name: str) -> tuple[str, ...]:
    """Members that were read for this type, or that do not concern it."""
    read: Mapping[str, tuple[str, ...]] = {
        "object": ("properties", "required"),
        "array": ("items", "prefixItems"),
        "integer": ("exclusiveMinimum", "exclusiveMaximum"),
        "number": ("exclusiveMinimum", "exclusiveMaximum"),
    }
    of_others = (member for members in _OF_TYPE.values() for member in members if member not in _OWN.get(name, ()))
    return (*read.get(name, ()), *of_others, *ANNOTATIONS)


def _size(value: Any) -> int:
    members: Iterator[Any] = iter(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return 1 + sum(map(_size, members))
