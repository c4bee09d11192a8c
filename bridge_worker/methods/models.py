"""The methods ``models/list`` and ``models/get``.

Owns the pages and their cursor. Refuses to know which backend serves a model.
"""

from __future__ import annotations

import asyncio
import base64
import binascii

from bridge_worker.core.ports import Backends, Params, RequestContext
from bridge_worker.errors import BridgeError
from bridge_worker.methods.params import validate
from bridge_worker.schema.models import ModelInfo, ModelsGetParams, ModelsListParams, ModelsListResult

PAGE = 100  # models per page, about 12 KB


class Models:
    def __init__(self, backends: Backends) -> None:
        self._backends = backends

    async def list(self, context: RequestContext, params: Params) -> ModelsListResult:
        valid = validate(params, ModelsListParams)
        after = _name_of(valid.cursor) if valid.cursor is not None else ""
        rows = await self._backends.list_models(every=bool(valid.all))
        rest = sorted((row for row in rows if row.model > after), key=lambda row: row.model)
        more = len(rest) > PAGE
        return ModelsListResult(models=rest[:PAGE], nextCursor=_cursor_of(rest[PAGE - 1].model) if more else None)

    async def get(self, context: RequestContext, params: Params) -> ModelInfo:
        model = validate(params, ModelsGetParams).model
        services = await self._backends.services(model)
        return await asyncio.to_thread(services.describe, model)


def _cursor_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode("ascii")


def _name_of(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise BridgeError("invalid_request", "cursor must be a nextCursor of models/list, as it was sent") from None
