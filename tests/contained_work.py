"""What the contained processes of tests/test_contain.py do, good and bad."""

from __future__ import annotations

import ctypes
import os
import time

from tvmdet.errors import ShapeError
from tvmdet.steps import reached


def add(left: int, *, right: int) -> tuple[int, int]:
    """Returns the sum, and the process that computed it."""
    reached("adding")
    return left + right, os.getpid()


def refuse() -> None:
    """Raises one of our errors."""
    raise ShapeError("the rank is 7")


def fail() -> None:
    """Raises what nobody foresaw."""
    reached("failing")
    raise KeyError("surprise")


def crash() -> None:
    """Reads where nothing is."""
    reached("TVM imports node 'x' (Conv)")
    ctypes.string_at(0)


def abort() -> None:
    """Dies as C++ does of an exception that nobody catches."""
    reached("ONNX infers shapes")
    os.write(2, b"terminate called\n  what():  vector::_M_default_append\n")
    os.abort()


def leave() -> None:
    """Ends without an answer."""
    os._exit(7)


def wait() -> None:
    """Takes too long."""
    reached("onnxslim simplifies the network")
    time.sleep(600)


def grow(size: int) -> int:
    """Takes memory."""
    reached("ONNX Runtime runs a network")
    return len(bytearray(size))


def stop() -> None:
    """Is killed, as by the system."""
    os.kill(os.getpid(), 9)
