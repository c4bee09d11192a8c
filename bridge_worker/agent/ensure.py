"""Calls the model again, with the problem named, until its response fits the request or the attempts are used up.

Owns the conversation between two attempts, the sum of their cost, and the deltas: only those of the last attempt are sent. Refuses
to know how a model is called and how a response is checked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bridge_worker.agent.json_repair import is_json
from bridge_worker.agent.json_schema import Problem
from bridge_worker.core.accumulator import WireDelta
from bridge_worker.core.chat_runner import Emit, with_receipt
from bridge_worker.core.ports import ChatRequest
from bridge_worker.errors import BridgeError

_SHOWN = 10  # problems that the model reads

Result = dict[str, Any]
Run = Callable[[Emit | None], Awaitable[Result]]
Check = Callable[[Result], Awaitable[list[Problem]]]


async def chat_until_valid(request: ChatRequest, run: Run, check: Check, attempts: int, emit: Emit | None) -> Result:
    """The last response, with its problems marked, and with the usage and cost of all attempts. ``run`` runs ``request`` once.

    Raises BridgeError: that of an attempt, with the cost of the earlier ones; ``bad_upstream_response`` when arguments are not JSON
    in the last attempt too.
    """
    earlier: list[Result] = []
    while True:
        held: list[WireDelta] = []
        try:
            result = await run(_holder(held) if emit is not None else None)
        except BridgeError as error:
            _note_cost(error, earlier)
            raise
        problems = await check(result)
        if not problems or len(earlier) + 1 >= attempts:
            break
        for attempt in request.receipt.attempts[-1:]:
            attempt.outcome = "bad_upstream_response"
        earlier.append(result)
        request.messages = [*request.messages, *_correction(result, problems)]
        request.deadlines = request.deadlines.model_copy(update={"first_token_ms": None})  # it was that of the first attempt
    if any(problem.kind == "not_json" for problem in problems) and result["tool_calls"]:
        failed = _not_json(result, problems)
        _note_cost(failed, [*earlier, result])
        raise with_receipt(failed, request.receipt)
    for one in earlier:
        _add(result, one)
    if emit is not None and held:
        await emit(held)
    return result


def _holder(held: list[WireDelta]) -> Emit:
    async def hold(deltas: list[WireDelta]) -> None:
        held.extend(deltas)

    return hold


def _correction(result: Result, problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """The response, and what is wrong with it. Each tool call needs a result, or providers reject the conversation."""
    message = dict(result["message"])
    calls = result["tool_calls"]
    if not calls:
        request = "Respond again, with the whole corrected JSON and nothing else."
        return [
            message,
            {"role": "user", "content": f"Your response does not fit the required format:\n{_lines(problems)}\n{request}"},
        ]
    message["tool_calls"] = [_readable(call) for call in message["tool_calls"]]
    return [message, *({"role": "tool", "tool_call_id": call["id"], "content": _verdict(call)} for call in calls)]


def _readable(call: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are not JSON can't be sent back to every provider."""
    function = call["function"]
    return {**call, "function": function if is_json(function["arguments"]) else {**function, "arguments": "{}"}}


def _verdict(call: Mapping[str, Any]) -> str:
    if not call.get("problems"):
        return "Not run, because another call of the same response is not valid. Repeat it."
    lines = "\n".join(_line(row["path"], row["reason"]) for row in call["problems"][:_SHOWN])
    return f"Not run: the call is not valid.\n{lines}\nCall the tool again, corrected."


def _lines(problems: Sequence[Problem]) -> str:
    rows = [problem.wire() for problem in problems[:_SHOWN]]
    return "\n".join(_line(row["path"], row["reason"]) for row in rows)


def _line(path: str, reason: str) -> str:
    return f"- {path}: {reason}" if path else f"- {reason}"


def _note_cost(error: BridgeError, earlier: Sequence[Result]) -> None:
    if earlier:
        error.extra["earlier_cost_usd"] = _sum_of([one["cost_usd"] for one in earlier])


def _not_json(result: Result, problems: Sequence[Problem]) -> BridgeError:
    reason = next(problem.reason for problem in problems if problem.kind == "not_json")
    calls = [{name: value for name, value in call.items() if name in ("id", "type", "function")} for call in result["tool_calls"]]
    extra: dict[str, object] = {"partial": {"content": result["content"], "tool_calls": calls}}
    wrong = f"the model called a tool with arguments that are not JSON ({reason}), also when it was called again"
    return BridgeError("bad_upstream_response", wrong, provider=result["provider"], model=result["model"], extra=extra)


def _add(result: Result, earlier: Result) -> None:
    result["cost_usd"] = _sum_of([result["cost_usd"], earlier["cost_usd"]])
    if result["cost_usd"] is None:
        result["cost_source"] = result["price_map_date"] = None
    usage, other = result["usage"], earlier["usage"]
    result["usage"] = usage and other and {name: _sum_of([value, other[name]]) for name, value in usage.items()}


def _sum_of(values: Sequence[Any]) -> Any:
    """None where one is not known."""
    return None if None in values else sum(values)
