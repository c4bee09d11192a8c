"""The benchmark measures all that it promises, and can show it. Its figures mean nothing here, and nothing depends on them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks import plot, report, run
from benchmarks.bars import BARS, judged
from benchmarks.measure import Figures
from benchmarks.peer import FLOOR, ORDINARY, PEERS, PLAIN, PROXY_NAME, WORKER_NAME

NAMES = {peer.name for peer in PEERS}
ALWAYS = {PLAIN, WORKER_NAME, FLOOR}


def test_a_run_reports_every_peer_and_every_bar(tmp_path: Path) -> None:
    """Without the peers that have an environment of their own: they would be minutes of set-up."""
    assert run.main(["--smoke", "--only", FLOOR, "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["peers"]) == NAMES
    assert {bar["what"] for bar in results["bars"]} == {bar.what for bar in BARS}
    for name in ALWAYS:
        peer = results["peers"][name]
        assert peer["absent"] is None
        assert peer["failed"] is None
        assert {"first_chat_s", "p50_ms_1", "chats_a_second_64", "chunks_a_second_1", "cancel_ms"} <= peer["medians"].keys()
        assert all(value is not None for value in peer["medians"].values()), name
    unmeasured = {bar["what"] for bar in results["bars"] if bar["holds"] is None}
    assert all("streams" in what or what in {bar.what for bar in BARS if "proxy" in bar.unit} for what in unmeasured)
    ElementTree.parse(tmp_path / "results.svg")
    assert all(name in report.terminal(results) for name in NAMES - {PROXY_NAME} if results["peers"][name]["rounds"])


def test_peers_are_compared_within_a_round() -> None:
    figures = Figures()
    for plain, worker in ((10.0, 5.0), (100.0, 50.0), (1.0, 0.9)):  # a machine that is slow for a round is slow for both
        figures.add(PLAIN, "p50_ms_1", plain)
        figures.add(WORKER_NAME, "p50_ms_1", worker)
    assert figures.ratio("p50_ms_1", WORKER_NAME, PLAIN) == 0.5


def test_a_bar_without_a_figure_neither_holds_nor_fails() -> None:
    figures = Figures()
    figures.add(WORKER_NAME, "initialize_ms", 30.0)
    figures.add(PLAIN, "bare_start_ms", 10.0)
    verdicts = {(row["what"], row["bar"]): row["holds"] for row in judged(figures)}
    assert verdicts.pop((BARS[0].what, BARS[0].text())) is False
    assert set(verdicts.values()) == {None}


def test_the_ordinary_path_is_judged_by_itself_where_the_worker_has_two() -> None:
    figures = Figures()
    for name, value in ((PLAIN, 10.0), (WORKER_NAME, 1.0), (ORDINARY, 7.0)):
        figures.add(name, "p50_ms_1", value)
        figures.add(name, "initialize_ms", value)
        figures.add(name, "bare_start_ms", value)
    measured = {row["what"]: row["measured"] for row in judged(figures)}
    assert measured["one chat at a time, p50"] == 0.1
    assert measured["ordinary path: one at a time, p50"] == 0.7


def test_the_published_results_are_of_this_suite(tmp_path: Path) -> None:
    """results.json, the picture and docs/performance.md's table are made by one run."""
    results = json.loads((run.HERE / "results.json").read_text())
    assert set(results["peers"]) == NAMES
    assert [(bar["what"], bar["bar"]) for bar in results["bars"]] == [(bar.what, bar.text()) for bar in BARS]
    assert (run.HERE / "results.svg").read_text() == plot.svg(results)
    assert report.markdown(results) in (run.ROOT / "docs/performance.md").read_text()
