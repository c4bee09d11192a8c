"""What goes into a bundle, and what is left out and why.

Owns choosing files: the locked distributions as their RECORDs list them, the interpreter's standard library. Each file that a
RECORD has a hash of is held against it, so that nothing edited or stray is shipped. Refuses to change or write a file.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, PackagePath
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SITE = f"python/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
STDLIB = SITE.removesuffix("/site-packages")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Files by shell patterns, of which * also matches a slash."""

    patterns: tuple[str, ...]
    reason: str


FROM_PACKAGES = (
    # Files only: modules of the proxy are imported here and there on the way of a chat, and which ones is LiteLLM's affair.
    LeftOut(
        ("litellm/proxy/_experimental/out/*", "litellm/proxy/swagger/*", "litellm/proxy/*.png", "litellm/proxy/*.jpg", "*.prisma"),
        "the dashboard, pages and database schema of LiteLLM's proxy server",
    ),
    LeftOut(("litellm/proxy/_lazy_openapi_snapshot.json",), "the description of LiteLLM's proxy server"),
    LeftOut(("hf_xet/*", "hf_xet-*"), "downloads from Hugging Face, which the worker switches off"),
    LeftOut(("botocore/data/*", "boto3/data/*"), "descriptions of the AWS services that LiteLLM does not call"),
    LeftOut(("boto3/examples/*", "*/tests/*", "*/test/*"), "tests and examples of packages"),
    LeftOut(("*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.cpp"), "sources that nothing reads"),
    LeftOut(("*.dist-info/RECORD", "*.dist-info/INSTALLER", "*.dist-info/REQUESTED", "*.dist-info/WHEEL"), "how it was installed"),
)
# What LiteLLM makes clients of, and what finds credentials.
AWS = ("bedrock", "sagemaker", "sts", "sso", "signin", "s3", "kms", "secretsmanager", "dynamodb", "polly", "transcribe", "textract")
KEPT = (
    *(f"botocore/data/{service}*" for service in AWS),
    *(f"botocore/data/{name}.json" for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry")),
)

FROM_PYTHON = (
    LeftOut(("test/*", "*/test/*", "*/tests/*", "lib-dynload/_test*", "lib-dynload/xx*", "lib-dynload/_xx*"), "Python's tests"),
    LeftOut(
        ("idlelib/*", "tkinter/*", "turtledemo/*", "turtle.py", "lib-dynload/_tkinter*"),
        "windows: they need Tk, and an agent has none",
    ),
    LeftOut(("ensurepip/*", "venv/*", "lib2to3/*", "distutils/*", "config-*", "pydoc_data/*"), "building and installing packages"),
    LeftOut(("lib-dynload/readline*", "lib-dynload/_gdbm*", "lib-dynload/_dbm*"), "bindings of libraries under the GPL"),
    LeftOut(
        (
            "curses/*",
            "lib-dynload/_curses*",
            "lib-dynload/nis*",
            "lib-dynload/_crypt*",
            "lib-dynload/spwd*",
            "lib-dynload/ossaudiodev*",
        ),
        "bindings of libraries that nothing here uses",
    ),
    LeftOut(
        ("site-packages/*", "dist-packages/*", "EXTERNALLY-MANAGED", "sitecustomize.py", "*.h", "*.txt"),
        "of the machine that builds",
    ),
)


def is_left_out(path: str, rules: tuple[LeftOut, ...]) -> bool:
    if any(fnmatchcase(path, pattern) for pattern in KEPT):
        return False
    return any(fnmatchcase(path, pattern) for rule in rules for pattern in rule.patterns)


def closure(required: Iterable[Requirement], alone: Iterable[Requirement]) -> dict[str, Distribution]:
    """``required``, with what those need in turn, and ``alone``, without; by name. Raises ValueError for what is not installed."""
    site = sysconfig.get_path("purelib")
    installed = {canonicalize_name(each.name): each for each in importlib.metadata.distributions(path=[site])}
    found = {canonicalize_name(each.name): installed[canonicalize_name(each.name)] for each in alone}
    seen: set[tuple[str, str]] = set()
    waiting = list(required)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ["", *requirement.extras]:
            if (name, extra) not in seen:
                seen.add((name, extra))
                if name not in installed:
                    raise ValueError(f"{name} is not installed: run bin/bootstrap.py")
                found[name] = installed[name]
                waiting += _needs(installed[name], extra)
    return dict(sorted(found.items()))


def _needs(distribution: Distribution, extra: str) -> Iterator[Requirement]:
    for requirement in map(Requirement, distribution.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def files_of(distribution: Distribution, work: Path) -> Iterator[tuple[str, Path]]:
    """Each with its path in site-packages, as it was published. Raises ValueError when a file was changed."""
    for file in distribution.files or []:
        path = file.as_posix()
        if not path.startswith("../") and "__pycache__" not in path and not is_left_out(path, FROM_PACKAGES):
            yield path, _published(file, work)


def _published(file: PackagePath, work: Path) -> Path:
    """Some networks add a certificate of their own to certifi's list: what was published is shipped then, cut out into ``work``."""
    source = Path(str(file.locate()))
    if file.hash is None:
        return source
    data = source.read_bytes()
    if _digest(file.hash.mode, data) == file.hash.value:
        return source
    if _digest(file.hash.mode, data[: file.size]) != file.hash.value:
        raise ValueError(f"{source} is not what was installed: remove the environment and build again")
    copy = work / file.hash.value
    copy.write_bytes(data[: file.size])
    return copy


def standard_library() -> Iterator[tuple[str, Path]]:
    """Each file with its path in the folder ``lib/python3.X``."""
    folder = Path(sysconfig.get_path("stdlib"))
    for source in sorted(folder.rglob("*")):
        path = source.relative_to(folder).as_posix()
        if source.is_file() and "__pycache__" not in path and not is_left_out(path, FROM_PYTHON):
            yield path, source


def _digest(algorithm: str, data: bytes) -> str:
    """As a RECORD spells it."""
    return base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).decode().rstrip("=")
