"""A library's CUDA kernels: from source, which would be compiled at load, to compiled code.

Where there is no CUDA driver, TVM writes the source of its kernels into the library, and a runtime
would look for a compiler when it loads it. The source is replaced here by what nvcc made of it, in
the form in which TVM's CUDA runtime takes it (``src/runtime/cuda/cuda_module.cc``): the format's
name, what each kernel takes, and the bytes.

A library's imported modules lie in one array (``__tvm_ffi__library_bin``): its length, then the
tree of modules, then each module's kind and bytes. All lengths are 8 bytes, little-endian.
"""

from __future__ import annotations

import struct

from tvmdet.errors import ModelError

__all__ = ["SYMBOL", "with_compiled_kernels"]

SYMBOL = "__tvm_ffi__library_bin"
"""Name of the array of a library's imported modules."""

_LENGTH = struct.Struct("<Q")


def _text(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def with_compiled_kernels(imported: bytes, source: str, fatbin: bytes) -> bytes:
    """Returns a library's imported modules with compiled kernels in place of their source.

    Args:
        imported: What ``ModulePackImportsToC`` writes out, its length in front.
        source: The kernels, as TVM wrote them.
        fatbin: What nvcc made of them.

    Raises:
        ModelError: The bytes are not laid out as this version of TVM lays them out.
    """
    code = source.encode()
    kind, stored_as, stored = _text(b"cuda"), _text(b"cuda"), _text(code)
    end = imported.find(stored) + len(stored)
    start = imported.rfind(kind + _LENGTH.pack(0)[:0], 0, imported.find(stored))
    while start > 0 and not _holds(imported, start, len(kind), stored_as, end):
        start = imported.rfind(kind, 0, start)
    if imported.count(stored) != 1 or start < 0:
        raise ModelError(
            "TVM's library has its CUDA kernels in a form that tvmdet does not know; install the "
            "version of TVM that tvmdet names"
        )
    body = start + len(kind) + _LENGTH.size
    facts = imported[body + len(stored_as) : end - len(stored)]
    compiled = _text(b"fatbin") + facts + _text(fatbin)
    head = imported[_LENGTH.size : start] + kind + _text(compiled) + imported[end:]
    return _LENGTH.pack(len(head)) + head


def _holds(imported: bytes, start: int, kind: int, stored_as: bytes, end: int) -> bool:
    """Returns whether a module that ends at ``end`` begins at ``start``."""
    (length,) = _LENGTH.unpack_from(imported, start + kind)
    body = start + kind + _LENGTH.size
    return body + length == end and imported[body : body + len(stored_as)] == stored_as
