"""How fast the worker is, beside its peers: `python3 benchmarks/run.py`, with any Python from 3.11, on Linux.

    python3 benchmarks/run.py                    some seven minutes, on a machine that does nothing else
    python3 benchmarks/run.py --quick            one round of the least, two minutes once all is set up
    python3 benchmarks/run.py --write-page       puts the table of the last run into docs/performance.md, and measures nothing

Sets up what it needs (bin/bootstrap.py, cargo, npm), prints a table, and writes results.json and results.svg. Exit code 0 when it
has measured, whatever the bars say. README.md beside this file says what is counted, and what was tried.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from benchmarks import bars, peer, plot, report, setting_up  # noqa: E402
from benchmarks.measure import FULL, QUICK, SMOKE, Figures, Plan, measure  # noqa: E402
from benchmarks.peer import FLOOR, PEERS, PLAIN, WORKER_NAME  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.write_page:
        report.write_page(json.loads((options.out / "results.json").read_text(encoding="utf-8")), ROOT / "docs/performance.md")
        return 0
    try:
        setting_up.needed()
    except setting_up.Absent as reason:
        print(f"benchmarks: {reason}", file=sys.stderr)
        return 2
    if options.smoke:
        peer.REST_SECONDS = 0.0
    plan = (SMOKE if options.smoke else QUICK if options.quick else FULL)._replace(
        **({"rounds": options.rounds} if options.rounds else {})
    )
    named = {PLAIN, WORKER_NAME, FLOOR, *options.only}
    peers = tuple(peer for peer in PEERS if (peer.name in named if options.only else options.all or not peer.is_extra))
    began = time.monotonic()
    figures = measure(plan, peers, lambda text: print(text, file=sys.stderr, flush=True))
    results = results_of(figures, plan, time.monotonic() - began)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (options.out / "results.svg").write_text(plot.svg(results), encoding="utf-8")
    print(report.terminal(results))
    return 0


def results_of(figures: Figures, plan: Plan, seconds: float) -> report.Results:
    """A run as JSON has it."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, {platform.system()}",
        "rounds": plan.rounds,
        "seconds": round(seconds),
        "upstream_a_second": figures.median(FLOOR, "chats_a_second_64"),
        "bars": bars.judged(figures),
        "peers": {
            peer.name: {
                "about": peer.about,
                "absent": figures.absent.get(peer.name),
                "failed": figures.failed.get(peer.name),
                "medians": {name: figures.median(peer.name, name) for name in figures.of.get(peer.name, ())},
                "rounds": figures.of.get(peer.name, {}),
            }
            for peer in PEERS
        },
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of the least")
    parser.add_argument("--smoke", action="store_true", help="everything once, for a test: the figures mean nothing")
    parser.add_argument("--rounds", type=int, help="other than the plan's")
    parser.add_argument("--all", action="store_true", help="the peers too that no bar is about; twice the time")
    parser.add_argument("--only", action="append", default=[], metavar="PEER", help="beside the plain script and the worker")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for results.json and results.svg")
    parser.add_argument("--write-page", action="store_true", help="the table of results.json into docs/performance.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
