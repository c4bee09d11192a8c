"""A trace as one page for a browser, which loads nothing from anywhere.

Owns how the trace gets into the page: as JSON in a block that no browser runs, with nothing in it that could end that block; and
the policy that lets no script run but the page's own, and nothing be fetched. Refuses to know what the page shows: page.html does.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources

from bridge_worker.trace.report import Trace

_PLACE = re.compile(r"\{\{(policy|title|data)\}\}")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def page(trace: Trace, title: str) -> str:
    template = resources.files("bridge_worker.trace").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "policy": _policy(template),
        "title": html.escape(f"omni-bridge trace: {title}"),
        "data": json.dumps(trace.told(messages=True), separators=(",", ":")).translate(_ESCAPES),
    }
    return _PLACE.sub(lambda place: parts[place[1]], template)  # in one pass: what is put in is not looked at again


def _policy(template: str) -> str:
    """Only this very style and this very script."""
    style, script = (_hash(found[1]) for pattern in (_STYLE, _SCRIPT) if (found := pattern.search(template)))
    return f"default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
