"""A zip archive that is verified in one pass, and whose members are used in place.

Members are stored without compression, in a fixed order with fixed timestamps, so that equal
contents make equal bytes. Each starts at a multiple of 64 bytes, so that a mapped one can be
handed to compiled code as it lies. The archive comment is the seal: the SHA-256 of the SHA-256
digests of every mebibyte before it, so that several threads can check it. Zip headers carry fields
that no reader looks at; the seal covers those too, so that a file either is what was written or is
refused. It guards against damage, not against forgery.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import weakref
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tvmdet.errors import ArtifactError
from tvmdet.files import whole_file

__all__ = ["ALIGNMENT_BYTES", "Chunks", "SealedZip", "damaged", "write_sealed_zip"]

ALIGNMENT_BYTES: Final = 64
"""Where members start, and what compiled code assumes of its buffers."""

Chunks: TypeAlias = Sequence[bytes | memoryview]
"""The contents of a member, in parts that are written one after the other."""

_SEAL_MARK: Final = b"tvmdet-seal-3:"
_FORMER_SEAL_MARK: Final = b"tvmdet-sha256:"
_SEAL_BYTES: Final = len(_SEAL_MARK) + 64
_BLOCK_BYTES: Final = 1 << 20
_READ_BYTES: Final = 128 << 10
_SEALING_THREADS: Final = 4
_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)
_PADDING_FIELD: Final = 0xD935  # of zipalign: two bytes of alignment, then zeros
_PADDING: Final = struct.Struct("<3H")
_ZIP64_FIELD_BYTES: Final = 20
_LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
_REMEDY: Final = "compile it again or copy it again"

# What zipfile lets out when the archive is malformed: its own error, a missing name, an
# unknown compression or flag, a field cut short or an offset out of range.
_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    KeyError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    struct.error,
)


class _Extent(NamedTuple):
    offset: int
    length: int


def damaged(path: Path, what: str) -> ArtifactError:
    """Returns the error of a file that is not what was written."""
    return ArtifactError(f"{path} is damaged: {what}; {_REMEDY}")


class SealedZip:
    """An opened archive whose bytes matched its seal.

    The file stays open as long as this object lives: another file that takes its name changes
    nothing here. One that is written to in place is refused when a member is asked for.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file and checks all of its bytes.

        Raises:
            ArtifactError: It cannot be read, or is damaged.
        """
        self._path = path
        with _reading(path, "its zip structure is broken"):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)
            self._state = self._current_state()
            _check_seal(path, self._fd)
            with open(self._fd, "rb", closefd=False) as file, zipfile.ZipFile(file) as archive:
                self._members = dict(_extents(path, archive, self._fd))

    @property
    def members(self) -> Mapping[str, int]:
        """Names of the members and their lengths in bytes, in the order of the file."""
        return {name: extent.length for name, extent in self._members.items()}

    def blocks(self, name: str) -> Iterator[memoryview]:
        """Yields the bytes of a member in blocks, each in the place of the last one.

        Raises:
            ArtifactError: The file was changed since it was opened.
        """
        extent = self._members[name]
        with _reading(self._path, f"member {name} cannot be read"):
            self._refuse_changes()
            buffer = memoryview(bytearray(_READ_BYTES))
            yield from _read(self._fd, extent.offset, extent.length, buffer)

    def map(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the bytes of a member where they lie in the page cache, not to be written to.

        Raises:
            ArtifactError: The file was changed since it was opened, or the member is not aligned.
        """
        offset, length = self._members[name]
        if not length:
            return np.empty(0, np.uint8)
        if offset % ALIGNMENT_BYTES:
            raise damaged(self._path, f"member {name} is not aligned to {ALIGNMENT_BYTES} bytes")
        start = offset % mmap.ALLOCATIONGRANULARITY
        with _reading(self._path, f"member {name} cannot be mapped"):
            self._refuse_changes()
            mapping = mmap.mmap(
                self._fd,
                start + length,
                flags=mmap.MAP_SHARED,
                prot=mmap.PROT_READ,
                offset=offset - start,
            )
        return np.frombuffer(mapping, np.uint8, length, start)

    def _current_state(self) -> tuple[int, int]:
        found = os.fstat(self._fd)
        return found.st_size, found.st_mtime_ns

    def _refuse_changes(self) -> None:
        if self._current_state() != self._state:
            raise damaged(self._path, "it was changed after it was opened")


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turns what the system and zipfile raise into our own error."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror or error}; give the path of a .tvmdet file"
        ) from error
    except _ZIP_ERRORS as error:
        raise damaged(path, f"{what} ({error})") from error


def write_sealed_zip(path: Path, members: Mapping[str, Chunks]) -> None:
    """Writes an archive, all of it or nothing.

    The file appears under its name only when complete: it is written beside it, flushed to
    the disk and then renamed. Whatever interrupts that, the temporary file is removed and
    an older file of the same name stays as it was.

    Args:
        path: Where to write; an older file there is replaced.
        members: Contents by name, in the order in which they are stored.

    Raises:
        ArtifactError: The file cannot be written.
    """
    size = sum(len(chunk) for chunks in members.values() for chunk in chunks)
    try:
        with whole_file(path) as temporary, temporary.open("w+b") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, chunks in members.items():
                    _store(archive, file, name, chunks)
                archive.comment = bytes(_SEAL_BYTES)  # room for the seal
            file.flush()
            content_bytes = file.seek(-_SEAL_BYTES, os.SEEK_END)
            file.write(_seal(file.fileno(), content_bytes))
    except OSError as error:
        raise ArtifactError(
            f"cannot write {path} ({size} bytes): {error.strerror or error}; "
            "free some space or choose another place with --output"
        ) from error


def _store(archive: zipfile.ZipFile, file: BinaryIO, name: str, chunks: Chunks) -> None:
    info = zipfile.ZipInfo(name, _TIMESTAMP)
    info.create_system = 3  # Unix, on every machine
    info.external_attr = 0o100644 << 16
    info.file_size = sum(len(chunk) for chunk in chunks)
    zip64 = info.file_size >= 1 << 31
    header_bytes = _LOCAL_HEADER.size + len(name.encode()) + (_ZIP64_FIELD_BYTES if zip64 else 0)
    padding = -(file.tell() + header_bytes + _PADDING.size) % ALIGNMENT_BYTES
    info.extra = _PADDING.pack(_PADDING_FIELD, 2 + padding, ALIGNMENT_BYTES) + bytes(padding)
    with archive.open(info, "w", force_zip64=zip64) as member:
        for chunk in chunks:
            member.write(chunk)
    info.extra = b""  # The central directory needs no padding.


def _extents(path: Path, archive: zipfile.ZipFile, fd: int) -> Iterator[tuple[str, _Extent]]:
    names = [info.filename for info in archive.infolist()]
    if len(set(names)) != len(names):
        raise damaged(path, "a member is there twice")
    for info in archive.infolist():
        # A stored member cannot expand to more than the file holds.
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise damaged(path, f"member {info.filename} is compressed or encrypted")
        header = os.pread(fd, _LOCAL_HEADER.size, info.header_offset)
        mark, *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
        if mark != b"PK\x03\x04" or start + info.file_size > os.fstat(fd).st_size:
            raise damaged(path, f"member {info.filename} is not where the file says")
        yield info.filename, _Extent(start, info.file_size)


def _check_seal(path: Path, fd: int) -> None:
    size = os.fstat(fd).st_size
    if not os.pread(fd, 4, 0).startswith(b"PK\x03\x04"):
        raise ArtifactError(
            f"{path} is no .tvmdet file ({size} bytes, no zip header); `tvmdet compile` makes one "
            "of an .onnx file; if it was one, compile it again or copy it again"
        )
    if size < _SEAL_BYTES:
        raise damaged(path, f"it is cut short ({size} bytes)")
    seal = os.pread(fd, _SEAL_BYTES, size - _SEAL_BYTES)
    if seal.startswith(_FORMER_SEAL_MARK):
        raise ArtifactError(
            f"{path} has format 1 or 2, which this tvmdet does not read; "
            "compile it again with this version, or use the version that wrote it"
        )
    if not seal.startswith(_SEAL_MARK):
        raise damaged(path, "it is cut short, or was changed: no seal at its end")
    if _seal(fd, size - _SEAL_BYTES) != seal:
        raise damaged(path, "its bytes do not match the SHA-256 at its end")


def _seal(fd: int, length: int) -> bytes:
    """Returns the seal of the first bytes of a file, digested by several threads."""
    starts = range(0, length, _BLOCK_BYTES)
    threads = min(_SEALING_THREADS, len(os.sched_getaffinity(0)), len(starts)) or 1

    def digest_every_nth(first: int) -> list[bytes]:
        buffer = memoryview(bytearray(_READ_BYTES))
        digests = []
        for start in starts[first::threads]:
            digest = hashlib.sha256()
            for block in _read(fd, start, min(_BLOCK_BYTES, length - start), buffer):
                digest.update(block)
            digests.append(digest.digest())
        return digests

    # hashlib lets other threads run while it works.
    with ThreadPoolExecutor(threads) as pool:
        dealt = list(pool.map(digest_every_nth, range(threads)))
    digests = b"".join(dealt[i % threads][i // threads] for i in range(len(starts)))
    return _SEAL_MARK + hashlib.sha256(digests).hexdigest().encode()


def _read(fd: int, offset: int, length: int, buffer: memoryview) -> Iterator[memoryview]:
    while length:
        count = os.preadv(fd, [buffer[:length]], offset)
        if not count:
            raise EOFError("it is shorter than it was")
        yield buffer[:count]
        offset += count
        length -= count
