"""`omni-bridge trace`: a trace read back, as a table, as JSON, and as a page in a real browser."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge_worker.trace.reader import TraceFault, read
from bridge_worker.trace.report import Asked, Trace
from tests.support.browser import Browser
from tests.support.programs import program
from tests.support.upstream import Upstream
from tests.support.worker import Json, Worker, run

HEADER = {"trace": 1, "pid": 7, "time": "2026-11-22T10:00:00.000Z", "version": "0.1.0", "content": "none"}
HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror="document.title=1">'


def told(*said: tuple[float, str, Any], pid: int = 7) -> bytes:
    """The lines of a run: (ms, "in" or "out", message)."""
    lines = [HEADER | {"pid": pid}]
    lines += [{"pid": pid, "time": "-", "ms": ms, "dir": way, "bytes": len(json.dumps(m)) + 1, "message": m} for ms, way, m in said]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def trace_of(data: bytes) -> Trace:
    return read(data.splitlines(keepends=True))


def ask(id: object, method: str = "chat", **params: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {"model": "m"} | params}


def answer(id: object, **result: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def failed(id: object, kind: str, **data: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": 1, "message": "no", "data": {"kind": kind, **data}}}


def delta(id: object) -> Json:
    return {
        "jsonrpc": "2.0",
        "method": "notifications/chat/delta",
        "params": {"requestId": id, "seq": 0, "delta": {"content": "[1 characters]"}},
    }


def cancel(id: object) -> Json:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}


# ---- requests and answers are paired -------------------------------------------------------------------------------------------


def test_an_answer_belongs_to_the_request_of_its_id_and_type() -> None:
    one, other, again = trace_of(
        told(
            (0, "in", ask(1)),
            (1, "in", ask("1")),
            (2, "out", answer("1")),
            (5, "out", answer(1)),
            (6, "in", ask(1)),
            (9, "out", failed(1, "timeout")),
        )
    ).requests()
    assert [asked.duration_ms for asked in (one, other, again)] == [5, 1, 3]
    assert [asked.outcome for asked in (one, other, again)] == ["ok", "ok", "timeout"]


def test_a_second_request_of_an_id_in_flight_is_the_one_that_is_refused() -> None:
    first, second = trace_of(
        told((0, "in", ask(1)), (1, "in", ask(1)), (2, "out", failed(1, "invalid_message")), (9, "out", answer(1)))
    ).requests()
    assert [(asked.outcome, asked.end_ms) for asked in (first, second)] == [("ok", 9), ("invalid_message", 2)]


def test_deltas_cancels_batches_and_progress_belong_to_their_requests() -> None:
    call = ask(3, "tools/call", name="chat", arguments={"model": "x"}, _meta={"progressToken": "t"})
    progress = {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": "t", "progress": 1, "message": "a"},
    }
    batch, cancelled, tool = trace_of(
        told(
            (0, "in", [ask(1, stream=True), ask(2)]),
            (1, "out", delta(1)),
            (2, "in", cancel(2)),
            (2, "in", cancel(9)),
            (3, "out", delta(1)),
            (4, "in", call),
            (5, "out", progress),
            (8, "out", [answer(1), failed(2, "cancelled")]),
        )
    ).requests()
    assert (batch.first_ms, batch.deltas, batch.end_ms, batch.stream) == (1, [1, 3], 8, True)
    assert (cancelled.cancel_ms, cancelled.outcome) == (2, "cancelled")
    assert (tool.tool, tool.model, tool.deltas, tool.outcome) == ("chat", "x", [5], "unanswered")


def test_what_it_cost_comes_from_the_answer() -> None:
    receipt = {"served_model": "m-2026", "attempts": [{}, {}], "fallback": True, "engine": {"name": "litellm", "version": "1"}}
    used = answer(1, usage={"input_tokens": 9, "output_tokens": 4}, cost_usd=0.5, provider="openai", receipt=receipt)
    mcp_error = {"code": 1003, "data": {"kind": "model_not_found"}}
    trace = trace_of(
        told(
            (0, "in", ask(1)),
            (1, "out", used),
            (2, "in", ask(2, "tools/call", name="chat", arguments={"model": "m"})),
            (3, "out", answer(2, isError=True, _meta={"omni-bridge/error": mcp_error})),
            (4, "in", ask(3)),
            (5, "out", failed(3, "cancelled", receipt=receipt)),
        )
    )
    asked = next(trace.requests())
    assert (asked.input_tokens, asked.output_tokens, asked.cost_usd, asked.provider) == (9, 4, 0.5, "openai")
    assert (asked.served_model, asked.attempts, asked.fallback, asked.engine) == ("m-2026", 2, True, "litellm")
    (total,) = trace.totals()
    assert (total.model, total.requests, total.ok, total.failed, total.cancelled) == ("m", 3, 1, 1, 1)
    assert (total.input_tokens, total.output_tokens, total.cost_usd) == (9, 4, 0.5)


def test_workers_that_share_a_file_are_told_apart() -> None:
    mixed = told((0, "in", ask(1)), pid=1) + told((0, "in", ask(1)), pid=2) + told((5, "out", answer(1)), pid=1).split(b"\n", 1)[1]
    runs = trace_of(mixed).runs
    assert [(run.pid, run.requests[0].outcome, run.ended) for run in runs] == [(1, "ok", False), (2, "unanswered", False)]


# ---- files that are cut, foreign or hostile ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [b'{"pid":7,"ti', b'{"pid":7,"ti\n' + told((0, "in", ask(2)))])
def test_a_half_line_is_forgiven_where_a_run_was_killed(rest: bytes) -> None:
    trace = trace_of(told((0, "in", ask(1))) + rest)
    assert next(trace.requests()).id == 1
    assert not trace.runs[0].ended


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"\n\n", 1),
        (b"model_list: []\n", 1),
        (b"[]\n", 1),
        (b"\x00\xff\n", 1),
        (b'{"pid": 7, "ms": 1, "dir": "in"}\n', 1),
        (told() + b"not json\n" + told((0, "in", ask(1))).split(b"\n", 1)[1], 2),
        (told() + b"not json\n", 2),
        (told() + b'{"pid":7,"ms":"soon","dir":"in","bytes":1}\n', 2),
        (told() + b'{"pid":8,"ms":1,"dir":"in","bytes":1}\n', 2),
        (told() + b'{"pid":7,"ms":1,"dir":"up"}\n', 2),
        (told() + b'{"pid":[],"ms":1,"dir":"in"}\n', 2),
        (b'{"trace":2,"pid":7}\n', 1),
        (b'{"trace":1,"pid":"7"}\n', 1),
        (b"[" * 100_000 + b"\n", 1),
    ],
)
def test_a_damaged_or_foreign_file_is_told_with_its_line(data: bytes, line: int) -> None:
    with pytest.raises(TraceFault) as told:
        trace_of(data)
    assert f"line {line}:" in str(told.value) or (line == 1 and "line 1" in str(told.value))


@pytest.mark.parametrize(
    "odd", [None, 5, "x", [], {}, {"data": 5}, {"usage": [], "receipt": "x", "cost_usd": "much", "provider": {}}]
)
def test_values_of_the_wrong_kind_are_left_out(odd: Any) -> None:
    broken = {"jsonrpc": "2.0", "id": 1, "method": "chat", "params": odd}
    (asked,) = trace_of(
        told((0, "in", broken), (1, "out", delta(odd)), (2, "out", {"id": 1, "result": odd, "error": odd if odd != {} else None}))
    ).requests()
    assert isinstance(asked, Asked)
    assert asked.cost_usd is None
    assert asked.model is None


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
    told = json.loads(out)
    (one,) = told["runs"]
    assert one["ended"] is True
    assert sorted(asked["outcome"] for asked in one["requests"]) == ["cancelled", "model_not_found", *["ok"] * 4, "rate_limited"]
    streamed = [asked for asked in one["requests"] if asked["deltas"]]
    assert all(asked["start_ms"] < asked["first_ms"] == asked["deltas"][0] <= asked["end_ms"] for asked in streamed)
    assert [total["requests"] for total in told["totals"] if total["model"] == "openai/gpt-4o"] == [3]
    assert "messages" not in one


@pytest.mark.rule("TRC-7")
def test_a_file_that_is_no_trace_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "other.txt"
    file.write_text("hello\n")
    code, out, log = run("trace", str(file))
    assert (code, out, log.count("\n")) == (2, "", 1)
    assert "line 1: this is no trace" in log
    code, _, log = run("trace", str(tmp_path / "missing"))
    assert (code, log.count("\n")) == (2, 1)


def test_what_stands_in_a_trace_does_nothing_to_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    evil = "\x1b]0;taken\x07[red]x[/red]\n\u202e"
    file.write_bytes(told((0, "in", ask(evil, model=evil)), (1, "out", failed(evil, evil))))
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
    found: list[str] = page.ask("[...document.querySelectorAll('#requests tbody tr')].map(row => row.innerText)")
    return found


@pytest.mark.rule("TRC-8")
def test_the_page_shows_each_request_in_its_table_and_timeline(page: Browser) -> None:
    assert len(rows(page)) == 7
    assert sum("openai/gpt-4o" in row and "$" in row for row in rows(page)) == 3
    assert page.ask("document.querySelectorAll('#lanes g.asked').length") == 7
    assert page.ask("[...document.querySelectorAll('#lanes .ticks')].filter(path => path.getAttribute('d')).length") >= 3
    assert page.ask("document.querySelectorAll('.mark-cancelled').length") == 1
    assert page.ask("document.querySelectorAll('.mark-failed').length") == 2
    models = page.ask("document.querySelector('#models').innerText")
    assert "openai/gpt-4o" in models
    assert "$" in models


@pytest.mark.rule("TRC-8")
def test_the_page_asks_the_network_for_nothing_and_complains_of_nothing(page: Browser) -> None:
    assert [address.partition(":")[0] for address in page.requests] == ["file"]
    page.ask("document.querySelector('#requests tbody tr').click()")
    assert page.problems == []
    fetched = "const image = new Image(); image.onerror = () => done('no'); image.src = 'https://example.invalid/x'"
    assert page.ask(f"new Promise(done => {{ {fetched} }})") == "no"
    assert any("Content Security Policy" in problem or "contentSecurityPolicy" in problem for problem in page.problems)


@pytest.mark.rule("TRC-8")
def test_what_was_said_stays_text_whatever_it_looks_like(page: Browser) -> None:
    assert page.ask("document.title").startswith("omni-bridge trace: ")
    page.ask("open(all.find(asked => asked.deltas.length))")
    shown = page.ask("document.getElementById('details').innerText")
    assert "</script><script>document.title=" in shown.replace('\\"', '"')
    assert page.ask("document.querySelectorAll('img').length") == 0
    assert page.ask("document.querySelectorAll('script').length") == 2
    assert page.ask("document.title").startswith("omni-bridge trace: ")


@pytest.mark.rule("TRC-8")
def test_the_page_can_be_searched_and_filtered(page: Browser) -> None:
    page.press("/")
    page.type("429")
    assert len(rows(page)) == 1
    assert page.ask("document.getElementById('count').innerText") == "Requests: 1 of 7"
    page.press("Escape")
    page.ask("document.getElementById('search').value = ''")
    page.ask(
        "const chosen = document.getElementById('outcome'); chosen.value = 'cancelled'; chosen.dispatchEvent(new Event('input'))"
    )
    assert ["cancelled" in row for row in rows(page)] == [True]
    assert page.ask("document.querySelectorAll('#lanes g.asked').length") == 1


@pytest.mark.rule("TRC-8")
def test_the_page_is_used_by_keyboard(page: Browser) -> None:
    assert page.ask("document.getElementById('details').hidden")
    page.press("ArrowDown")
    page.press("ArrowDown")
    assert page.ask("document.activeElement.tagName") == "TR"
    assert page.ask("document.querySelectorAll('tr.chosen, g.chosen').length") == 2
    page.press("Enter")
    assert page.ask("document.activeElement.id") == "details"
    page.press("Escape")
    assert page.ask("document.getElementById('details').hidden")
    page.press("+")
    assert page.ask(
        "document.querySelector('#lanes svg').getAttribute('width') > document.getElementById('lanes').clientWidth * 1.5"
    )
    page.press("0")
    assert page.ask("document.querySelector('#lanes svg').getAttribute('width') <= document.getElementById('lanes').clientWidth")


@pytest.mark.rule("TRC-8")
def test_the_mouse_finds_the_same(page: Browser) -> None:
    page.mouse("#lanes g.asked .body")
    assert "total" in page.ask("document.getElementById('tip').innerText")
    page.mouse("#lanes g.asked .body", click=True)
    assert "Messages" in page.ask("document.getElementById('details').innerText")
    page.ask("document.querySelector('[data-sort=total]').click()")
    page.ask("document.querySelector('[data-sort=total]').click()")
    assert page.ask("document.querySelector('th[aria-sort=descending]').innerText").startswith("total")
    assert "openai/hang" in rows(page)[0]


def test_the_page_is_light_or_dark(page: Browser, tmp_path: Path) -> None:
    def paper() -> str:
        return str(page.ask("getComputedStyle(document.body).backgroundColor"))

    light = paper()
    page.ask("document.getElementById('theme').click()")
    dark = paper()
    assert light != dark
    page.open(tmp_path / "page.html", dark=True)
    assert paper() == dark


def test_ten_thousand_messages_and_several_runs_are_shown(browser: Browser, tmp_path: Path) -> None:
    said: list[tuple[float, str, Any]] = []
    for id in range(1_000):
        said += [
            (id * 3, "in", ask(id, stream=True)),
            *((id * 3 + n, "out", delta(id)) for n in range(1, 9)),
            (id * 3 + 40, "out", answer(id)),
        ]
    (tmp_path / "trace.jsonl").write_bytes(told((0, "in", ask(1)), pid=1) + told(*sorted(said, key=lambda one: one[0])))
    code, _, _ = run("trace", str(tmp_path / "trace.jsonl"), "--html", str(tmp_path / "page.html"))
    assert code == 0
    browser.open(tmp_path / "page.html")
    assert browser.ask("document.querySelectorAll('#lanes g.asked').length") == 1_000
    assert len(rows(browser)) == 300
    browser.ask("document.getElementById('more').click()")
    assert len(rows(browser)) == 1_000
    browser.ask("const run = document.getElementById('runs'); run.value = '-1'; run.dispatchEvent(new Event('input'))")
    assert browser.ask("all.length") == 1_001
    browser.ask("run.value = '0'; run.dispatchEvent(new Event('input'))")
    assert "killed or still runs" in browser.ask("document.getElementById('about').innerText")
    assert browser.ask("document.querySelectorAll('.mark-unanswered').length") == 1
    assert browser.problems == []
