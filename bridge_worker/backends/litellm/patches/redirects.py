"""Patches of redirects: in httpx, and in the package requests, by which LiteLLM and clouds' SDKs fetch tokens.

Owns one rule: a redirect to another origin is not followed when the request carries a key or a conversation. Refuses to know the
providers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import requests

from bridge_worker.backends.litellm.patches.patch import EVERY_PROVIDER, Patch
from bridge_worker.errors import BridgeError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_KEY_NAME = re.compile(r"(?i)authorization|cookie|.*(?:key|token|secret|signature|credential).*|x-amz-.*|ocp-apim-.*")


def _built_within_origin(original: Any) -> Any:
    def _build_redirect_request(self: Any, request: httpx.Request, response: httpx.Response) -> httpx.Request:
        following: httpx.Request = original(self, request, response)
        names = (*request.headers, *request.url.params)
        if _origin(str(following.url)) != _origin(str(request.url)) and _is_confidential(request.method, names):
            target = f"{following.url.scheme}://{following.url.host:.100}"
            raise BridgeError(
                "bad_upstream_response",
                f"the provider's host {request.url.host} redirects to {target}, which is not followed because the request carries "
                "a key or a conversation; correct the provider's base URL",
                status=response.status_code,
            )
        return following

    return _build_redirect_request


def _takes_a_key_along(original: Any) -> bool:
    request = httpx.Request("POST", "https://one.example", headers={"x-api-key": "none"}, content=b"a conversation")
    response = httpx.Response(307, headers={"location": "http://two.example"}, request=request)
    with httpx.Client(trust_env=False) as client:
        following = original(client, request, response)
    return "x-api-key" in following.headers or bool(following.read())


def _within_origin(original: Any) -> Any:
    def get_redirect_target(self: requests.Session, response: requests.Response) -> str | None:
        """The caller gets the redirect itself when it is not followed."""
        target: str | None = original(self, response)
        request = response.request
        if target is None or not _is_confidential(str(request.method), request.headers):
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


def _is_confidential(method: str, names: Iterable[str]) -> bool:
    """``names`` of headers and query parameters. What is sent with another method than these two is a conversation."""
    return method not in ("GET", "HEAD") or any(map(_KEY_NAME.fullmatch, names))


PATCHES = (
    Patch(
        name="redirects",
        wrong="a redirect takes the conversation and each key but Authorization to any host, plain HTTP included",
        evidence="tests/process/test_hosts.py::test_a_redirect_to_another_origin_is_an_error",
        places=("httpx._client:BaseClient._build_redirect_request",),
        takes=("self", "request", "response"),
        make=_built_within_origin,
        has_fault=_takes_a_key_along,
        protects=EVERY_PROVIDER,
    ),
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
