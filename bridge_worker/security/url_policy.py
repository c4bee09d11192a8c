"""Checks image and file URLs of a caller. A provider, or LiteLLM instead of it, fetches such a URL.

Owns the policy and the reading of a host as the strictest of fetchers would read it. Refuses to resolve a name: that is LiteLLM's
part when it fetches, where it checks each address and each redirect again; so a name that turns out to be private is refused there.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_SCHEMES = ("data", "https")
# What URL parsers disagree about is refused, not interpreted: one reading would be checked and another one fetched.
_AMBIGUOUS = re.compile(r"[^\x21-\x7e]|\\")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|[0-9a-f:.]+")
_PRIVATE_NAMES = re.compile(r"[^.]*|.*\.(?:localhost|local|localdomain|internal|intranet|lan|home\.arpa|onion)")
_FABRIC = ipaddress.ip_network("168.63.129.16/32")  # Azure's wire server: counts as public, and is not
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
_OPAQUE = frozenset({"annotations", "provider_specific_fields", "reasoning_items"})  # what a provider sent, to be sent back
_URL_NAME = re.compile(r"(?i)(?:\w*[_-])?(?:url|uri)|\w*(?:Url|Uri)")
_MAX_URL = 8_192  # of one that is not data:
# A text to embed or rank that a model for images or documents would take for an address. A URL within a sentence is text.
_ADDRESS = re.compile(r"\s*(?:(?!https?:)[A-Za-z][A-Za-z0-9+.-]{0,31}://|https?://\S+\s*\Z)", re.IGNORECASE)
_TEXT_MEMBERS = ("input", "query", "documents")


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """``schemes``: ``data``, ``https`` or both. ``allowed_hosts`` may be private; each stands with its port or without."""

    schemes: tuple[str, ...] = _SCHEMES
    allowed_hosts: frozenset[str] = frozenset()

    @classmethod
    def from_settings(cls, settings: object) -> UrlPolicy:
        """The config's ``omni_bridge.image_policy``. Raises ValueError, which names the setting."""
        if not isinstance(settings, dict) or (unknown := sorted(map(str, set(settings) - {"schemes", "allowed_hosts"}))):
            wrong = f"{unknown[0]} is not a setting" if isinstance(settings, dict) else "it must be a mapping"
            raise ValueError(f"{wrong}; there are: schemes, allowed_hosts")
        schemes, hosts = settings.get("schemes", list(_SCHEMES)), settings.get("allowed_hosts", [])
        if not isinstance(schemes, list) or not all(scheme in _SCHEMES for scheme in schemes):
            raise ValueError("schemes must be a list of: data, https")
        if not isinstance(hosts, list) or not all(isinstance(host, str) and host for host in hosts):
            raise ValueError('allowed_hosts must be a list of names such as "images.example.com" or "10.0.0.7:8443"')
        return cls(tuple(schemes), frozenset(host.lower() for host in hosts))

    def opened(self, hosts: frozenset[str]) -> UrlPolicy:
        """The policy with ``hosts`` allowed too."""
        return UrlPolicy(self.schemes, self.allowed_hosts | hosts) if hosts else self

    def fault(self, url: str) -> str | None:
        """The reason why ``url`` is rejected, or None."""
        scheme = url.partition(":")[0].lower()
        if scheme not in self.schemes:
            return f"its scheme is not allowed here, only: {', '.join(f'{scheme}:' for scheme in self.schemes)}"
        return None if scheme == "data" else self._host_fault(url)

    def host_fault(self, url: str) -> str | None:
        """The same for a URL that is not fetched, such as the page of a citation: ``http:`` is allowed too."""
        scheme = url.partition(":")[0].lower()
        if scheme not in ("data", "http", "https"):
            return "its scheme is not allowed here, only: data:, http:, https:"
        return None if scheme == "data" else self._host_fault(url)

    def _host_fault(self, url: str) -> str | None:
        if len(url) > _MAX_URL or _AMBIGUOUS.search(url):
            return "it has characters that a URL does not have, or too many"
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").removesuffix("."), parts.port
        except ValueError:
            return "it is no URL"
        if "@" in parts.netloc or not _HOST.fullmatch(host):
            return "its host must be a plain name or address"
        if {host, f"{host}:{port}", f"[{host}]", f"[{host}]:{port}"} & self.allowed_hosts:
            return None
        address = _address(host)
        private = _PRIVATE_NAMES.fullmatch(host) if address is None else not _is_public(address)
        return "its host is private; the operator can allow it under omni_bridge: image_policy: allowed_hosts" if private else None


def faults(params: Mapping[str, Any], policy: UrlPolicy) -> Iterator[tuple[str, str]]:
    """(path, what is wrong) of each URL in validated params that must not be passed on."""
    messages = params.get("messages")
    for place, url in urls(messages):
        if fault := policy.fault(url):
            yield place, fault
    for place, url in opaque_urls(messages):
        if fault := policy.host_fault(url):
            yield place, fault
    for place, text in _texts(params):
        if _ADDRESS.match(text) and (fault := policy.host_fault(text.strip())):
            yield place, fault


def _texts(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, text) of what is to be embedded or ranked."""
    if params.keys().isdisjoint(_TEXT_MEMBERS):
        return
    for name in _TEXT_MEMBERS:
        member = params.get(name)
        if isinstance(member, str):
            yield name, member
        elif isinstance(member, list):
            yield from ((f"{name}[{index}]", text) for index, text in enumerate(member))


def urls(messages: object) -> Iterator[tuple[str, str]]:
    """(path, URL) of each part of validated messages that has one."""
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        for name in ("content", "images"):
            parts = message.get(name)
            for position, part in enumerate(parts if isinstance(parts, list) else ()):
                yield from _urls_of_part(part, f"messages[{index}].{name}[{position}]")


def opaque_urls(messages: object) -> Iterator[tuple[str, str]]:
    """(path, URL) of each member of a provider's own state with the name of a URL or URI. A citation's page may be ``http:``."""
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        for name in _OPAQUE & message.keys():
            yield from _named_urls(message[name], f"messages[{index}].{name}")
        for position, call in enumerate(message.get("tool_calls") or ()):
            place = f"messages[{index}].tool_calls[{position}].provider_specific_fields"
            yield from _named_urls(call.get("provider_specific_fields"), place)


def _named_urls(value: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, member in value.items():
            if not isinstance(member, str):
                yield from _named_urls(member, f"{place}.{name}")
            elif _URL_NAME.fullmatch(name) and ":" in member:
                yield f"{place}.{name}", member
    elif isinstance(value, list):
        for position, member in enumerate(value):
            yield from _named_urls(member, f"{place}[{position}]")


def _urls_of_part(part: Mapping[str, Any], place: str) -> Iterator[tuple[str, str]]:
    if part["type"] == "image_url":
        image = part["image_url"]
        yield (f"{place}.image_url", image) if isinstance(image, str) else (f"{place}.image_url.url", image["url"])
    elif part["type"] == "file":
        for name in ("file_data", "file_id"):
            if ":" in (value := part["file"].get(name) or ""):
                yield f"{place}.file.{name}", value


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address in ``host``, also for "2130706433", "0x7f.1" and "127.1", which C libraries read as addresses."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else inner
        if inner and not _is_public(inner):
            return False
    return address.is_global and not address.is_multicast and address not in _FABRIC
