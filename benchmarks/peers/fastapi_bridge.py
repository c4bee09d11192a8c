"""The small bridge that many write: `POST /chat` around LiteLLM, served by uvicorn. `python fastapi_bridge.py PORT`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any

import litellm
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse

app = FastAPI()


@app.post("/chat")
async def chat(request: dict[str, Any]) -> Any:
    request["model"] = f"openai/{request['model']}"
    response = await litellm.acompletion(**request)
    if request.get("stream"):
        return StreamingResponse(events(response), media_type="text/event-stream")
    return JSONResponse(response.model_dump())


async def events(stream: Any) -> AsyncIterator[str]:
    try:
        async for chunk in stream:
            yield f"data: {chunk.model_dump_json(exclude_none=True)}\n\n"
    finally:
        await stream.aclose()
    yield "data: [DONE]\n\n"


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
