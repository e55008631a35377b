"""What a GPU's kernels are recorded as, with recording emulated: addresses are kept, values not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
import tvm_ffi
from tvmdet.targets import get_target

import tvmdet
from tvmdet.compiler.build import BuiltLibrary
from tvmdet.compiler.emulated_library import build_emulated_library
from tvmdet.compiler.schedule import schedule_kernels
from tvmdet.cuda.emulator import find_compiler
from tvmdet.passes.lower import lower
from tvmdet.runtime import cuda_graphs
from tvmdet.runtime.memory import aligned_empty
from tvmdet.runtime.native import NativeModule
from tvmdet.tuning.store import TuningStore

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="g++ is not installed")

RECORD = "vm.builtin.cuda_graph.run_or_capture"
ALLOCATE = "vm.builtin.cuda_graph.get_cached_alloc"
SIZES = (1, 2)


class Recorder:
    """As TVM's ``cuda_graph_builtin.cc``: what was given first is used for good.

    Attributes:
        calls: The number of each recorded function, in the order of calls.
    """

    def __init__(self) -> None:
        self._invoke = tvm_ffi.get_global_func("vm.builtin.invoke_closure")
        self._recorded: dict[int, tuple[Any, Any]] = {}
        self._allocated: dict[int, Any] = {}
        self.calls: list[int] = []

    def run(self, machine: Any, function: Any, arguments: Any, which: int) -> Any:
        if which not in self._recorded:
            states = self._invoke(machine, function, *arguments)
            self._recorded[which] = arguments, states
        arguments, states = self._recorded[which]
        self._invoke(machine, function, *arguments)
        self.calls.append(which)
        return states

    def allocate(self, machine: Any, function: Any, which: int) -> Any:
        if which not in self._allocated:
            self._allocated[which] = self._invoke(machine, function)
        return self._allocated[which]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    with _registered(made.run, made.allocate):
        yield made


class _registered:
    def __init__(self, run: Callable[..., Any], allocate: Callable[..., Any]) -> None:
        self._given = {RECORD: run, ALLOCATE: allocate}

    def __enter__(self) -> None:
        # There are others where TVM's CUDA runtime is loaded, or in another of these.
        self._before = {
            name: tvm_ffi.get_global_func(name, allow_missing=True) for name in self._given
        }
        self._register(self._given)

    def __exit__(self, *_: object) -> None:
        self._register(self._before)

    @staticmethod
    def _register(functions: Mapping[str, Any]) -> None:
        for name, function in functions.items():
            if function is None:
                tvm_ffi.remove_global_func(name)
            else:
                tvm_ffi.register_global_func(name, function, override=True)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, BuiltLibrary]:
    """A detector for a GPU, its kernels emulated: recorded, and not."""
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    model = tvmdet.import_onnx(onnx_models.save(onnx_models.yolov8(batch="n"), path))
    target = get_target("sm_90")
    kernels = schedule_kernels(lower(model, SIZES, target), target, TuningStore(), threads=1)
    return {
        record: build_emulated_library(kernels.module, target, record=record)
        for record in (True, False)
    }


def loaded(library: BuiltLibrary) -> NativeModule:
    weights = []
    for array in library.weights:
        weights.append(aligned_empty(array.shape, array.dtype))
        weights[-1][...] = array
    return NativeModule(lambda file: file.write(library.data), weights, name="emulated")


def arguments(size: int, seed: int, score: float = 0.2) -> list[Any]:
    images = aligned_empty((size, 64, 96, 3), np.uint8)
    images[...] = np.random.default_rng(seed).integers(0, 256, images.shape)
    thresholds = aligned_empty((2,), np.float32)
    thresholds[...] = score, 0.5
    return [images, thresholds]


def test_weights_are_lifted_out_of_recorded_functions(
    libraries: dict[bool, BuiltLibrary],
) -> None:
    recorded, plain = libraries[True], libraries[False]
    assert sum(one.nbytes for one in plain.weights) > 10_000, "otherwise there is nothing to lift"
    digests = [sorted(one.tobytes() for one in library.weights) for library in (recorded, plain)]
    assert digests[0] == digests[1]
    assert recorded.planned_bytes == plain.planned_bytes


def test_every_call_answers_its_own_pictures(
    libraries: dict[bool, BuiltLibrary], recorder: Recorder
) -> None:
    recorded, plain = loaded(libraries[True]), loaded(libraries[False])
    # Buckets in turn: their memory is shared, and arguments lie elsewhere each time.
    calls = [(1, 0, 0.2), (2, 1, 0.2), (1, 2, 0.2), (1, 0, 0.6), (2, 3, 0.3), (2, 1, 0.2)]
    answers = []
    for size, seed, score in calls:
        given = arguments(size, seed, score)
        got = recorded.call(f"detect_b{size}", given)
        wanted = plain.call(f"detect_b{size}", given)
        for left, right in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(left, right)
        answers.append(got[0].tobytes())
    assert len(set(answers)) == len(set(calls)) == 5, "otherwise a stale answer may be right"
    first, second = recorder.calls[:2]
    assert recorder.calls == [first, second, first, first, second, second]


def test_most_kernels_are_recorded(libraries: dict[bool, BuiltLibrary], recorder: Recorder) -> None:
    """What reads the pictures or the thresholds is not: they lie elsewhere in each call."""
    called: list[tuple[str, bool]] = []
    inside = [False]
    run = recorder.run

    def marked(*given: Any) -> Any:
        inside[0] = True
        try:
            return run(*given)
        finally:
            inside[0] = False

    def note(_func: Any, name: str, before: bool, _result: Any, *_given: Any) -> int:
        if before and not name.startswith("vm.builtin"):
            called.append((name, inside[0]))
        return 0

    with _registered(marked, recorder.allocate):
        module = loaded(libraries[True])
        module.call("detect_b1", arguments(1, 0))
        module.watch(note)
        module.call("detect_b1", arguments(1, 0))
    outside = [name for name, recorded in called if not recorded]
    assert len(outside) == 3 and outside[1:] == ["collect", "suppress_image"]
    assert len(called) > 10


def test_kernels_may_be_launched_one_by_one(
    libraries: dict[bool, BuiltLibrary], recorder: Recorder
) -> None:
    cuda_graphs.launch_one_by_one(tvm_ffi)
    module, plain = loaded(libraries[True]), loaded(libraries[False])
    for size, seed in ((1, 0), (2, 1), (1, 2)):
        given = arguments(size, seed)
        got, wanted = (one.call(f"detect_b{size}", given) for one in (module, plain))
        for left, right in zip(got, wanted, strict=True):
            np.testing.assert_array_equal(left, right)
    assert recorder.calls == []


def test_a_detector_for_a_gpu_is_recorded_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without being asked, where nvcc is: the names are those that TVM's runtime registers."""
    from tvmdet.compiler.build import build_library
    from tvmdet.cuda.nvcc import find_nvcc
    from tvmdet.errors import TargetError

    try:
        find_nvcc()
    except TargetError:
        pytest.skip("nvcc is not installed")
    target = get_target("sm_90")
    model = tvmdet.import_onnx(onnx_models.save(onnx_models.yolov8(), tmp_path / "small.onnx"))
    kernels = schedule_kernels(lower(model, (1,), target), target, TuningStore(), threads=1)
    data = build_library(kernels.module, target).data
    assert RECORD.encode() in data and ALLOCATE.encode() in data
    assert RECORD.encode() not in build_library(kernels.module, target, record=False).data


@pytest.mark.parametrize(("value", "expected"), [(None, True), ("1", True), ("0", False)])
def test_the_variable_says_whether(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: bool
) -> None:
    monkeypatch.delenv("TVMDET_CUDA_GRAPHS", raising=False)
    if value is not None:
        monkeypatch.setenv("TVMDET_CUDA_GRAPHS", value)
    assert cuda_graphs.wanted() is expected


def test_other_values_of_the_variable_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMDET_CUDA_GRAPHS", "no")
    with pytest.raises(tvmdet.InputError, match=r"TVMDET_CUDA_GRAPHS is 'no'; allowed: 1, .* or 0"):
        cuda_graphs.wanted()


def test_one_alone_waits_for_those_that_share_and_keeps_others_out() -> None:
    turns, seen = cuda_graphs.Turns(), []
    sharing, release = threading.Event(), threading.Event()

    def share() -> None:
        with turns.shared():
            sharing.set()
            assert release.wait(10)
            seen.append("shared")

    def alone() -> None:
        with turns.alone():
            seen.append("alone")

    def late() -> None:
        with turns.shared():
            seen.append("late")

    threads = [threading.Thread(target=share)]
    threads[0].start()
    assert sharing.wait(10)
    threads.append(threading.Thread(target=alone))
    threads[1].start()
    while not turns._alone:
        threads[1].join(0.001)
    threads.append(threading.Thread(target=late))
    threads[2].start()
    threads[2].join(0.05)
    assert seen == [], "one that has it alone waits for the others, and later ones wait for it"
    release.set()
    for thread in threads:
        thread.join(10)
    assert seen == ["shared", "alone", "late"]
    with turns.shared(), turns.shared():
        pass
