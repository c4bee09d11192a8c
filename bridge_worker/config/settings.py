"""The bridge's own settings: each a member of `omni_bridge:` in the config, a flag and a variable `OMNI_BRIDGE_...`.

Owns their names, defaults, limits and help for all three. Refuses to validate: `settings_validation` does that with pydantic when a
setting is given. The defaults below are valid, so a start without settings does not load pydantic.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from bridge_worker.budgets.limits import Budgets
from bridge_worker.config.local_models import LocalModel
from bridge_worker.protocol.framing import DEFAULT_MAX_MESSAGE_BYTES
from bridge_worker.protocol.session import DEFAULT_MAX_IN_FLIGHT
from bridge_worker.providers.facts import DEFAULT_LOCAL_SERVICES, LOCAL_SERVICES
from bridge_worker.security.url_policy import UrlPolicy
from bridge_worker.system.engine_starts import can_be_started

if TYPE_CHECKING:
    from bridge_worker.config.fault_cards import FaultCard

SECTION = "omni_bridge"
PREFIX = "OMNI_BRIDGE_"


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    metavar: str | None = None,
    flag: bool = True,
    names: tuple[str, ...] = (),
) -> Any:
    """``least``: the smallest permitted number. ``flag``: it is also a flag
    and a variable, not only a member of the config. ``names``: the permitted names of a list."""
    about = {"help": help, "choices": choices, "least": least, "metavar": metavar, "flag": flag, "names": names}
    return field(default_factory=default, metadata=about) if callable(default) else field(default=default, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective settings. In a flag or a variable, a mapping or list is JSON; a list of names may use commas instead."""

    max_message_bytes: int = setting(DEFAULT_MAX_MESSAGE_BYTES, "longest line that the worker reads", least=1, metavar="BYTES")
    max_in_flight: int = setting(
        DEFAULT_MAX_IN_FLIGHT, "maximum requests in flight; further ones fail with 1012 overloaded", least=1, metavar="REQUESTS"
    )
    grace_seconds: float = setting(  # an agent's own grace is usually 10
        5.0, "time that in-flight requests get after SIGTERM", least=0, metavar="SECONDS"
    )
    # No response at all is worse for an agent than an error: ten minutes are LiteLLM's own default, and two minutes of silence in a
    # stream are more than reasoning models take between two events.
    deadline_total_ms: int = setting(
        600_000, "deadline from arrival to the response, for requests that set none", least=1, metavar="MS"
    )
    deadline_first_token_ms: int | None = setting(None, "deadline from arrival to the first streamed delta", least=1, metavar="MS")
    deadline_idle_ms: int = setting(120_000, "deadline between two deltas of a stream", least=1, metavar="MS")
    provider_params: frozenset[str] = setting(frozenset(), "names that callers may put into provider_params", metavar="NAMES")
    local_services: frozenset[str] = setting(
        DEFAULT_LOCAL_SERVICES,
        "providers on this machine that may be used without their base URL",
        metavar="NAMES",
        names=tuple(sorted(LOCAL_SERVICES)),
    )
    image_policy: UrlPolicy = setting(  # noqa: RUF009  # it is a field with a factory
        UrlPolicy, "which URLs of images and files callers may pass on", metavar="JSON"
    )
    budgets: Budgets = setting(Budgets, "spending limits by budget path", metavar="JSON")  # noqa: RUF009  # as above
    local: Mapping[str, LocalModel] = setting(dict, "models of this machine, by name", flag=False)
    idempotency_journal: str | None = setting(
        None, "keep the results of requests with an idempotency_key in this SQLite file", metavar="FILE"
    )
    record: str | None = setting(None, "append each exchange with a model to this cassette", metavar="FILE")
    replay: str | None = setting(None, "serve requests from this cassette, without LiteLLM, network and key", metavar="FILE")
    replay_miss: str = setting(
        "error",
        "what a request that is not in the cassette gets: error 1016, or record: the provider's response, which is appended",
        choices=("error", "record"),
    )
    replay_timing: str = setting("none", "real: a replay has the recorded pauses; none: none", choices=("none", "real"))
    match_ignore: frozenset[str] = setting(
        frozenset(), "what two requests may differ in: ids, dates, or members by their path", metavar="NAMES"
    )
    faults: tuple[FaultCard, ...] = setting(
        (), "faults on purpose: a file of fault cards, or JSON; docs/resilience.md", metavar="FILE"
    )
    engine: str = setting(
        "auto",
        "litellm: LiteLLM's own path only; direct: the bridge's path only; auto: both",
        choices=("auto", "direct", "litellm"),
    )
    engines: int = setting(
        1 if can_be_started() else 0,
        "engine processes that run the requests: a number or auto, one a core; 0, and always on Windows: one process does all",
        metavar="ENGINES",
    )
    engine_hang_seconds: float = setting(
        5.0, "an engine process is replaced when its event loop has not run for so long", least=0.5, metavar="SECONDS"
    )
    engine_max_mib: int | None = setting(None, "an engine process with more resident memory is replaced", least=1, metavar="MIB")
    engine_max_requests: int | None = setting(
        None, "an engine process is replaced after so many requests", least=1, metavar="REQUESTS"
    )
    log_level: str = setting("warning", "log level; info logs one line per request", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("json", "format of the log on stderr", choices=("json", "text"))
    trace: str | None = setting(
        None, "append every message in both directions to this file; omni-bridge trace shows it", metavar="FILE"
    )
    trace_content: str = setting("none", "full: the trace has message content; none: only its length", choices=("none", "full"))

    @property
    def is_recorded(self) -> bool:
        """Whether exchanges are written to a cassette."""
        return self.record is not None or self.replay_miss == "record"

    @property
    def deadlines(self) -> dict[str, int | None]:
        """The default deadlines, with the names of the wire."""
        of_requests = {"total_ms": self.deadline_total_ms, "first_token_ms": self.deadline_first_token_ms}
        return of_requests | {"idle_ms": self.deadline_idle_ms}


DEFAULTS = Settings()
SETTINGS: Mapping[str, Field[Any]] = {one.name: one for one in fields(Settings)}
TEXTS = frozenset(name for name, one in SETTINGS.items() if one.type == "str | None")
FLAGS = tuple(name for name, one in SETTINGS.items() if one.metadata["flag"])


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    return PREFIX + name.upper()


def from_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The settings with a set variable, as text. An empty variable counts as unset."""
    environ = os.environ if environ is None else environ
    return {name: environ[variable(name)] for name in FLAGS if environ.get(variable(name))}
