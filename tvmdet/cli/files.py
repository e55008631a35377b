"""Files and folders that the command line writes, with the option that named them."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tvmdet.errors import InputError, ModelError
from tvmdet.files import whole_file

__all__ = ["check_model", "check_writable", "make_folder", "written_whole"]

_CHECKPOINTS = frozenset((".ckpt", ".pt", ".pth", ".safetensors"))


def check_model(path: Path) -> None:
    """Refuses what is no ONNX file at first sight, before the readers of such files are started.

    Raises:
        ModelError: There is no such file, or it is another kind of thing.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}; give the path of an .onnx file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read: {reason}; give an .onnx file") from error
    if stat.S_ISDIR(mode):
        raise ModelError(f"{path} is a folder; give the .onnx file in it")
    if path.suffix.lower() in _CHECKPOINTS:
        raise ModelError(
            f"{path} is a checkpoint, which holds weights and not how to compute with them; export "
            "it to ONNX: docs/exporting.md has the command of each framework"
        )


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
