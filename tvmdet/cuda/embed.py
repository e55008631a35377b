"""A library's CUDA kernels: from source, which would be compiled at load, to compiled code.

Where there is no CUDA driver, TVM writes the source of its kernels into the library, and a runtime
would look for a compiler when it loads it. The source is replaced here by what nvcc made of it, in
the form in which TVM's CUDA runtime takes it (``src/runtime/cuda/cuda_module.cc``): the format's
name, what each kernel takes, and the bytes.

A library's imported modules lie in one array (``__tvm_ffi__library_bin``): its length, then the
tree of modules, then each module's kind and bytes. All lengths are 8 bytes, little-endian.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import tvm

from tvmdet.cuda.nvcc import CompiledCode, compile_with_nvcc
from tvmdet.errors import ModelError
from tvmdet.targets import Target

__all__ = ["SYMBOL", "EmbedKernels", "with_compiled_kernels"]

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
    start = imported.rfind(kind, 0, max(end - len(stored), 0))
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


class EmbedKernels:
    """Packs a library's imported modules; handed to ``export_library`` as ``fpack_imports``.

    Attributes:
        compiled: What nvcc made; None until the library is written.
    """

    def __init__(self, target: Target) -> None:
        """Compiles for a GPU.

        Args:
            target: Which GPU, and the CPU whose object file the array is put in.
        """
        self._arch = str(target.tvm["arch"])
        self._host = dict(target.tvm["host"])
        self.compiled: CompiledCode | None = None

    def __call__(
        self, module: tvm.runtime.Module, _is_system_lib: bool, _prefix: str, folder: str
    ) -> str:
        """Writes an object file with the array of imported modules; returns its path."""
        source = _cuda_source(module)
        self.compiled = compile_with_nvcc(source, self._arch)
        written_out = tvm.get_global_func("runtime.ModulePackImportsToC")(module, False, "")
        imported = bytes(int(byte, 16) for byte in re.findall(r"0x([0-9a-fA-F]{2})", written_out))
        data = with_compiled_kernels(imported, source, self.compiled.fatbin)
        text, output = Path(folder, "imported.ll"), Path(folder, "imported.o")
        text.write_text(_llvm_text(data, self._host), encoding="ascii")
        tvm.get_global_func("ffi.Module.load_from_file.ll")(str(text), "ll").write_to_file(
            str(output)
        )
        return str(output)


def _cuda_source(module: Any) -> str:
    """Returns the CUDA C++ among the modules that a module imports, at any depth."""
    found = [m.inspect_source() for m in module.imports if m.kind == "cuda"]
    found += [text for m in module.imports if (text := _cuda_source(m))]
    return "".join(found)


def _llvm_text(data: bytes, host: dict[str, Any]) -> str:
    """Returns an LLVM module that holds the bytes under the name that TVM's loader looks for."""
    escaped = "".join(f"\\{byte:02X}" for byte in data)
    described = json.dumps(host).replace('"', "\\22")
    triple = f'target triple = "{host["mtriple"]}"\n' if "mtriple" in host else ""
    return (
        f"{triple}"
        f'@{SYMBOL} = dso_local constant [{len(data)} x i8] c"{escaped}", align 64\n'
        "!llvm.module.flags = !{!0}\n"
        f'!0 = !{{i32 4, !"tvm_target", !"{described}"}}\n'
    )
