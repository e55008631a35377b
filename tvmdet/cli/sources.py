"""What the words after ``tvmdet detect MODEL`` name: images, folders, globs, videos."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmdet.counted import counted
from tvmdet.errors import InputError
from tvmdet.files import check_no_address
from tvmdet.suffixes import IMAGE_SUFFIXES, UNREAD_SUFFIXES, VIDEO_SUFFIXES

__all__ = ["Found", "find_sources"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Found:
    """One image or video.

    Attributes:
        path: Where it is.
        relative: Its path below the folder, or below the part of the glob without wildcards,
            that it was found in; for a file named by itself, its name.
    """

    path: Path
    relative: Path

    @property
    def is_video(self) -> bool:
        """Whether its name ends as videos' names do."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def find_sources(words: Sequence[str], *, left_out: Path | None = None) -> list[Found]:
    """Returns the images and videos that the words name, each once, in the order named.

    Args:
        words: Files, folders (searched with all folders below them) and globs, where ``**``
            stands for any folders.
        left_out: A folder to leave out of folders and globs: where results are written.

    Raises:
        InputError: A folder or glob has neither images nor videos in it, or a word is an address
            or a device.
    """
    found: dict[str, Found] = {}
    for word in words:
        for source in _expand(word, left_out):
            found.setdefault(os.path.abspath(source.path), source)
    return list(found.values())


def _expand(word: str, left_out: Path | None) -> list[Found]:
    path = Path(word)
    check_no_address(word)
    # A pipe may be read, but for the one that results are written to.
    if path.is_char_device() or path.is_block_device() or word in ("/dev/stdout", "/dev/stderr"):
        raise InputError(
            f"{word} is a device; give an image, a video or a folder (and --json alone, "
            "behind the sources, to print JSON)"
        )
    if path.is_dir():
        return _filter(sorted(path.rglob("*")), path, word, left_out)
    if not path.exists() and glob.has_magic(word):
        base = _plain_part(path)
        matches = sorted(Path(match) for match in glob.glob(word, recursive=True))
        return _filter(matches, base, word, left_out)
    # A file named by itself is tried whatever its suffix; one that is missing is reported
    # with the images that cannot be read.
    return [Found(path=path, relative=Path(path.name))]


def _filter(paths: Sequence[Path], base: Path, word: str, left_out: Path | None) -> list[Found]:
    hidden = None if left_out is None else left_out.resolve()
    every = [
        Found(path=path, relative=path.relative_to(base))
        for path in paths
        if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
        and path.is_file()
        and not path.name.startswith(".")
    ]
    if unread := sorted(path.name for path in paths if path.suffix.lower() in UNREAD_SUFFIXES):
        _log.warning(
            "left out of %s: %s in a format that is not read, such as %s; convert them to PNG",
            word,
            counted(len(unread), "picture"),
            unread[0],
        )
    found = [one for one in every if hidden is None or hidden not in one.path.resolve().parents]
    if every and not found:
        raise InputError(
            f"all images of {word} lie in {left_out}, where --save puts results; save to another "
            "folder"
        )
    if not found:
        looked_for = " ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
        raise InputError(
            f"{word} names no image and no video; looked for files that end in {looked_for} "
            f"({counted(len(paths), 'entry', 'entries')} seen); give a file, another folder or "
            "another pattern"
        )
    return found


def _plain_part(pattern: Path) -> Path:
    """Returns the folder above the first wildcard."""
    plain = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        plain.append(part)
    return Path(*plain) if plain else Path()
