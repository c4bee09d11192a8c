"""Renders a trace as one HTML page that loads nothing else.

Owns how the trace is embedded (as JSON in a block that browsers do not run and that the JSON cannot end) and the content policy
(only the page's own script runs, and nothing is fetched). Refuses to know what the page shows: that is page.html.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib import resources

from bridge_worker.trace.report import Trace

_SLOT = re.compile(r"\{\{(policy|title|data)\}\}")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def page(trace: Trace, title: str) -> str:
    template = resources.files("bridge_worker.trace").joinpath("page.html").read_text(encoding="utf-8")
    parts = {
        "policy": _policy(template),
        "title": html.escape(f"omni-bridge trace: {title}"),
        "data": json.dumps(trace.as_json(messages=True), separators=(",", ":")).translate(_ESCAPES),
    }
    return _SLOT.sub(lambda slot: parts[slot[1]], template)  # one pass, so that inserted text is not searched for slots


def _policy(template: str) -> str:
    """Allows the template's style and script, by their hashes, and nothing else."""
    style, script = (_hash(found[1]) for pattern in (_STYLE, _SCRIPT) if (found := pattern.search(template)))
    return f"default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
