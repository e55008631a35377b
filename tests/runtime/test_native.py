from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from assertions import assert_close
from toy_modules import SIZE_HW, reference_detect

from tvmdet.errors import ArtifactError, InputError
from tvmdet.runtime import native
from tvmdet.runtime.memory import aligned_empty
from tvmdet.runtime.native import NativeModule, configure_workers
from tvmdet.runtime.threads import NativeThread, native_thread


@pytest.fixture
def thread() -> NativeThread:
    return native_thread(1, configure_workers)


@pytest.fixture
def module(thread: NativeThread, toy_library: bytes) -> Iterator[NativeModule]:
    module = thread.submit(lambda: NativeModule(writing(toy_library), name="toy")).result()
    yield module
    thread.submit(module.close).result()


def writing(library: bytes) -> Callable[[BinaryIO], object]:
    return lambda file: file.write(library)


def arguments() -> tuple[np.ndarray, np.ndarray]:
    images = aligned_empty((1, *SIZE_HW, 3), np.uint8)
    images[...] = (200, 150, 100)
    thresholds = aligned_empty((2,), np.float32)
    thresholds[...] = (0.25, 0.6)
    return images, thresholds


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5, 7)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_aligned_arrays(shape: tuple[int, ...], dtype: str) -> None:
    array = aligned_empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.size == 0 or array.ctypes.data % 64 == 0
    assert array.flags.writeable
    array[...] = 1


def test_calls_and_returns_owned_arrays(module: NativeModule, thread: NativeThread) -> None:
    images, thresholds = arguments()
    expected = reference_detect(images[0], 0.25, 0.6)
    first = thread.submit(lambda: module.call("detect_b1", (images, thresholds))).result()
    kept = [array.copy() for array in first]
    images[...] = 0
    second = thread.submit(lambda: module.call("detect_b1", (images, thresholds))).result()
    assert second[3].tolist() == [0]
    for array, copy in zip(first, kept, strict=True):
        assert array.flags.owndata
        assert array.flags.writeable
        assert_close(array, copy)
    assert [array.dtype.name for array in first] == ["float32", "float32", "int32", "int32"]
    for array, wanted in zip(first, expected, strict=False):
        assert_close(array[0, : first[3][0]], wanted)


def test_failures_are_reported_with_the_file(module: NativeModule, thread: NativeThread) -> None:
    with pytest.raises(ArtifactError, match="toy failed in detect_b99"):
        thread.submit(lambda: module.call("detect_b99", arguments())).result()
    wrong = (aligned_empty((1, 2, 3, 3), np.uint8), aligned_empty((2,), np.float32))
    with pytest.raises(ArtifactError, match="toy failed in detect_b1"):
        thread.submit(lambda: module.call("detect_b1", wrong)).result()


def test_refuses_calls_once_closed(thread: NativeThread, toy_library: bytes) -> None:
    module = thread.submit(lambda: NativeModule(writing(toy_library), name="toy")).result()
    thread.submit(module.close).result()
    with pytest.raises(InputError, match="toy is closed"):
        thread.submit(lambda: module.call("detect_b1", arguments())).result()


@pytest.mark.parametrize("library", [b"", b"not a library", b"\x7fELF" + bytes(100)])
def test_refuses_what_is_no_library(thread: NativeThread, library: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"toy cannot be loaded: .*; compile it again"):
        thread.submit(lambda: NativeModule(writing(library), name="toy")).result()


def test_the_library_is_only_ever_in_a_private_folder(
    thread: NativeThread, toy_library: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[tuple[int, list[str]]] = []

    def watch(file: BinaryIO) -> None:
        mode = stat.S_IMODE(Path(file.name).parent.stat().st_mode)
        seen.append((mode, os.listdir(tmp_path)))
        file.write(toy_library)

    module = thread.submit(lambda: NativeModule(watch, name="toy")).result()
    ((mode, folders),) = seen
    assert mode == 0o700
    assert len(folders) == 1
    assert os.listdir(tmp_path) == []
    thread.submit(module.close).result()


def test_closing_unloads_the_code(thread: NativeThread, toy_library: bytes) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count("module.so")

    before = mapped()
    module = thread.submit(lambda: NativeModule(writing(toy_library), name="toy")).result()
    assert mapped() > before
    thread.submit(module.close).result()
    assert mapped() == before


def test_says_what_to_install_when_the_runtime_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ArtifactError, match="apache-tvm is not installed"):
        native._tvm_ffi.__wrapped__()
