"""Makes docs/first-five-minutes.svg, the picture in README.md, from a real run of the commands that README.md shows.

    .venv-dev/bin/python bin/terminal_image.py [--in FOLDER] [--out FILE]

Each command runs in a pseudo terminal, in FOLDER, where bin/omni-bridge is; what it shows is what the picture shows. Needs Cargo,
and the model of this machine (`bin/omni-bridge chat --local` installs it).
"""

import argparse
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 112
QUESTION = '"In one short sentence: why is the sky blue?"'
COMMANDS = (
    f"bin/omni-bridge chat -m local/smollm2 -t 0 {QUESTION}",
    """echo '{"jsonrpc":"2.0","id":1,"method":"chat","params":{"model":"offline/echo","stream":true,"messages":"""
    """[{"role":"user","content":"hello again"}]}}' | bin/omni-bridge --stdio""",
    f"PATH=$PWD/bin:$PATH cargo run -q --manifest-path clients/rust/Cargo.toml --example stream -- local/smollm2 {QUESTION}",
)
_ERASED = re.compile(r"[^\r\n]*\r\x1b\[K")  # what stood on a line until the answer came
_ADDRESSES = re.compile(r"@font-face \{\{.*?\}\}\s*|<!-- .*? -->", re.DOTALL)  # rich would have fonts fetched


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes docs/first-five-minutes.svg from a real run.")
    parser.add_argument("--in", dest="folder", type=Path, default=ROOT, help="where bin/omni-bridge is")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "first-five-minutes.svg")
    options = parser.parse_args()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for command in COMMANDS:
        text = Text.assemble(("$ ", "bold green"), (command, "bold"), "\n")
        text.append_text(Text.from_ansi(shown(command, options.folder)))
        for line in text.split("\n"):
            for part in line.divide(range(COLUMNS, len(line), COLUMNS)):  # as a terminal folds, not between words
                console.print(part)
        console.print()
    svg = console.export_svg(title="omni-bridge", code_format=_ADDRESSES.sub("", CONSOLE_SVG_FORMAT), unique_id="omni-bridge")
    options.out.write_text(svg, encoding="utf-8")
    print(f"{options.out} is made", file=sys.stderr)


def shown(command: str, folder: Path) -> str:
    """What a terminal shows of ``command``. Raises SystemExit when it fails."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(["sh", "-c", command], cwd=folder, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    data = b""
    while True:
        try:
            data += os.read(ours, 65536)
        except OSError:  # EIO: it has ended
            break
    os.close(ours)
    text = data.decode()
    if process.wait():
        raise SystemExit(f"{command}\nended with {process.returncode}:\n{text}")
    return _ERASED.sub("", text.replace("\r\n", "\n"))


if __name__ == "__main__":
    main()
