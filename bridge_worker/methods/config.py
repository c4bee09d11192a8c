"""The method ``config/reload``.

Owns its params and result. Refuses to know how a config is read and activated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from bridge_worker.core.ports import Params, RequestContext
from bridge_worker.methods.params import validate
from bridge_worker.schema.status import ConfigReloaded, NoParams


class ReloadConfig:
    """``reload`` returns the members of the result. Raises BridgeError."""

    def __init__(self, reload: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._reload = reload

    async def __call__(self, context: RequestContext, params: Params) -> ConfigReloaded:
        validate(params, NoParams)
        return ConfigReloaded.model_validate(await self._reload())
