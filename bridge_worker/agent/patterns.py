"""Searches a caller's regular expressions in a model's text, in bounded time.

Owns the limits: a pattern may backtrack exponentially, and `re` would hold the interpreter for as long as that takes. The package
`regex` ends a search after a time and lets other threads run. Refuses to know a schema.
"""

from __future__ import annotations

import regex

MAX_PATTERN_CHARACTERS = 1_000  # a longer one takes milliseconds to compile
MAX_TEXT_CHARACTERS = 100_000
SEARCH_SECONDS = 0.02  # of one search
MAX_SLOW_SEARCHES = 5  # of one check: after these no pattern is searched


class NotSearched(Exception):
    """The pattern can't be searched in the given time, or is not a regular expression. The message is the reason."""


class Patterns:
    """The patterns of one check. Its searches may take 0.1 s in all, so call it in a thread."""

    def __init__(self) -> None:
        self._slow = 0

    def matches(self, pattern: str, text: str) -> bool:
        """Raises NotSearched."""
        if len(pattern) > MAX_PATTERN_CHARACTERS or len(text) > MAX_TEXT_CHARACTERS:
            raise NotSearched("it is too long to be searched")
        if self._slow >= MAX_SLOW_SEARCHES:
            raise NotSearched("the patterns of the schema take too long")
        try:
            found = regex.compile(pattern, cache_pattern=False).search(text, timeout=SEARCH_SECONDS, concurrent=True)
        except TimeoutError:
            self._slow += 1
            raise NotSearched(f"the search takes longer than {SEARCH_SECONDS * 1000:g} ms") from None
        except (regex.error, RecursionError, MemoryError, OverflowError) as error:
            raise NotSearched(f"it is not a regular expression ({error})") from None
        return found is not None
