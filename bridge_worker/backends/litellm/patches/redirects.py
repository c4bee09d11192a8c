"""Patches of redirects in the package requests, by which LiteLLM and clouds' SDKs fetch tokens. `hosts` has those of httpx.

Owns one rule: a redirect to another origin is not followed when the request carries a key or a body. Refuses to know the clouds.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from bridge_worker.backends.litellm.patches.patch import EVERY_PROVIDER, Patch

_DEFAULT_PORTS = {"http": 80, "https": 443}
_KEY_NAME = re.compile(r"(?i)authorization|cookie|.*(?:key|token|secret|signature|credential).*|x-amz-.*")


def _within_origin(original: Any) -> Any:
    def get_redirect_target(self: requests.Session, response: requests.Response) -> str | None:
        """The caller gets the redirect itself when it is not followed."""
        target: str | None = original(self, response)
        request = response.request
        if target is None or not _is_confidential(request):
            return target
        origin = _origin(str(request.url))
        return target if _origin(urljoin(str(request.url), target)) == origin else None

    return get_redirect_target


def _leaves_origin(original: Any) -> bool:
    response = requests.Response()
    response.status_code = 307
    response.headers["location"] = "http://two.example"
    response.request = requests.Request("POST", "https://one.example", data=b"a conversation").prepare()
    return original(requests.Session(), response) is not None


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _is_confidential(request: Any) -> bool:
    return request.method not in ("GET", "HEAD") or any(_KEY_NAME.fullmatch(name) for name in request.headers)


PATCHES = (
    Patch(
        name="redirects of requests",
        wrong="a redirect takes a body and each header but Authorization to any host",
        evidence="tests/process/test_hosts.py::test_a_redirect_to_another_origin_is_an_error",
        places=("requests.sessions:Session.get_redirect_target",),
        takes=("self", "resp"),
        make=_within_origin,
        has_fault=_leaves_origin,
        protects=EVERY_PROVIDER,
    ),
)
