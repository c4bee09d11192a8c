"""PEP 810's meaning of an import statement, for packages that the hook is installed for: small packages, loaded in this process."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib
import inspect
import itertools
import pickle
import py_compile
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from unittest import mock

import pydantic
import pytest

from bridge_worker.deferred_imports import code_cache, hook
from bridge_worker.deferred_imports.sources import Sources

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook is of no use to a process that does not keep what it rewrites."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


Load = Callable[..., ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Writes a package, installs the hook for it and imports it. ``PKG`` in a source is the package's name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    made = []

    def start(
        files: Mapping[str, str],
        *,
        deferred: bool = True,
        usual: tuple[str, ...] = (),
        constants: tuple[str, ...] = (),
        types: bool = False,
    ) -> ModuleType:
        name = f"deferred_test_{next(_numbers)}"
        made.append(name)
        write(tmp_path, name, files)
        importlib.invalidate_caches()
        if deferred:
            late = [name] if types else []
            hook.install({name: Sources(name).digest()}, [f"{name}.{module}" for module in usual], {name: constants}, late)
        return importlib.import_module(name)

    yield start
    sys.meta_path[:] = before
    for name in [module for module in sys.modules if module.split(".")[0] in made]:
        del sys.modules[name]


def write(root: Path, name: str, files: Mapping[str, str]) -> None:
    """With the record that an installer makes."""
    lines = []
    for file, source in {"__init__.py": "", **files}.items():
        path = root / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        content = source.replace("PKG", name).encode()
        path.write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{name}/{file},sha256={digest},{len(content)}\n")
    record = root / f"{name}-1.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("".join(lines))


def loaded(package: ModuleType) -> set[str]:
    prefix = f"{package.__name__}."
    return {module.removeprefix(prefix) for module in sys.modules if module.startswith(prefix)}


@pytest.mark.parametrize(
    "statement",
    [
        "from .part import thing",
        "from PKG.part import thing",
        "from PKG.part import other as thing",
        "from .part import *",
    ],
)
def test_a_module_is_loaded_when_one_of_its_names_is_used(load: Load, statement: str) -> None:
    package = load({"__init__.py": f"{statement}\ndef use():\n    return thing", "part.py": "thing = other = object()"})
    assert loaded(package) == set()
    used = package.use()
    assert loaded(package) == {"part"}
    assert used is sys.modules[f"{package.__name__}.part"].thing
    assert vars(package)["thing"] is used  # found without the hook from here on


@pytest.mark.parametrize(
    ("statement", "use"),
    [
        ("import PKG.a.b", "PKG.a.b.x"),
        ("import PKG.a.b as k", "k.x"),
        ("import PKG.a\nimport PKG.a.b", "PKG.a.b.x"),
        ("from . import a", "a.b.x"),
        ("from .a import b", "b.x"),
    ],
)
def test_each_form_of_an_import_statement_binds_what_it_binds_without_the_hook(load: Load, statement: str, use: str) -> None:
    files = {"user.py": f"{statement}\ndef use():\n    return {use}", "a/__init__.py": "", "a/b.py": "x = 3"}
    package = load(files)
    user = importlib.import_module(f"{package.__name__}.user")
    assert loaded(package) == {"user"}
    assert user.use() == 3


def test_another_module_sees_the_name_as_an_attribute_and_can_import_it(load: Load) -> None:
    package = load({"a.py": "from .b import x\nimport PKG.b as k", "b.py": "x = object()", "c.py": "from .a import x, k"})
    a = importlib.import_module(f"{package.__name__}.a")
    assert hasattr(a, "x")
    assert "x" in dir(a)
    c = importlib.import_module(f"{package.__name__}.c")
    assert c.x is a.x is c.k.x


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    from .part import x\nexcept ImportError:\n    x = None",
        "if True:\n    from .part import x",
        "with open(__file__):\n    from .part import x",
        "class A:\n    from .part import x",
        "x = 1\nfrom .part import x",
        "from .part import x\nx = 1",
        "from .part import x\nfrom .part import y as x",
        "from .part import x\ndef x(): pass",
        "from .part import x\ndel x",
        "from .part import input",
        "from .part import x\nglobals()",
        "from .part import x\nlocals()['y'] = 2",
        "from .part import x\nclass A(x): pass",
        "from .part import x\nclass A:\n    x = x\n    def f(self, a: x): pass",
        "from .part import x\nclass A:\n    a: x",
        "from .part import x\nfor x in (): pass",
    ],
)
def test_a_statement_that_cannot_wait_runs_where_it_is_written(load: Load, source: str) -> None:
    package = load({"__init__.py": source, "part.py": "class x: pass\ny = input = 2"})
    assert "part" in loaded(package)
    reference = load({"__init__.py": source, "part.py": "class x: pass\ny = input = 2"}, deferred=False)
    assert public(package) == public(reference)


def public(module: ModuleType) -> dict[str, str]:
    """Names with what they mean, so that the same package under two names gives the same."""
    values = {name: getattr(module, name) for name in dir(module) if not name.startswith("__")}
    return {
        name: repr(value).replace(module.__name__, "PKG").split(" at 0x")[0]
        for name, value in values.items()
        if not isinstance(value, ModuleType)  # which submodules are loaded differs, as it should
    }


@pytest.mark.parametrize(
    "source",
    [
        "from .a import x\nfrom .star import *",  # one object, by two paths
        "from .star import *\nfrom .a import x",
        "from .star import *\nfrom .b import y",
        "from .b import y as z\nfrom .star import *",  # the star has another z
        "z = 1\nfrom .star import *",
        "z = 1\nfrom .star import *\nz = 2",
        "from .star import *\nz = 2",
        "from .star import *\nfrom .second import *",
        "from .second import *\nfrom .star import *",
        "from .listed import *",
        "from .computed import *\nfrom .a import x",
        "def z(): pass\nfrom .star import *\ndef use(): return z",
        "from typing import Callable\nfrom .star import *",
    ],
)
def test_a_star_brings_what_it_brings_without_the_hook(load: Load, source: str) -> None:
    files = {
        "__init__.py": source,
        "a.py": "x = 'a.x'",
        "b.py": "y = 'b.y'",
        "star.py": "from .a import x\nfrom .b import *\nfrom collections.abc import Callable\nz = 's.z'\n_p = 1\n[q for q in ()]",
        "second.py": "from .a import x as z\nx = 'second.x'\nfor w in (1, 2): pass\ndel w",
        "listed.py": "from .a import x\n__all__ = ['x', '_private']\n_private = 2\nother = 3",
        "computed.py": "from .star import *\n__all__ = [name for name in ('x', 'z')]",
    }
    assert public(load(files)) == public(load(files, deferred=False))


def test_a_star_of_a_package_brings_submodules_that_are_loaded(load: Load) -> None:
    package = load({"__init__.py": "from .parts import *", "parts/__init__.py": "", "parts/one.py": "x = 1"})
    assert loaded(package) == set()
    assert package.one.x == 1


def test_a_star_outside_of_the_package_gets_the_deferred_names(load: Load) -> None:
    package = load({"__init__.py": "from .part import x\n_private = 1\ndef f(): return len", "part.py": "x = 1"})
    namespace: dict[str, object] = {}
    exec(f"from {package.__name__} import *", namespace)
    assert set(namespace) - {"__builtins__"} == {"f", "part", "x"}


def test_a_failed_import_is_an_import_error_at_each_use(load: Load) -> None:
    source = "from .missing import x\nfrom .broken import y\nfrom .part import z\ndef use(name):\n    return eval(name)"
    package = load({"__init__.py": source, "broken.py": "{}['key']", "part.py": ""})
    for name, message in (("x", "missing"), ("y", "KeyError"), ("z", "cannot import name 'z'")):
        for _ in range(2):
            with pytest.raises(ImportError, match=message):
                package.use(name)
            with pytest.raises(ImportError, match=message):
                getattr(package, name)
    with pytest.raises(NameError):
        package.use("never_bound")
    with pytest.raises(AttributeError):
        _ = package.never_bound


def test_modules_that_need_each_other_find_each_other(load: Load) -> None:
    package = load({"a.py": "from .b import B\nclass A: other = lambda self: B", "b.py": "from .a import A\nclass B(A): pass"})
    a = importlib.import_module(f"{package.__name__}.a")
    assert a.A().other() is a.B
    assert issubclass(a.B, a.A)


def test_a_circle_of_names_is_an_import_error(load: Load) -> None:
    package = load({"a.py": "from .b import x", "b.py": "from .a import x"})
    a = importlib.import_module(f"{package.__name__}.a")
    with pytest.raises(ImportError):
        _ = a.x


def test_a_modules_own_getattr_comes_after_the_table(load: Load) -> None:
    source = "from .part import x\ndef __getattr__(name):\n    if name == 'made': return name\n    raise AttributeError(name)"
    package = load({"__init__.py": source, "part.py": "x = 1"})
    assert (package.x, package.made) == (1, "made")
    with pytest.raises(AttributeError):
        _ = package.other


def test_a_submodule_does_not_replace_a_name_of_the_package(load: Load) -> None:
    package = load({"__init__.py": "from .thing import thing\ndef use(): return thing", "thing.py": "def thing(): pass"})
    module = importlib.import_module(f"{package.__name__}.thing")
    assert package.thing is module.thing
    assert package.use() is module.thing


def test_a_chain_of_attributes_reaches_a_submodule_that_a_deferred_statement_would_have_loaded(load: Load) -> None:
    package = load({"__init__.py": "import PKG.a.b", "a/__init__.py": "", "a/b.py": "x = 1"})
    assert sys.modules[package.__name__].a.b.x == 1


def test_a_replaced_name_is_seen_by_the_module_and_by_those_who_import_it_later(load: Load) -> None:
    package = load({"__init__.py": "from .part import x\ndef use(): return x", "part.py": "x = 1", "user.py": "from . import x"})
    with mock.patch.object(package, "x", 2):
        assert package.use() == 2
    assert package.use() == 1
    package.x = 3
    assert importlib.import_module(f"{package.__name__}.user").x == package.use() == 3


def test_annotations_that_are_text_are_evaluated(load: Load) -> None:
    source = (
        "from __future__ import annotations\nimport dataclasses\nfrom typing import ClassVar\nfrom .part import Thing\n"
        "@dataclasses.dataclass\nclass A:\n    thing: Thing\n    kind: ClassVar[Thing] = None\n"
        "def f(a: Thing) -> list[Thing]: ..."
    )
    package = load({"__init__.py": source, "part.py": "class Thing: pass"})
    assert loaded(package) == set()
    assert [field.name for field in dataclasses.fields(package.A)] == ["thing"]
    assert typing.get_type_hints(package.f) == {"a": package.Thing, "return": list[package.Thing]}
    assert typing.get_type_hints(package.A)["thing"] is package.Thing


def test_annotations_of_functions_load_nothing_until_they_are_evaluated(load: Load) -> None:
    source = (
        "from .part import Thing\n"
        "def f(a: Thing, *b: list[Thing], c: int = 1, **d: Thing | None) -> dict[str, Thing]: ...\n"
        "class A:\n    async def f(self, a: 'Thing', b: int) -> Thing: ..."
    )
    package = load({"__init__.py": source, "part.py": "class Thing: pass"})
    assert loaded(package) == set()
    signature = inspect.signature(package.f)
    thing = package.Thing
    expected = {"a": thing, "b": list[thing], "c": int, "d": thing | None, "return": dict[str, thing]}
    assert {name: one.annotation for name, one in signature.parameters.items()} | {
        "return": signature.return_annotation
    } == expected
    assert typing.get_type_hints(package.f) == package.f.__annotations__ == expected
    assert package.A.f.__annotations__ == {"a": "Thing", "b": int, "return": thing}
    assert typing.get_type_hints(package.A.f) == {"a": thing, "b": int, "return": thing}
    assert inspect.getsource(package.A.f).strip().startswith("async def f")


@pytest.mark.parametrize("read", [dict, list, repr, lambda one: {**one}, lambda one: one["a"], lambda one: one.get("a")])
def test_each_form_of_reading_annotations_evaluates_them(load: Load, read: Callable[[object], object]) -> None:
    package = load({"__init__.py": "from .part import Thing\ndef f(a: Thing): ...", "part.py": "class Thing: pass"})
    assert read(package.f.__annotations__) == read({"a": package.Thing})


@pytest.mark.parametrize("made", ["pydantic.validate_call", "functools.wraps(print)", "functools.singledispatch"])
def test_what_reads_annotations_of_a_function_finds_types(load: Load, made: str) -> None:
    source = f"import functools, pydantic\nfrom .part import Thing\n@{made}\ndef f(a: Thing, b: int = 1): return b"
    package = load({"__init__.py": source, "part.py": "from pydantic import BaseModel\nclass Thing(BaseModel): x: int = 1"})
    assert package.f(package.Thing(), b=2) == 2


def test_pydantic_models_find_the_types_of_their_fields(load: Load) -> None:
    source = "from __future__ import annotations\nfrom pydantic import BaseModel\nfrom .part import Thing\n"
    source += "class A(BaseModel):\n    thing: Thing"
    package = load({"__init__.py": source, "part.py": "from pydantic import BaseModel\nclass Thing(BaseModel):\n    x: int"})
    assert package.A(thing={"x": 1}).thing == package.Thing(x=1)


def test_objects_can_be_pickled_and_their_source_read(load: Load) -> None:
    package = load({"__init__.py": "from .part import Thing\ndef f():\n    return Thing\n", "part.py": "class Thing: pass"})
    assert pickle.loads(pickle.dumps(package.f)) is package.f
    assert type(pickle.loads(pickle.dumps(package.Thing()))) is package.Thing
    assert inspect.getsource(package.f) == "def f():\n    return Thing\n"
    assert inspect.getmodule(package.f) is package


def test_functions_find_builtins_at_their_usual_speed_and_nothing_else_sees_them(load: Load) -> None:
    package = load({"__init__.py": "from .part import x\ndef f(y):\n    return len(y), isinstance(y, str)", "part.py": "x = 1"})
    assert package.f("ab") == (2, True)
    assert "len" in vars(package)
    assert "len" not in dir(package)


def test_threads_that_need_a_name_together_get_one_object(load: Load) -> None:
    package = load(
        {
            "__init__.py": "from .a import x\nfrom .b import y\ndef use(name): return eval(name)",
            "a.py": "from .b import y\nimport time\nx = object()\ndef f(): return y",
            "b.py": "from .a import x\nclass Y:\n    z = x\ny = Y()",
        }
    )
    gate = threading.Barrier(8)
    found: list[object] = []

    def use(name: str) -> None:
        gate.wait()
        found.append((name, package.use(name)))

    threads = [threading.Thread(target=use, args=("xy"[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8
    assert len(set(found)) == 2


_COSTLY = """
from .part import parse
read = []
try:
    with open(__file__) as file:
        data = parse(read, file)
except OSError:
    data = None
text = str(data)
def use(): return text
"""


@pytest.mark.parametrize(
    "use", ["package.use()", "package.text", "getattr(package, 'data') and package.text", "package.file and package.text"]
)
def test_a_costly_constant_is_computed_once_when_it_is_used(load: Load, use: str) -> None:
    files = {"__init__.py": _COSTLY, "part.py": "def parse(read, file):\n    read.append(file)\n    return len(read)"}
    package = load(files, constants=("data", "text"))
    assert {"data", "text", "file"} <= set(dir(package)) - set(vars(package))
    assert (package.read, loaded(package)) == ([], set())
    assert [eval(use), package.use(), package.text] == ["1"] * 3
    assert package.read == [package.file]
    assert {"data", "text", "file"} <= set(vars(package))
    importlib.reload(package)  # what was kept
    assert package.read == []


def test_a_constant_of_which_another_statement_binds_a_name_is_computed_where_it_is_written(load: Load) -> None:
    package = load({"__init__.py": "a = b = 1\nb = 2\nc = a"}, constants=("a",))
    assert (vars(package)["a"], vars(package)["b"]) == (1, 2)


def test_a_constant_that_cannot_be_computed_is_an_import_error_at_each_use(load: Load) -> None:
    package = load({"__init__.py": "a = 1 / 0"}, constants=("a",))
    for _ in range(2):
        with pytest.raises(ImportError, match="division by zero"):
            package.a  # noqa: B018


_MODELS = """
from typing import Annotated, Literal
from pydantic import BaseModel, Field
from .part import kind
class Cat(BaseModel):
    kind: Literal["cat"]
    friends: "list[Pet]" = []
class Dog(BaseModel):
    kind: Literal["dog"]
    owner: "Dog | None" = None
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Pets = list[Pet]
class Zoo(BaseModel):
    pets: Pets
def zoo(pet: Zoo = None, **rest: Pets) -> "Pets":
    return Zoo(pets=[pet])
"""


def test_a_class_or_an_alias_is_made_when_it_is_used(load: Load) -> None:
    package = load({"__init__.py": _MODELS, "part.py": "kind = 'cat'"}, types=True)
    assert {"Cat", "Dog", "Pet", "Pets", "Zoo"} <= set(dir(package)) - set(vars(package))
    assert package.Dog(kind="dog", owner={"kind": "dog"}).owner.owner is None
    assert {"Cat", "Pets", "Zoo"}.isdisjoint(vars(package))
    assert package.zoo({"kind": "cat", "friends": [{"kind": "dog"}]}).pets[0].friends == [package.Dog(kind="dog")]
    assert {"Cat", "Pet", "Pets"} <= set(vars(package))
    assert package.Zoo is vars(package)["Zoo"]
    assert package.Zoo.__module__ == package.__name__
    assert pickle.loads(pickle.dumps(package.Cat(kind="cat"))) == package.Cat(kind="cat")
    assert typing.get_type_hints(package.zoo)["pet"] == package.Zoo


def test_a_regular_expression_is_compiled_when_it_is_used(load: Load) -> None:
    source = 'import re\nA = re.compile("a" "b" + "c", re.I | re.X)\ndef use(text):\n    return A.fullmatch(text)'
    package = load({"__init__.py": source}, types=True)
    assert "A" not in vars(package)
    assert package.use("ABC")
    assert "A" in vars(package)


def test_one_module_of_a_package_may_be_deferred(load: Load) -> None:
    files = {
        "costly.py": "from .part import x\nc = print",
        "part.py": "x = 1",
        "usual.py": "from .other import y",
        "other.py": "y = 1",
    }
    package = load(files, deferred=False)
    name = package.__name__
    hook.install({f"{name}.costly": Sources(f"{name}.costly").digest()}, (), {f"{name}.costly": ("c",)})
    costly = importlib.import_module(f"{name}.costly")
    assert (loaded(package), "c" in vars(costly)) == ({"costly"}, False)
    assert (costly.x, costly.c) == (1, print)
    importlib.import_module(f"{name}.usual")
    assert loaded(package) == {"costly", "part", "usual", "other"}


def test_another_version_of_one_module_is_loaded_as_usual(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    package = load({"costly.py": "from .part import x", "part.py": "x = 1"}, deferred=False)
    with caplog.at_level("INFO"):
        hook.install({f"{package.__name__}.costly": "0" * 64})
    assert "are not those that deferred imports were tested with" in caplog.text
    importlib.import_module(f"{package.__name__}.costly")
    assert loaded(package) == {"costly", "part"}


def test_what_waits_for_a_module_is_called_at_the_end_of_its_import(load: Load) -> None:
    package = load({"__init__.py": "from .part import x\ndef use():\n    return x", "part.py": "x = 1"})
    name = f"{package.__name__}.part"

    def change() -> None:
        sys.modules[name].x = 2  # type: ignore[attr-defined]

    hook.when_loaded(name, change)
    assert package.use() == 2
    called: list[int] = []
    for module in (name, "json.tool", "nothing.part"):  # it is loaded; not deferred
        hook.when_loaded(module, lambda: called.append(1))
    assert len(called) == 3


def test_models_with_late_types_are_those_without(load: Load) -> None:
    late, usual = (load({"__init__.py": _MODELS, "part.py": "kind = 1"}, types=types) for types in (True, False))
    for name in ("Zoo", "Cat", "Dog"):
        assert getattr(late, name).model_json_schema() == getattr(usual, name).model_json_schema()


@pytest.mark.parametrize(
    "source",
    [
        "class A: pass\nA = A()",
        "if True:\n    A = None\nclass A: pass",
        "from .part import *\nclass A: pass",
        "A = dict[str, print('called')]",
        "A = [1][0]\ndel A\nA = 2",
        "A = {}",
        "import re\npattern = 'a'\nA = re.compile(pattern)",
        "import re\nA = re.compile('a').match('a')",
        "class A: pass\nlocals()",
    ],
)
def test_a_type_that_something_else_binds_too_and_what_calls_are_made_where_they_are_written(load: Load, source: str) -> None:
    package = load({"__init__.py": source, "part.py": "A = 1"}, types=True)
    assert "A" in vars(package)


def test_a_late_class_has_the_annotations_of_its_source_and_a_name_that_is_nowhere_is_an_import_error(load: Load) -> None:
    source = "from __future__ import annotations\nclass A:\n    b: nothing\nclass B(nothing): pass"
    package = load({"__init__.py": source}, types=True)
    assert package.A.__annotations__ == {"b": "nothing"}
    for _ in range(2):
        with pytest.raises(ImportError, match="nothing"):
            package.B  # noqa: B018


def test_a_second_process_reads_the_rewritten_module_and_a_changed_source_is_rewritten(load: Load, tmp_path: Path) -> None:
    package = load({"__init__.py": "from .part import x", "part.py": "x = 1"})
    folder = Path(package.__file__ or "").parent
    assert [path.name for path in (folder / "__pycache__").glob("__init__*deferred*")]
    with mock.patch.object(hook.DeferringFinder, "rewrite", side_effect=AssertionError):
        importlib.reload(package)
    assert package.x == 1


def test_a_folder_that_cannot_be_written_to_is_replaced_by_the_users_cache(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    name = f"deferred_test_{next(_numbers)}"
    write(tmp_path, name, {"part.py": ""})
    (tmp_path / name / "__pycache__").write_text("not a folder")
    hook.install({name: Sources(name).digest()})
    importlib.import_module(name)
    try:
        assert list(cache.rglob("__init__*deferred*"))
    finally:
        del sys.modules[name]


def test_annotations_of_a_typed_dict_load_nothing_until_they_are_evaluated(load: Load) -> None:
    source = """
from typing_extensions import Required, TypedDict
from .part import Thing
from .other import Other
class D(TypedDict, total=False):
    a: Thing
    b: list[Thing | None]
    c: int
    d: Required[Other]
"""
    package = load({"__init__.py": source, "part.py": "Thing = int", "other.py": "Other = str"})
    assert loaded(package) == {"other"}  # which keys are required is read when the class is made
    assert package.D.__required_keys__ == {"d"}
    assert list(package.D.__annotations__) == list("abcd")
    assert typing.get_type_hints(package.D) == {"a": int, "b": list[int | None], "c": int, "d": str}
    adapter = pydantic.TypeAdapter(package.D)
    assert adapter.validate_python({"a": 1, "d": "x"}) == {"a": 1, "d": "x"}
    with pytest.raises(pydantic.ValidationError, match="valid integer"):
        adapter.validate_python({"a": "x", "d": "x"})


@pytest.mark.parametrize("found", ["another digest", "no record", "no cache", "another Python"])
def test_a_package_that_cannot_be_deferred_is_loaded_as_usual_with_one_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, found: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"deferred_test_{next(_numbers)}"
    write(tmp_path, name, {})
    if found == "no record":
        (tmp_path / f"{name}-1.0.dist-info" / "RECORD").unlink()
    digest = Sources(name).digest() if found in ("no cache", "another Python") else "0" * 64
    if found == "another Python":
        monkeypatch.setattr(hook, "PYTHONS", ((3, 10),))
    if found == "no cache":
        (tmp_path / name / "__pycache__").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name / "__pycache__"))
    before = list(sys.meta_path)
    hook.install({name: digest})
    assert sys.meta_path == before
    assert len(caplog.records) == 1
    assert name in caplog.text


def test_a_package_of_bytecode_alone_is_loaded_as_usual_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"deferred_test_{next(_numbers)}"
    write(tmp_path, name, {})
    source = tmp_path / name / "__init__.py"
    py_compile.compile(str(source), str(source.with_suffix(".pyc")), doraise=True)
    source.unlink()
    before = list(sys.meta_path)
    hook.install({name: "0" * 64})
    assert sys.meta_path == before
    assert caplog.records == []


def test_a_package_of_bytecode_is_deferred_where_it_was_shipped_with_its_rewritten_modules(load: Load, tmp_path: Path) -> None:
    files = {
        "user.py": "from .part import x\nfrom .plain import y\ndef use(): return x, y",
        "part.py": "x = 1",
        "plain.py": "y = 2",
    }
    name = load(files).__name__
    importlib.import_module(f"{name}.user").use()
    for module in [module for module in sys.modules if module.split(".")[0] == name]:
        del sys.modules[module]
    sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "package", None) != name]
    for source in (tmp_path / name).glob("*.py"):
        kept = code_cache.load(str(source))
        assert kept
        py_compile.compile(str(source), str(source.with_suffix(".pyc")), doraise=True)
        Path(code_cache.place_of(str(source))).write_bytes(code_cache.content_of(kept))
        source.unlink()
    Path(code_cache.place_of(str(tmp_path / name / "plain.py"))).unlink()  # loaded as usual
    importlib.invalidate_caches()
    hook.install({name: "0" * 64})
    package = importlib.import_module(f"{name}.user")
    assert loaded(importlib.import_module(name)) == {"user"}
    assert package.use() == (1, 2)


def test_a_file_that_was_changed_after_it_was_installed_is_loaded_as_usual(
    load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = load({"part.py": "from .other import x", "other.py": "x = 1"})
    (tmp_path / package.__name__ / "part.py").write_text("from .other import x\ny = 2")
    importlib.import_module(f"{package.__name__}.part")
    assert loaded(package) == {"part", "other"}
    assert "was changed after it was installed" in caplog.text


def test_a_module_that_is_named_as_usual_is_loaded_as_usual(load: Load) -> None:
    package = load({"part.py": "from .other import x", "other.py": "x = 1"}, usual=("part",))
    importlib.import_module(f"{package.__name__}.part")
    assert loaded(package) == {"part", "other"}


def test_the_hook_is_installed_once(load: Load) -> None:
    package = load({})
    count = len(sys.meta_path)
    hook.install({package.__name__: Sources(package.__name__).digest()})
    assert len(sys.meta_path) == count
