"""Files and folders that the command line writes, with the option that named them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmdet.errors import InputError
from tvmdet.files import whole_file

__all__ = ["make_folder", "written_whole"]


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
