"""Runs one runtime in a process of its own: ``python -P serve.py RIVAL.py``.

This file and those beside it run in whatever interpreter has the runtime, so they import numpy,
the runtime and nothing else; tvmdet itself need not be there. What is asked comes in on the
standard input and is answered on what was the standard output, one message at a time, and the
process sleeps in between. A message is JSON and the bytes of arrays:

    4 bytes      length of the JSON, little endian
    JSON         an object; "arrays" lists name, dtype and shape of what follows
    the bytes of each array, one after the other

Nothing is pickled: a message is data, whoever wrote it.

What a rival file offers:

- ``load(model, signature, *, threads, precision, mode)`` returns a function from a dict of arrays
  to a dict of arrays, by the ONNX file's names;
- ``version()`` names the runtime and its version;
- ``settings(threads, precision, mode)`` says in one line how it was set up;
- tvmdet's take ``target`` too, whose code is to run;
- ``CALLS``, if it is there, has further functions from JSON values to JSON values.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

__all__ = ["Message", "Session", "decode_header", "encode", "main", "receive_arrays"]

Message = tuple[dict[str, Any], dict[str, "np.ndarray[Any, Any]"]]
Read = Callable[[int], bytes]
Answer = Callable[[Mapping[str, Any], dict[str, Any]], Message]

_ALIGNMENT_BYTES = 64
_LIMIT_BYTES = 1 << 31
_KINDS = "biuf"


def encode(header: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> list[bytes]:
    """Returns a message as pieces to be written one after the other."""
    described, pieces = [], []
    for name, given in (arrays or {}).items():
        array = np.ascontiguousarray(given)
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"array {name!r} has dtype {array.dtype}; numbers only")
        shape = list(np.shape(given))
        described.append({"name": name, "dtype": array.dtype.str, "shape": shape})
        pieces.append(array.tobytes())
    text = json.dumps({**header, "arrays": described}).encode()
    return [struct.pack("<I", len(text)), text, *pieces]


def decode_header(read: Read) -> dict[str, Any] | None:
    """Reads the JSON of a message, or None where the other side has closed."""
    start = read(4)
    if not start:
        return None
    (length,) = struct.unpack("<I", start)
    header = json.loads(_exactly(read, length))
    if not isinstance(header, dict):
        raise TypeError(f"a message is a {type(header).__name__}, not an object")
    return header


def receive_arrays(header: Mapping[str, Any], read: Read) -> dict[str, np.ndarray[Any, Any]]:
    """Reads the arrays that a header announces, each aligned to 64 bytes."""
    arrays = {}
    for entry in header.get("arrays", ()):
        dtype = np.dtype(entry["dtype"])
        if dtype.kind not in _KINDS:
            raise TypeError(f"array {entry['name']!r} has dtype {dtype}; numbers only")
        size = dtype.itemsize * int(np.prod(entry["shape"], dtype=np.int64))
        if not 0 <= size <= _LIMIT_BYTES:
            raise ValueError(f"array {entry['name']!r} has {size} bytes")
        room = np.empty(size + _ALIGNMENT_BYTES, np.uint8)
        start = -room.ctypes.data % _ALIGNMENT_BYTES
        place = room[start : start + size]
        place[:] = np.frombuffer(_exactly(read, size), np.uint8)
        arrays[entry["name"]] = place.view(dtype).reshape(entry["shape"])
    return arrays


def _exactly(read: Read, count: int) -> bytes:
    data = read(count)
    if len(data) != count:
        raise EOFError(f"the other side closed after {len(data)} of {count} bytes")
    return data


class Session:
    """One loaded runtime, and the inputs that it is timed on."""

    def __init__(self, rival: Any) -> None:
        """Takes a rival's module."""
        self._rival = rival
        self._run: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self._inputs: dict[str, Any] = {}

    def answer(self, header: Mapping[str, Any], arrays: dict[str, Any]) -> Message:
        """Does what one message asks for."""
        what = header["do"]
        if what == "load":
            options = header["options"]
            self._run = self._rival.load(header["model"], header["signature"], **options)
            described = {
                "version": self._rival.version(),
                "settings": self._rival.settings(**options),
            }
            return described, {}
        if what == "call":
            return {"value": self._rival.CALLS[header["function"]](**header["arguments"])}, {}
        if self._run is None:
            raise RuntimeError(f"{what!r} before 'load'")
        if what == "feed":
            self._inputs = arrays
            return {}, {}
        if what == "run":
            return {}, self._run(self._inputs)
        if what == "time":
            return {"seconds": self._time(self._run, header["untimed"])}, {}
        raise ValueError(f"unknown request {what!r}")

    def _time(self, run: Callable[[dict[str, Any]], Any], untimed: int) -> float:
        for _ in range(untimed):
            run(self._inputs)
        start = time.perf_counter()
        run(self._inputs)
        return time.perf_counter() - start


def main(path: str) -> None:
    """Answers messages until the other side closes."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What a runtime prints goes to the log, not between the messages.
    os.dup2(2, 1)
    answer: Answer
    try:
        answer = Session(_import(path)).answer
    except Exception as error:  # an import raises anything; told to whoever asks
        answer = _refusal(error)

    def read(count: int) -> bytes:
        return requests.read(count)

    while (header := decode_header(read)) is not None:
        arrays = receive_arrays(header, read)
        try:
            pieces = encode(*answer(header, arrays))
        except Exception as error:  # a runtime raises anything; the other side decides
            pieces = encode({"error": f"{type(error).__name__}: {error}"})
        answers.writelines(pieces)
        answers.flush()


def _refusal(error: Exception) -> Answer:
    text = f"{type(error).__name__}: {error}"
    return lambda _header, _arrays: ({"error": text}, {})


def _import(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("tvmdet_rival", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main(sys.argv[1])
