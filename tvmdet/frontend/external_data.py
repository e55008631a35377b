"""External tensor data, confined to the model's folder.

An ONNX file may keep its weights in other files, whose names it gives. A hostile file can
name any file of this machine. Every name is checked before the first byte is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from tvmdet.errors import ModelError
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import iter_tensors, tensor_bytes

__all__ = ["embed_external_data"]


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """Where the bytes of one tensor lie."""

    tensor: onnx.TensorProto
    path: Path
    offset: int
    length: int


def embed_external_data(model: onnx.ModelProto, folder: Path, limits: Limits) -> tuple[Path, ...]:
    """Reads all external tensors into the model, in place.

    Args:
        model: The parsed model.
        folder: The folder that holds the ONNX file; nothing outside it is read.
        limits: Bounds.

    Returns:
        The files that were read, sorted.

    Raises:
        ModelError: A location leaves the folder, a file is missing, or an offset or length
            does not fit. Nothing has been read then.
    """
    tensors = [t for t in iter_tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    pieces = [_locate(tensor, folder) for tensor in tensors]
    total = sum(piece.length for piece in pieces)
    if total > limits.max_external_bytes:
        raise ModelError(
            f"the external data are {total} bytes; allowed: {limits.max_external_bytes} "
            "(Limits.max_external_bytes)"
        )
    for piece in pieces:
        _embed(piece)
    return tuple(sorted({piece.path for piece in pieces}))


def _locate(tensor: onnx.TensorProto, folder: Path) -> _Piece:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _confined(tensor.name, entries.get("location", ""), folder)
    size = path.stat().st_size
    offset = _number(tensor.name, entries, "offset", 0)
    length = _number(tensor.name, entries, "length", max(size - offset, 0))
    if offset + length > size:
        raise ModelError(
            f"external data of tensor {tensor.name!r}: bytes {offset} to {offset + length} of "
            f"{path.name}, which has {size}; the file was cut short or is of another export: "
            "copy or export both files again"
        )
    expected = tensor_bytes(tensor)
    if expected is not None and expected != length:
        raise ModelError(
            f"external data of tensor {tensor.name!r}: {length} bytes, but its shape "
            f"{list(tensor.dims)} needs {expected}; copy or export both files again"
        )
    return _Piece(tensor=tensor, path=path, offset=offset, length=length)


def _confined(name: str, location: str, folder: Path) -> Path:
    """Returns the file of a location, after checking that it cannot leave the folder."""
    windows = PureWindowsPath(location)
    absolute = PurePosixPath(location).is_absolute() or windows.is_absolute() or windows.drive
    if not location or "\0" in location or absolute or ".." in windows.parts:
        raise ModelError(
            f"external data of tensor {name!r} lie at {location!r}; allowed: a relative path "
            "inside the model's folder, without '..'"
        )
    path = folder / location
    try:
        real, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"external data of tensor {name!r}: {location!r} cannot be followed; "
            "put a regular file there"
        ) from error
    if not real.is_relative_to(root):
        raise ModelError(
            f"external data of tensor {name!r}: {location!r} is a link that leaves the model's "
            "folder; put the file itself there"
        )
    if not real.is_file():
        raise ModelError(
            f"external data of tensor {name!r}: there is no file {location!r} beside the model; "
            "copy it from where the model was exported"
        )
    return real


def _number(name: str, entries: Mapping[str, str], key: str, default: int) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(
            f"external data of tensor {name!r}: {key} is {text!r}; allowed: a number of bytes"
        )
    return int(text)


def _embed(piece: _Piece) -> None:
    try:
        with piece.path.open("rb") as file:
            file.seek(piece.offset)
            data = file.read(piece.length)
    except OSError as error:
        raise ModelError(
            f"external data file {piece.path.name} cannot be read: {error.strerror}"
        ) from error
    if len(data) != piece.length:
        raise ModelError(f"external data file {piece.path.name} changed while it was read")
    piece.tensor.raw_data = data
    piece.tensor.data_location = onnx.TensorProto.DEFAULT
    del piece.tensor.external_data[:]
