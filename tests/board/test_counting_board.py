"""Counts of what emulated kernels execute: exact, repeatable, and held against arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import Kernel, build, only_kernel
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.board.block_counts import BasicBlock, SourceBlock, basic_blocks
from tvmdet.board.count_plugin import why_no_counts
from tvmdet.board.counting_board import Counted, CountingBoard
from tvmdet.board.instructions import count_instructions
from tvmdet.board.linker import link_shared
from tvmdet.board.pipeline_model import find_model, why_no_model
from tvmdet.board.prediction import predict
from tvmdet.errors import TargetError

pytestmark = pytest.mark.arm

TARGET = get_target("cortex-a76")
SIDE, CHANNELS, FILTERS = 12, 16, 24


def convolution(seed: int = 0) -> Kernel:
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((1, SIDE, SIDE, CHANNELS)).astype("float32")
    weight = rng.standard_normal((FILTERS, 3, 3, CHANNELS)).astype("float32")

    def emit(builder: Any, x: Any) -> Any:
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        return builder.emit(relax.op.nn.conv2d(x, relax.const(weight), padding=1, **layouts))

    return only_kernel(emit, [data], TARGET)


@pytest.fixture(scope="module")
def board() -> Iterator[CountingBoard]:
    if missing := why_no_counts():
        pytest.skip(missing)
    with CountingBoard(TARGET) as made:
        yield made


def counted(board: CountingBoard, kernel: Kernel, number: int, folder: Path, calls: int = 1) -> Any:
    scheduled = kernel.template.apply(kernel.func, kernel.workload, kernel.decisions[number])
    build([scheduled.mod["main"]], TARGET).write_to_file(f"{folder}/k.o")
    link_shared(TARGET.arch, [f"{folder}/k.o"], f"{folder}/k.so")
    library = board.load(folder / "k.so")
    outputs = [np.zeros(shape, dtype) for shape, dtype in kernel.outputs]
    arguments = board.tensors([*kernel.arguments, *outputs])
    found = [board.count(lambda: library["k0"](*arguments)) for _ in range(calls)]
    expected = SIDE * SIDE * FILTERS
    assert np.count_nonzero(arguments[-1].numpy()) == expected, "the kernel has run"
    return found[0] if calls == 1 else found


def test_multiply_adds_are_those_of_the_arithmetic(board: CountingBoard, tmp_path: Path) -> None:
    """Every decision multiplies as often as a convolution's definition says: in fours."""
    kernel = convolution()
    least = SIDE * SIDE * FILTERS * CHANNELS * 9 // TARGET.vector_lanes_f32
    for number in (0, len(kernel.decisions) // 2):
        found = count_instructions(counted(board, kernel, number, tmp_path).blocks)
        assert found.fma_f32 == least
        assert found.fma_f16 == found.fma_other == 0
        assert found.stores >= SIDE * SIDE * FILTERS / TARGET.vector_lanes_f32 / 2
        listed = found.to_dict()
        assert sum(listed.values()) - listed["all"] <= listed["all"]


def test_counts_repeat_whatever_the_data(board: CountingBoard, tmp_path: Path) -> None:
    first, second, third = counted(board, convolution(), 0, tmp_path, calls=3)
    assert second == third
    # The first call of a library also resolves what it calls of TVM's runtime.
    assert 0 <= total(first) - total(second) < 20
    again = counted(board, convolution(seed=1), 0, tmp_path)
    with CountingBoard(TARGET) as another:
        elsewhere = counted(another, convolution(), 0, tmp_path)
    for found in (again, elsewhere):
        assert found.blocks == first.blocks
        # What a kernel is handed over besides its arrays may lie in one line or in two.
        assert abs(found.caches.l1_misses - first.caches.l1_misses) <= 4
        assert abs(found.caches.l2_misses - first.caches.l2_misses) <= 4


def total(found: Counted) -> int:
    return count_instructions(found.blocks).all


def test_cache_misses_are_at_least_the_lines_of_the_arrays(
    board: CountingBoard, tmp_path: Path
) -> None:
    kernel = convolution()
    found = counted(board, kernel, 0, tmp_path).caches
    lines = sum(array.nbytes for array in kernel.arguments) / 64 + SIDE * SIDE * FILTERS / 16
    assert lines <= found.l2_misses <= 1.5 * lines + 100
    assert found.l1_misses >= found.l2_misses


def test_predicted_cycles_lie_above_the_core_s_peak(board: CountingBoard, tmp_path: Path) -> None:
    if missing := why_no_model():
        pytest.skip(missing)
    found = counted(board, convolution(), 0, tmp_path)
    model = find_model(TARGET.tvm["mcpu"])
    prediction = predict(found.blocks, found.caches, model)
    fma_per_cycle = TARGET.flop_per_cycle_f32 / 2 / TARGET.vector_lanes_f32
    assert prediction.instructions.fma / fma_per_cycle < prediction.pipeline_cycles
    assert prediction.busiest_thread(1.0) == prediction.cycles
    assert prediction.pipeline_cycles < prediction.cycles < prediction.instructions.all * 3
    again = predict(found.blocks, found.caches, find_model(TARGET.tvm["mcpu"]))
    assert again == prediction


def test_basic_blocks_of_overlapping_translations() -> None:
    """QEMU translates a loop's first round together with what is before the loop."""
    a, b, c, jump = (bytes([value, 0, 0, 0]) for value in (1, 2, 3, 9))
    whole = SourceBlock(place=0, executed=2, owner=0, instructions=(a, b, c, jump))
    loop = SourceBlock(place=4, executed=10, owner=0, instructions=(b, c, jump))
    after = SourceBlock(place=16, executed=2, owner=0, instructions=(a,))
    apart = SourceBlock(place=24, executed=2, owner=0, instructions=(a, b))
    other = SourceBlock(place=32, executed=2, owner=1, instructions=(c,))

    def block(place: int, executed: int, *codes: bytes, owner: int = 0) -> BasicBlock:
        return BasicBlock(place=place, executed=executed, owner=owner, instructions=codes)

    assert basic_blocks([loop, other, whole, apart, after], lambda code: code == jump) == [
        block(0, 2, a),
        block(4, 12, b, c, jump),
        block(16, 2, a),
        block(24, 2, a, b),
        block(32, 2, c, owner=1),
    ]


def test_an_instruction_that_llvm_does_not_know_is_named() -> None:
    if missing := why_no_model():
        pytest.skip(missing)
    model = find_model("cortex-a72")
    known, unknown = bytes.fromhex("41008052"), b"\xff\xff\xff\xff"
    assert model.unreadable([known, unknown, known]) == [unknown]
    with pytest.raises(TargetError, match="does not know the instruction ff ff ff ff; install a"):
        model.cycles([(known,), (known, unknown)])
    (each,) = model.cycles([(known,)])
    assert 0 < each < 2


def test_a_swap_is_played_on_a_core_that_has_none() -> None:
    """Kernels claim their rounds with it; LLVM's Cortex-A57 refuses code with one."""
    if missing := why_no_model():
        pytest.skip(missing)
    swap, load = bytes.fromhex("00802cb8"), bytes.fromhex("000040b9")
    with_swap, alone = find_model("cortex-a72").cycles([(swap, load), (load,)])
    assert with_swap > alone > 0
