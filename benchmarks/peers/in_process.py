"""What is measured inside a Python process: `python in_process.py litellm|aiohttp`, commands and figures as in rig/src/lib.rs.

`litellm` is the plain script that people write: `import litellm`, then `acompletion`. `aiohttp` is the floor of what Python can
do: one session, JSON in and out, nothing of a provider's. Both take the upstream from OPENAI_BASE_URL.

Refuses to be clever: no warm-up and no setting that a plain script does not have.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

MODEL, HANGS = "gpt-4o-mini", "gpt-4o"
LONGEST_LINE = 64 * 1024 * 1024

Json = dict[str, Any]
Messages = list[Json]
Texts = AsyncIterator[str]
Stream = Callable[[str, Messages], AbstractAsyncContextManager[Texts]]


class LiteLLM:
    async def whole(self, messages: Messages) -> str:
        import litellm

        response = await litellm.acompletion(model=f"openai/{MODEL}", messages=messages)
        return response.choices[0].message.content

    @asynccontextmanager
    async def stream(self, model: str, messages: Messages) -> AsyncIterator[Texts]:
        import litellm

        usage = {"include_usage": True}
        stream = await litellm.acompletion(model=f"openai/{model}", messages=messages, stream=True, stream_options=usage)
        try:
            yield (chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices)
        finally:
            await stream.aclose()


class Aiohttp:
    def __init__(self) -> None:
        import aiohttp

        headers = {"authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)
        self._url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"

    async def whole(self, messages: Messages) -> str:
        async with self._session.post(self._url, json={"model": MODEL, "messages": messages}) as response:
            return (await response.json())["choices"][0]["message"]["content"]

    @asynccontextmanager
    async def stream(self, model: str, messages: Messages) -> AsyncIterator[Texts]:
        body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        async with self._session.post(self._url, json=body) as response:
            yield self._texts(response)
            response.close()

    async def _texts(self, response: Any) -> Texts:
        async for line in response.content:
            if line.startswith(b"data: {") and (choices := json.loads(line[6:])["choices"]):
                yield choices[0]["delta"].get("content") or ""


class Client:
    def __init__(self, peer: LiteLLM | Aiohttp) -> None:
        self._peer = peer
        self._messages: Messages = [{"role": "user", "content": "hello"}]

    async def first_chat(self) -> None:
        await self._peer.whole(self._messages)

    async def obey(self, command: Json) -> object:
        match command.pop("op"):
            case "messages":
                self._messages = command["messages"]
                return None
            case "load":
                return await self._load(**command)
            case "cancel":
                return [await self._cancel() for _ in range(command["count"])]
            case unknown:
                raise ValueError(unknown)

    async def _load(self, *, stream: bool, seconds: float, count: int, in_flight: int) -> Json:
        load: Json = {"chats": 0, "chunks": 0, "latencies_us": [], "first_us": [], "failed": 0, "error": None}
        began = time.perf_counter()
        left = count

        async def slot() -> None:
            nonlocal left
            while left > 0 or time.perf_counter() - began < seconds:
                left -= 1
                sent_at = time.perf_counter()
                try:
                    await (self._streamed(load, sent_at) if stream else self._peer.whole(self._messages))
                except Exception as error:
                    load["failed"] += 1
                    load["error"] = str(error)
                else:
                    load["latencies_us"].append(_us_since(sent_at))

        await asyncio.gather(*(slot() for _ in range(in_flight)))
        return load | {"chats": len(load["latencies_us"]), "seconds": time.perf_counter() - began}

    async def _streamed(self, load: Json, sent_at: float) -> None:
        first = True
        async with self._peer.stream(MODEL, self._messages) as texts:
            async for text in texts:
                if text:
                    if first:
                        load["first_us"].append(_us_since(sent_at))
                        first = False
                    load["chunks"] += 1

    async def _cancel(self) -> int:
        cancelled = 0

        async def chat() -> None:
            nonlocal cancelled
            async with self._peer.stream(HANGS, self._messages) as texts:
                async for text in texts:
                    if text:
                        cancelled = time.monotonic_ns()
                        running.cancel()

        running = asyncio.create_task(chat())
        await asyncio.wait([running])
        return cancelled


def _us_since(start: float) -> int:
    return int((time.perf_counter() - start) * 1e6)


async def main(kind: str) -> None:
    client = Client(LiteLLM() if kind == "litellm" else Aiohttp())
    await client.first_chat()
    send({"pid": os.getpid()})
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer)
    while line := await lines.readline():
        if (response := await client.obey(json.loads(line))) is not None:
            send(response)
    os._exit(0)


def send(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
