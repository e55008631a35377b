"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmdet.errors import InputError

__all__ = ["check_no_address", "check_ordinary", "whole_file"]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that takes its place when the block ends well.

    It is flushed to the disk first. Whatever goes wrong, the temporary file is removed and an
    older file stays as it was. An ``OSError`` is the caller's to map.

    Args:
        path: The file to make; its folder exists.

    Raises:
        OSError: What is there is no ordinary file, such as ``/dev/null``: it would be gone.
    """
    check_ordinary(path)
    # The suffix stays: video writers choose the container by it. Not tempfile.mkstemp: that
    # gives the file to its owner only, whatever the umask says.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.part{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_ordinary(path: Path) -> None:
    """Refuses what would be gone if a file took its place.

    Raises:
        OSError: There is a folder, a device, a pipe or the like.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no ordinary file, and would be replaced")


def check_no_address(text: str) -> None:
    """Refuses an address on the web, or of a camera, where a file is wanted.

    Raises:
        InputError: It is one.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise InputError(f"{text} is an address, and nothing is fetched; download it first")
