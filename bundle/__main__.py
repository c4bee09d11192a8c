"""``bin/build-bundle``: makes ``dist/omni-bridge/`` and its archive from what is installed in this environment.

Owns the order of the steps. The environment is `.venv-dev`, so that what is shipped is, file by file, what the tests ran on.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

from bundle import archive, bill, contents, deferred, licences, native
from bundle.bytecode import compiled
from bundle.contents import SITE, STDLIB

ROOT = Path(__file__).parents[1]
NAME = "omni-bridge"
_NOT_OF_A_CHECKOUT = (".git", ".venv*", "dist", "target", ".node", "__pycache__", ".*_cache", ".hypothesis")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/build-bundle", description="Makes dist/omni-bridge/ and its .tar.gz.")
    parser.add_argument("--with-local", action="store_true", help="llama.cpp and its default model too: 200 MB more")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for what is made, dist otherwise")
    parser.add_argument("--verify", action="store_true", help="make it once more, from a copy of the checkout, and compare")
    options = parser.parse_args()
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return _failed("bundles are made on Linux with glibc; docs/packaging.md says what to do elsewhere")
    try:
        made = make(options.out.absolute(), options.with_local)
        if options.verify:
            verify(made, options.with_local)
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
        return _failed(str(error))
    return 0


def make(out: Path, with_local: bool) -> Path:
    """Returns the archive. The folder in ``out`` is replaced only when the new one is whole."""
    out.mkdir(parents=True, exist_ok=True)
    target = f"linux-{platform.machine()}"
    packed = out / f"{NAME}-{bill.VERSION}-{target}{'-local' * with_local}.tar.gz"
    with tempfile.TemporaryDirectory(prefix=".making-", dir=out) as work:
        root = Path(work, NAME)
        fill(root, target, with_local)
        archive.settle(root)
        archive.pack(root, packed)
        packed.with_name(packed.name + ".sha256").write_text(archive.checksums(out, [packed]))
        shutil.rmtree(out / NAME, ignore_errors=True)
        root.rename(out / NAME)
    size = sum(file.stat().st_size for file in archive.files_in(out / NAME))
    _print_line(f"{out / NAME}: {size / 1e6:.0f} MB; {packed.name}: {packed.stat().st_size / 1e6:.0f} MB")
    return packed


def fill(root: Path, target: str, with_local: bool) -> None:
    whole, alone = bill.required(with_local)
    shipped: dict[str, Distribution] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = {f"{STDLIB}/{path}": source for path, source in contents.standard_library()}
        for name, distribution in contents.closure(whole, alone).items():
            if chosen := dict(contents.files_of(distribution, work)):
                files |= {f"{SITE}/{path}": source for path, source in chosen.items()}
                shipped[name] = distribution
        files |= {f"{SITE}/{path}": source for path, source in our_wheel(work)}
        files |= neutral_sysconfig(files, work)
        files |= deferred.rewritten(Path(sysconfig.get_path("purelib")), SITE, work)
        write(root, files)
    owners = {name: licences.owner_of(path) for name, path in add_native(root).items()}
    glibc = native.needed_glibc(file for file in archive.files_in(root) if native.is_elf(file))
    versions = {name: distribution.version for name, distribution in shipped.items()}
    manifest = bill.manifest(target, glibc, versions | owners, with_local)
    papers = {
        "manifest.json": bill.as_json(manifest),
        "sbom.json": bill.as_json(bill.bill_of_materials(set(shipped), whole + alone, owners)),
        "README.txt": bill.README.format(**manifest).encode(),
        "licenses/omni-bridge.txt": (ROOT / "LICENSE").read_bytes(),
        "licenses/python.txt": licences.of_python(),
        **{f"licenses/{name}.txt": licences.of_distribution(distribution) for name, distribution in shipped.items()},
        **{f"licenses/{name}.txt": licences.of_package(owner) for name, owner in owners.items()},
    }
    for path, data in papers.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(data)
    (root / "SHA256SUMS").write_text(archive.checksums(root, archive.files_in(root)))


def our_wheel(work: Path) -> Iterator[tuple[str, Path]]:
    """The package as a wheel has it, unpacked into ``work``."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(work)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    (wheel,) = work.glob("*.whl")
    unpacked = work / "wheel"
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(unpacked)
    for file in archive.files_in(unpacked):
        path = file.relative_to(unpacked).as_posix()
        if not contents.is_left_out(path, contents.FROM_PACKAGES):
            yield path, file


def neutral_sysconfig(files: dict[str, Path], work: Path) -> dict[str, Path]:
    """What Python knows of its own build names the folder that it was installed in on this machine, 80 times."""
    changed = {}
    for path, source in files.items():
        if source.name.startswith("_sysconfigdata"):
            changed[path] = work / source.name
            changed[path].write_text(source.read_text("utf-8").replace(sys.base_prefix, f"/{NAME}/python"), "utf-8")
    return changed


def write(root: Path, files: dict[str, Path]) -> None:
    modules = {path: source for path, source in files.items() if path.endswith(".py")}
    for path, source in files.items():
        if path not in modules:
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for path, code in compiled(modules):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(code)


def add_native(root: Path) -> dict[str, Path]:
    """The launcher, the interpreter and what they link. Returns the libraries that are not Python's own."""
    binaries = native.interpreter()
    elves = [file for file in archive.files_in(root) if native.is_elf(file)]
    libraries = native.libraries([*elves, *binaries.values()], root)
    libraries = {name: path for name, path in libraries.items() if path not in binaries.values()}
    for path, source in {**binaries, **{f"{native.LIBRARIES}/{name}": path for name, path in libraries.items()}}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / path)
    for file in archive.files_in(root):
        if native.is_elf(file) and not file.is_relative_to(root / SITE):
            native.make_relocatable(file)
    native.make_launcher(root / NAME)
    if missing := native.unresolved(root, [file for file in archive.files_in(root) if native.is_elf(file)]):
        raise ValueError("it would not run: " + "; ".join(missing))
    return libraries


def verify(made: Path, with_local: bool) -> None:
    """Makes it from a copy of the checkout in another folder. Raises ValueError unless both archives are the same."""
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work, "elsewhere", "copy of the checkout")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*_NOT_OF_A_CHECKOUT))
        again = [sys.executable, "-s", "-X", "utf8", "-m", "bundle", *["--with-local"] * with_local]
        subprocess.run(again, cwd=copy, env=os.environ | {"PYTHONHASHSEED": "random"}, check=True)
        if not filecmp.cmp(made, copy / "dist" / made.name, shallow=False):
            raise ValueError(f"{made.name} is another when it is made elsewhere")
    _print_line("made once more elsewhere: the same, byte for byte")


def _print_line(text: str) -> None:
    print(f"omni-bridge: {text}", file=sys.stderr)


def _failed(reason: str) -> int:
    _print_line(f"no bundle: {reason}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
