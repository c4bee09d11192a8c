"""Patches of redirects in the package requests, by which LiteLLM and clouds' SDKs fetch tokens. `hosts` has those of httpx.

Owns one rule: a redirect to another origin is not followed when the request carries a key or a body. Refuses to know the clouds.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

_DEFAULT_PORTS = {"http": 80, "https": 443}
_KEY_NAME = re.compile(r"(?i)authorization|cookie|.*(?:key|token|secret|signature|credential).*|x-amz-.*")

_target = requests.Session.get_redirect_target


def _target_within_origin(self: requests.Session, response: requests.Response) -> str | None:
    """Without it a redirect takes a body and each header but ``Authorization`` to any host. The caller gets the redirect itself."""
    target = _target(self, response)
    request = response.request
    if target is None or not _is_confidential(request):
        return target
    origin = _origin(str(request.url))
    return target if _origin(urljoin(str(request.url), target)) == origin else None


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _is_confidential(request: Any) -> bool:
    return request.method not in ("GET", "HEAD") or any(_KEY_NAME.fullmatch(name) for name in request.headers)


def install() -> None:
    """Replaces a method of requests. Repeating it changes nothing."""
    requests.Session.get_redirect_target = _target_within_origin  # type: ignore[method-assign,assignment]
