"""Files and folders that the command line writes, with the option that named them."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmdet.errors import InputError
from tvmdet.files import whole_file

__all__ = ["check_writable", "make_folder", "written_whole"]


@contextmanager
def written_whole(path: Path, option: str) -> Iterator[Path]:
    """Yields a temporary path that becomes ``path``, as :func:`tvmdet.files.whole_file` does.

    Args:
        path: The file to make; its folder exists.
        option: The option that named it, for the error message.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        with whole_file(path) as temporary:
            yield temporary
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _refused(path, option, error) from error


def check_writable(path: str | Path | None, option: str) -> None:
    """Tries whether a file could be written, before the work whose result goes there.

    Args:
        path: The file; None and ``-``, which is the standard output, are no file.
        option: The option that named it, for the error message.

    Raises:
        InputError: It could not be written.
    """
    if path is None or path == "-":
        return
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # As written_whole does: beside it. An older file there is left as it is.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _refused(path, option, error) from error


def make_folder(path: Path, option: str) -> None:
    """Makes a folder and those above it.

    Raises:
        InputError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(path, option, error) from error


def _refused(path: Path, option: str, error: OSError) -> InputError:
    advice = f"free some space or choose another place with {option}"
    if isinstance(error, IsADirectoryError):
        advice = f"it is a folder: give {option} a file in it"
    elif isinstance(error, FileNotFoundError):
        advice = f"make the folder {path.parent}, or choose another place with {option}"
    return InputError(f"cannot write {path}: {error.strerror or error}; {advice}")
