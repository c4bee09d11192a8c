"""How many examples a test of tests/fuzz tries: `FUZZ_EXAMPLES=100000` runs longer."""

from __future__ import annotations

import os

from hypothesis import settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
COMMON = settings(max_examples=EXAMPLES)
