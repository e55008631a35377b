"""Short names of results that measured the same setup: what tells their files apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

__all__ = ["session_tags"]

_SHORT = 16
_LONGEST = 28


def session_tags(files: Iterable[str]) -> dict[str, str]:
    """Returns a tag for each file: its stem, or of long or equal ones the part that differs."""
    known = list(dict.fromkeys(files))
    stems = [PurePath(file).stem for file in known]
    if len(set(stems)) == len(stems) and max(map(len, stems), default=0) <= _SHORT:
        return dict(zip(known, stems, strict=True))
    words = [
        re.findall(r"[^-_. /\\]+[-_. /\\]*", str(PurePath(file).with_suffix(""))) for file in known
    ]
    alike = _common(words)
    words = [one[alike:] for one in words]
    ending = _common([one[::-1] for one in words])
    tags = ["".join(one[: len(one) - ending]).strip("-_. /\\") for one in words]
    tags = [tag if len(tag) <= _LONGEST else f"…{tag[1 - _LONGEST :]}" for tag in tags]
    if len(set(tags)) < len(tags):
        tags = [f"session {number}" for number in range(1, len(tags) + 1)]
    return dict(zip(known, tags, strict=True))


def _common(words: Sequence[Sequence[str]]) -> int:
    """Returns how many words all begin with, leaving each at least one."""
    most = min((len(one) for one in words), default=1) - 1
    for index in range(most):
        if len({re.sub(r"[-_. /\\]+$", "", one[index]) for one in words}) > 1:
            return index
    return max(most, 0)
