"""Coverage-guided: Atheris changes inputs that reach new branches of what cuts and decodes; `guided_targets.check` judges each.

    PYTHON -m tests.fuzz.guided FOLDER -max_total_time=3600 -max_len=400     options are libFuzzer's
    PYTHON -m tests.fuzz.guided --seeds FOLDER                               writes the streams of the unit tests there
    PYTHON -m tests.fuzz.guided --keep FOLDER                                makes the kept corpus of the (merged) inputs there

PYTHON has Atheris and the packages of this project; Atheris is not one of its dependencies. Owns the corpus. Refuses to judge.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

KEPT = Path(__file__).with_name("guided_corpus.txt")
_MAX_BYTES, _MAX_INPUTS = 240, 600


def write_seeds(folder: Path) -> None:
    from tests.fuzz import guided_targets, references, test_wire_fuzz

    names = list(guided_targets.TARGETS)
    makers = {maker: name for name, maker in guided_targets.MAKERS.items()}
    inputs = [(makers[case.make], case.data) for case in test_wire_fuzz.STREAMS if case.data and len(case.data) < 400]
    reply: list[references.Part] = [("thought", "a"), ("text", "bé"), ("call", ("f", {"x": 1}))]
    inputs += [(name, write(reply)) for name, write in references.WRITERS.values()]
    inputs += [("lines", b'{"id":1}\r\n[1,"\\"",{}]\n\n'), ("sse", b": c\r\nevent: e\ndata: {}\n\n"), ("array", b'[{"a":"]"},{}]')]
    for name, data in inputs:
        for seed in (0, 9):
            whole = bytes([names.index(name), seed]) + data
            folder.joinpath(hashlib.sha256(whole).hexdigest()[:20]).write_bytes(whole)


def keep(folder: Path) -> None:
    """As many as the suite can check each time, of every size that is not long."""
    inputs = sorted((path.read_bytes() for path in folder.iterdir()), key=lambda data: (len(data), data))
    short = [data for data in inputs if 2 < len(data) <= _MAX_BYTES]
    kept = short[:: 1 + len(short) // _MAX_INPUTS]
    KEPT.write_text("".join(base64.b64encode(data).decode() + "\n" for data in kept))
    print(f"{len(kept)} of {len(inputs)} inputs")


def main() -> None:
    if sys.argv[1] == "--keep":
        keep(Path(sys.argv[2]))
    elif sys.argv[1] == "--seeds":
        write_seeds(Path(sys.argv[2]))
    else:
        import atheris

        with atheris.instrument_imports(include=["bridge_worker.backends.wire", "bridge_worker.protocol"]):
            from tests.fuzz import guided_targets
        atheris.Setup(sys.argv, guided_targets.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
