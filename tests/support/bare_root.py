"""A machine without Python, as far as a process can see: a root folder with glibc and nothing else, read-only, under another user.

Owns making the root and the command that starts a program in it. The network and the processes are this machine's.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

# A mount namespace of its own: nothing of this is seen outside, and all of it goes with the process.
ENTER = """
set -e
mount --bind "$1" "$1"
mount --rbind /proc "$1/proc"
mount --bind /dev/null "$1/dev/null"
mount -o remount,bind,ro "$1"
[ "$2" = no-tmp ] || mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
root=$1
shift 2
exec chroot --userspec=65534:65534 --groups= "$root" "$@"
"""


class BareRoot:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("proc", "tmp", "dev"):
            (folder / name).mkdir(parents=True)
        (folder / "dev" / "null").touch()
        for file in _glibc():
            target = folder / str(file).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        must_work = self.command("/nowhere")
        done = subprocess.run(must_work, capture_output=True, text=True, check=False)
        if "/nowhere" not in done.stderr or done.returncode != 127:  # chroot's own word that it came in and found no such program
            unable = f"no root of its own can be made here: {done.stderr}"
            pytest.fail(unable) if os.environ.get("CI") else pytest.skip(unable)

    def command(self, program: str, *words: str, env: Mapping[str, str] | None = None, tmp: bool = True) -> list[str]:
        """The environment is ``env`` and nothing else."""
        settings = [f"{name}={value}" for name, value in (env or {}).items()]
        alone = ["/usr/bin/env", "-i", *settings, shutil.which("unshare") or "unshare", "--mount"]
        if os.geteuid():
            alone.append("--map-root-user")
        return [*alone, "/bin/sh", "-c", ENTER, "sh", str(self.folder), "tmp" if tmp else "no-tmp", program, *words]


def _glibc() -> list[Path]:
    """Its loader, where programs look for it, and its libraries."""
    mapped = set(re.findall(r"/\S*/(?:libc\.so\.6|ld-linux\S*)$", Path("/proc/self/maps").read_text(), re.MULTILINE))
    (libc,) = (Path(path) for path in mapped if path.endswith("libc.so.6"))
    names = [
        f"lib{name}.so.{number}"
        for name, number in (("c", 6), ("m", 6), ("dl", 2), ("pthread", 0), ("rt", 1), ("util", 1), ("resolv", 2))
    ]
    loader = Path({"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}[platform.machine()])
    return [loader, *(libc.parent / name for name in names)]
