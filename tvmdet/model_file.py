"""What can be told of an ONNX file at first sight, without the libraries that read it."""

from __future__ import annotations

import stat
from pathlib import Path

from tvmdet.errors import ModelError

__all__ = ["check_model_file"]

# A zip, as PyTorch's checkpoints and .tvmdet files are, and a pickle, as older checkpoints are. In
# protobuf they would be the keys of fields 10, and 32 to 80, which no ONNX model has (onnx.proto).
_OTHERS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

_LFS_POINTER = b"version https://git-lfs"


def check_model_file(path: Path) -> int:
    """Refuses what is no ONNX file.

    Args:
        path: The file.

    Returns:
        Its length in bytes.

    Raises:
        ModelError: It is no file that can be read, it is empty, or of another kind.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise ModelError(f"{path} is a folder; give the .onnx file in it")
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{path} is not a regular file; give an .onnx file")
        with path.open("rb") as file:
            start = file.read(len(_LFS_POINTER))
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}; give the path of an .onnx file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path} cannot be read: {reason}; give an .onnx file") from error
    if not start:
        raise ModelError(f"{path} is empty; export or copy the model again")
    if start.startswith(_OTHERS):
        raise ModelError(
            f"{path} is a zip or a pickle, as checkpoints of PyTorch and compiled .tvmdet files "
            "are, and no ONNX model; export the detector: docs/exporting.md has the command for "
            "each framework"
        )
    if start == _LFS_POINTER:
        raise ModelError(f"{path} is a Git LFS pointer, not the model; run `git lfs pull`")
    return found.st_size
