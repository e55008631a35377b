"""Sizes in words."""

from __future__ import annotations

import re
from pathlib import Path

from tvmdet.sizes import size_text

PACKAGE = Path(__file__).parents[1] / "tvmdet"


def test_height_comes_first_and_says_so() -> None:
    assert size_text((480, 640)) == "480x640 (height x width)"


def test_no_message_puts_the_width_first() -> None:
    turned = re.compile(r"\{w(idth)?\}\s*x\s*\{h(eight)?\}|\[1\]\}x\{[\w.]*\[0\]")
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if turned.search(line)
    ]
    assert not found
