"""Other machines than this one: linking for them, running on them, emulating them."""

from __future__ import annotations

__all__: list[str] = []
