"""The benchmark measures all that it promises, and can show it. Its figures mean nothing here, and nothing depends on them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks import cassettes, engines, plot, report, run
from benchmarks.bars import BARS, judged
from benchmarks.measure import Figures
from benchmarks.peer import FLOOR, PEERS, PLAIN, PROXY_NAME, WORKER_NAME
from benchmarks.scenarios import Bar

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
    unmeasured = [row for row in results["bars"] if row["holds"] is None]
    left_out = ("x LiteLLM proxy", "x Portkey", "x omni-bridge")
    assert all(row["bar"].endswith(left_out) or "config" in row["what"] or "1,000 messages" in row["what"] for row in unmeasured)
    ElementTree.parse(tmp_path / "results.svg")
    assert all(name in report.terminal(results) for name in NAMES - {PROXY_NAME} if results["peers"][name]["rounds"])


def test_the_figures_of_engines_are_measured_against_their_bars(capfd: pytest.CaptureFixture[str]) -> None:
    assert engines.main(["--rounds", "1", "--scale", "0.01", "--only", "ready", "--only", "killed"]) == 0
    judged = capfd.readouterr().out.splitlines()
    assert_judged([bar for bar in engines.BARS if "ready" in bar.what or "kill -9" in bar.what], judged, count=2)


def test_the_figures_of_cassettes_are_measured_against_their_bars(capfd: pytest.CaptureFixture[str]) -> None:
    assert cassettes.main(["--rounds", "1", "--scale", "0.01", "--only", "opening"]) == 0
    assert_judged([bar for bar in cassettes.BARS if "opening" in bar.what], capfd.readouterr().out.splitlines(), count=3)


def assert_judged(bars: list[Bar], lines: list[str], *, count: int) -> None:
    assert len(bars) == count
    for bar, line in zip(bars, lines, strict=True):
        assert line.startswith(("holds ", "missed"))
        assert bar.what in line


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


def test_another_format_is_judged_by_what_it_costs_beyond_openais() -> None:
    figures = Figures()
    for anthropic, openai in ((500.0, 400.0), (900.0, 700.0), (460.0, 400.0)):
        figures.add(WORKER_NAME, "cpu_us_a_chat_anthropic", anthropic)
        figures.add(WORKER_NAME, "cpu_us_a_chat_openai", openai)
    figures.add(WORKER_NAME, "initialize_ms", 1.0)
    figures.add(PLAIN, "bare_start_ms", 1.0)
    measured = {row["what"]: row["measured"] for row in judged(figures)}
    assert measured["a chat with Anthropic, beyond OpenAI"] == 100.0


def test_the_published_results_are_of_this_suite(tmp_path: Path) -> None:
    """results.json, the picture and docs/performance.md's table are made by one run."""
    results = json.loads((run.HERE / "results.json").read_text())
    assert set(results["peers"]) == NAMES
    assert [(bar["what"], bar["bar"]) for bar in results["bars"]] == [(bar.what, bar.text()) for bar in BARS]
    assert (run.HERE / "results.svg").read_text() == plot.svg(results)
    assert report.markdown(results) in (run.ROOT / "docs/performance.md").read_text()
