"""Where the kernels begin in a compiled library: read from its table of dynamic symbols."""

from __future__ import annotations

import struct
from typing import Final

from tvmdet.errors import ArtifactError

__all__ = ["kernel_places"]

_AGAIN: Final = "compile the file again"
_IDENTITY: Final = b"\x7fELF\x02\x01"
_PREFIX: Final = b"__tvm_ffi_"
_HEADER: Final = struct.Struct("<16xHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_LOADED, _DYNAMIC_SYMBOLS, _FUNCTION = 1, 11, 2


def kernel_places(library: bytes) -> dict[str, int]:
    """Returns the offset in the file of each function that TVM exports, by its name.

    Args:
        library: A shared library of 64 bits, little endian (ELF).

    Raises:
        ArtifactError: It is none.
    """
    if library[:6] != _IDENTITY:
        raise ArtifactError(f"the compiled library is no ELF of 64 bits; {_AGAIN}")
    try:
        return _read(library)
    except (struct.error, ValueError, IndexError) as error:
        raise ArtifactError(
            f"the compiled library has no symbols that can be read ({error}); {_AGAIN}"
        ) from error


def _read(library: bytes) -> dict[str, int]:
    head = _HEADER.unpack_from(library)
    segments_at, sections_at, segments, sections = head[4], head[5], head[9], head[11]
    loaded = [
        (address, offset, size)
        for kind, _, offset, address, _, size, _, _ in (
            _SEGMENT.unpack_from(library, segments_at + i * _SEGMENT.size) for i in range(segments)
        )
        if kind == _LOADED
    ]
    tables = [
        _SECTION.unpack_from(library, sections_at + i * _SECTION.size) for i in range(sections)
    ]
    places: dict[str, int] = {}
    for table in tables:
        if table[1] != _DYNAMIC_SYMBOLS:
            continue
        names_at, names_size = tables[table[6]][4:6]
        names = library[names_at : names_at + names_size]
        for at in range(table[4], table[4] + table[5], _SYMBOL.size):
            name_at, info, _, section, address, _ = _SYMBOL.unpack_from(library, at)
            name = names[name_at : names.index(0, name_at)]
            if info & 15 != _FUNCTION or not section or not name.startswith(_PREFIX):
                continue
            for start, offset, size in loaded:
                if start <= address < start + size:
                    places[name.removeprefix(_PREFIX).decode()] = address - start + offset
    return places
