"""Files and folders that the command line writes, with the option that named them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from tvmdet.errors import InputError
from tvmdet.files import check_ordinary, whole_file

__all__ = ["check_apart", "check_writable", "make_folder", "written_whole"]


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


def check_writable(
    path: str | Path | None, option: str, read: Iterable[str | Path | None] = ()
) -> None:
    """Tries whether a file could be written, before the work whose result goes there.

    Args:
        path: The file; None and ``-``, which is the standard output, are no file.
        option: The option that named it, for the error message.
        read: Files that the work reads, or writes by another option; None for none.

    Raises:
        InputError: It could not be written.
        typer.BadParameter: It is one of those that are read.
    """
    if path is None or path == "-":
        return
    path = Path(path)
    check_apart(path, option, read)
    try:
        check_ordinary(path)
        # As written_whole does: beside it. An older file there is left as it is.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _refused(path, option, error) from error


def check_apart(path: str | Path | None, option: str, read: Iterable[str | Path | None]) -> None:
    """Refuses to write over a file that the command reads, or writes by another option.

    Args:
        path: The file; None and ``-``, which is the standard output, are no file.
        option: The option that named it, for the error message.
        read: The others; None for none.

    Raises:
        typer.BadParameter: It is one of them.
    """
    if path is None or path == "-":
        return
    for other in read:
        if other is not None and os.path.realpath(other) == os.path.realpath(path):
            raise typer.BadParameter(
                f"{path} is a file of this command already, and would be written over; name "
                "another file",
                param_hint=option,
            )


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
    elif path.exists() and not path.is_file():
        advice = f"give {option} a name of its own"
    elif isinstance(error, FileNotFoundError):
        advice = f"make the folder {path.parent}, or choose another place with {option}"
    return InputError(f"cannot write {path}: {error.strerror or error}; {advice}")
