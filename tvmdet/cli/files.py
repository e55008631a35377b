"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmdet.errors import InputError

__all__ = ["make_folder", "written_whole"]


@contextmanager
def written_whole(path: Path, option: str) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that takes its place when all went well.

    Whatever goes wrong, the temporary file is removed and an older file stays as it was.

    Args:
        path: The file to make; its folder exists.
        option: The option that named it, for the error message.

    Raises:
        InputError: The file cannot be written.
    """
    # The suffix stays: video writers choose the container by it.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.part{path.suffix}")
    try:
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
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
    return InputError(
        f"cannot write {path}: {error.strerror or error}; "
        f"free some space or choose another place with {option}"
    )
