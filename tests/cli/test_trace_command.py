"""`omni-bridge trace`: a trace read back, as a table, as JSON, and as a page in a real browser."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser
from tests.support.programs import program
from tests.support.trace_lines import delta_of, error_of, request_of, result_of, trace_file
from tests.support.upstream import Upstream
from tests.support.worker import Worker, run

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror="document.title=1">'


# ---- the command ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real worker's trace, with content: streams side by side, a cancel, errors, a tool call, a hostile answer, noise."""
    file = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    with Upstream() as upstream:
        env = {"OPENAI_API_KEY": "sk-secret-123", "OPENAI_BASE_URL": upstream.base_url}
        with Worker("--trace", str(file), "--trace-content", "full", env=env) as worker:
            user = [{"role": "user", "content": HOSTILE}]
            hanging = worker.request("chat", {"model": "openai/hang", "stream": True, "messages": user})
            upstream.wait_for_request("hang", timeout=30)
            streams = [worker.request("chat", {"model": "openai/gpt-4o", "stream": True, "messages": user}) for _ in range(3)]
            worker.call("chat", {"model": "openai/status-429", "messages": user})
            worker.call("chat", {"model": f"offline/{HOSTILE}", "messages": user})
            tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
            worker.call("chat", {"model": "offline/tools", "messages": user, "tools": [tool]})
            worker.write(b"noise\n")
            for id in streams:
                worker.response(id)
            worker.notify("notifications/cancelled", {"requestId": hanging})
            worker.response(hanging)
            worker.end_input()
            assert worker.exit_code() == 0
    return file


@pytest.mark.rule("TRC-7")
def test_the_table_shows_each_request_and_what_became_of_it(recorded: Path) -> None:
    code, out, log = run("trace", str(recorded))
    assert (code, log) == (0, "")
    assert "1 lines could not be read" in out.splitlines()[0]
    rows = [line.split() for line in out.splitlines()]
    outcomes = [word for row in rows for word in row if word in ("ok", "cancelled", "rate_limited", "model_not_found")]
    assert {"ok", "cancelled", "rate_limited", "model_not_found"} <= set(outcomes)
    assert [row for row in rows if "openai/gpt-4o" in row and any(word.startswith("$") for word in row)]


@pytest.mark.rule("TRC-7")
def test_the_same_as_json(recorded: Path) -> None:
    code, out, _ = run("trace", str(recorded), "--json")
    assert code == 0
    report = json.loads(out)
    (one,) = report["runs"]
    assert one["ended"] is True
    assert sorted(request["outcome"] for request in one["requests"]) == [
        "cancelled",
        "model_not_found",
        *["ok"] * 4,
        "rate_limited",
    ]
    streamed = [request for request in one["requests"] if request["deltas"]]
    assert all(request["start_ms"] < request["first_ms"] == request["deltas"][0] <= request["end_ms"] for request in streamed)
    assert [total["requests"] for total in report["totals"] if total["model"] == "openai/gpt-4o"] == [3]
    assert "messages" not in one


@pytest.mark.rule("TRC-7")
def test_a_file_that_is_not_a_trace_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "other.txt"
    file.write_text("hello\n")
    code, out, log = run("trace", str(file))
    assert (code, out, log.count("\n")) == (2, "", 1)
    assert "line 1: not a trace file" in log
    code, _, log = run("trace", str(tmp_path / "missing"))
    assert (code, log.count("\n")) == (2, 1)


def test_the_content_of_a_trace_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    evil = "\x1b]0;taken\x07[red]x[/red]\n\u202e"
    file.write_bytes(trace_file((0, "in", request_of(evil, model=evil)), (1, "out", error_of(evil, evil))))
    _, out, _ = run("trace", str(file))
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert "[red]x[/red]" in out


# ---- the page, in a real browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(program("chromium")) as browser:
        yield browser


@pytest.fixture
def page(recorded: Path, browser: Browser, tmp_path: Path) -> Browser:
    """The page of the recorded trace, just opened."""
    code, _, log = run("trace", str(recorded), "--html", str(tmp_path / "page.html"))
    assert (code, log) == (0, "")
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    browser.open(tmp_path / "page.html")
    return browser


def rows(page: Browser) -> list[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('#requests tbody tr')].map(row => row.innerText)")
    return found


@pytest.mark.rule("TRC-8")
def test_the_page_shows_each_request_in_its_table_and_timeline(page: Browser) -> None:
    assert len(rows(page)) == 7
    assert sum("openai/gpt-4o" in row and "$" in row for row in rows(page)) == 3
    assert page.evaluate("document.querySelectorAll('#lanes g.asked').length") == 7
    assert page.evaluate("[...document.querySelectorAll('#lanes .ticks')].filter(path => path.getAttribute('d')).length") >= 3
    assert page.evaluate("document.querySelectorAll('.mark-cancelled').length") == 1
    assert page.evaluate("document.querySelectorAll('.mark-failed').length") == 2
    models = page.evaluate("document.querySelector('#models').innerText")
    assert "openai/gpt-4o" in models
    assert "$" in models


@pytest.mark.rule("TRC-8")
def test_the_page_makes_no_network_request_and_logs_no_problem(page: Browser) -> None:
    assert [address.partition(":")[0] for address in page.requests] == ["file"]
    page.evaluate("document.querySelector('#requests tbody tr').click()")
    assert page.problems == []
    fetched = "const image = new Image(); image.onerror = () => done('no'); image.src = 'https://example.invalid/x'"
    assert page.evaluate(f"new Promise(done => {{ {fetched} }})") == "no"
    assert any("Content Security Policy" in problem or "contentSecurityPolicy" in problem for problem in page.problems)


@pytest.mark.rule("TRC-8")
def test_chat_content_is_shown_as_text_whatever_it_contains(page: Browser) -> None:
    assert page.evaluate("document.title").startswith("omni-bridge trace: ")
    page.evaluate("open(all.find(asked => asked.deltas.length))")
    shown = page.evaluate("document.getElementById('details').innerText")
    assert "</script><script>document.title=" in shown.replace('\\"', '"')
    assert page.evaluate("document.querySelectorAll('img').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 2
    assert page.evaluate("document.title").startswith("omni-bridge trace: ")


@pytest.mark.rule("TRC-8")
def test_the_page_can_be_searched_and_filtered(page: Browser) -> None:
    page.press("/")
    page.type("429")
    assert len(rows(page)) == 1
    assert page.evaluate("document.getElementById('count').innerText") == "Requests: 1 of 7"
    page.press("Escape")
    page.evaluate("document.getElementById('search').value = ''")
    page.evaluate(
        "const chosen = document.getElementById('outcome'); chosen.value = 'cancelled'; chosen.dispatchEvent(new Event('input'))"
    )
    assert ["cancelled" in row for row in rows(page)] == [True]
    assert page.evaluate("document.querySelectorAll('#lanes g.asked').length") == 1


@pytest.mark.rule("TRC-8")
def test_the_page_is_used_by_keyboard(page: Browser) -> None:
    assert page.evaluate("document.getElementById('details').hidden")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.evaluate("document.activeElement.tagName") == "TR"
    assert page.evaluate("document.querySelectorAll('tr.chosen, g.chosen').length") == 2
    page.press("Enter")
    assert page.evaluate("document.activeElement.id") == "details"
    page.press("Escape")
    assert page.evaluate("document.getElementById('details').hidden")
    page.press("+")
    assert page.evaluate(
        "document.querySelector('#lanes svg').getAttribute('width') > document.getElementById('lanes').clientWidth * 1.5"
    )
    page.press("0")
    assert page.evaluate(
        "document.querySelector('#lanes svg').getAttribute('width') <= document.getElementById('lanes').clientWidth"
    )


@pytest.mark.rule("TRC-8")
def test_the_mouse_finds_the_same(page: Browser) -> None:
    page.mouse("#lanes g.asked .body")
    assert "total" in page.evaluate("document.getElementById('tip').innerText")
    page.mouse("#lanes g.asked .body", click=True)
    assert "Messages" in page.evaluate("document.getElementById('details').innerText")
    page.evaluate("document.querySelector('[data-sort=total]').click()")
    page.evaluate("document.querySelector('[data-sort=total]').click()")
    assert page.evaluate("document.querySelector('th[aria-sort=descending]').innerText").startswith("total")
    assert "openai/hang" in rows(page)[0]


def test_the_page_is_light_or_dark(page: Browser, tmp_path: Path) -> None:
    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    page.evaluate("document.getElementById('theme').click()")
    dark = paper()
    assert light != dark
    page.open(tmp_path / "page.html", dark=True)
    assert paper() == dark


def test_ten_thousand_messages_and_several_runs_are_shown(browser: Browser, tmp_path: Path) -> None:
    records: list[tuple[float, str, Any]] = []
    for id in range(1_000):
        records += [
            (id * 3, "in", request_of(id, stream=True)),
            *((id * 3 + n, "out", delta_of(id)) for n in range(1, 9)),
            (id * 3 + 40, "out", result_of(id)),
        ]
    (tmp_path / "trace.jsonl").write_bytes(
        trace_file((0, "in", request_of(1)), pid=1) + trace_file(*sorted(records, key=lambda one: one[0]))
    )
    code, _, _ = run("trace", str(tmp_path / "trace.jsonl"), "--html", str(tmp_path / "page.html"))
    assert code == 0
    browser.open(tmp_path / "page.html")
    assert browser.evaluate("document.querySelectorAll('#lanes g.asked').length") == 1_000
    assert len(rows(browser)) == 300
    browser.evaluate("document.getElementById('more').click()")
    assert len(rows(browser)) == 1_000
    browser.evaluate("const run = document.getElementById('runs'); run.value = '-1'; run.dispatchEvent(new Event('input'))")
    assert browser.evaluate("all.length") == 1_001
    browser.evaluate("run.value = '0'; run.dispatchEvent(new Event('input'))")
    assert "killed or still runs" in browser.evaluate("document.getElementById('about').innerText")
    assert browser.evaluate("document.querySelectorAll('.mark-unanswered').length") == 1
    assert browser.problems == []
