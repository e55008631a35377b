"""Of a batch, large maps are computed one picture after the other; the numbers stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from assertions import assert_close
from scheduled_kernels import conv2d_reference
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.compiler.build import BuiltLibrary, build_library
from tvmdet.compiler.schedule import ScheduledKernels, schedule_kernels
from tvmdet.passes.by_picture import MarkByPicture, pictures_of
from tvmdet.passes.call_by_picture import CallByPicture
from tvmdet.passes.conv_algorithms import Algorithm, AlgorithmName, ConvLayer, usual_algorithm
from tvmdet.passes.lower import lowering_phases, tvm_target
from tvmdet.tuning.store import TuningStore
from tvmdet.tuning.task import extract_tasks

V3 = get_target("x86-64-v3")
SIDE, CHANNELS = 24, 16
PICTURE_BYTES = 4 * SIDE * SIDE * CHANNELS
ALL, NONE = 1, 1 << 30
LAYOUTS = {"data_layout": "NHWC", "kernel_layout": "OHWI"}

Emit = Callable[[relax.BlockBuilder, Any], Any]


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def _conv(
    builder: relax.BlockBuilder, x: Any, channels: int = CHANNELS, side: int = 1, **more: Any
) -> Any:
    depth = 1 if "groups" in more else int(x.ty.shape[3])
    weight = relax.const(_noise(channels, side, side, depth, seed=channels + side) / 4)
    pad = side // 2
    padding = [pad, pad, pad, pad]
    call = relax.op.nn.conv2d(x, weight, padding=padding, **LAYOUTS, **more)
    return builder.emit(relax.op.nn.relu(builder.emit(call)))


def _lower(
    emit: Emit,
    shape: Sequence[int],
    batch: int,
    l2_bytes: int,
    algorithm: Algorithm = usual_algorithm,
) -> tvm.IRModule:
    """Lowers a network of NHWC pictures at a batch size as the compiler does."""
    builder = relax.BlockBuilder()
    for size in (batch, 1):
        x = relax.Var("x", relax.TensorType([size, *shape], "float32"))
        with builder.function(f"run_b{size}", [x]):
            with builder.dataflow():
                result = emit(builder, x)
                if isinstance(result, list):
                    result = relax.Tuple(result)
                result = builder.emit_output(result)
            builder.emit_func_output(result)
    module = builder.get()
    phases = lowering_phases(V3, algorithm)
    names = [name for name, _ in phases]
    with tvm_target(V3):
        for _, phase in phases[names.index("fold_flatten_order") :]:
            module = phase(module)
    mark: Any = MarkByPicture(f"run_b{batch}", "run_b1", batch, l2_bytes)
    module = mark(module).clone()
    del module["run_b1"]
    return relax.transform.DeadCodeElimination()(module)


def _marked(module: tvm.IRModule, batch: int) -> list[int]:
    """Returns for how many pictures each kernel call is."""
    bindings = [b for block in module[f"run_b{batch}"].body.blocks for b in block.bindings]
    calls = [b.value for b in bindings if isinstance(b.value, relax.Call)]
    op = tvm.ir.Op.get("relax.call_tir")
    return [pictures_of(module, call) for call in calls if call.op == op]


def _build(module: tvm.IRModule, folder: Path) -> tuple[ScheduledKernels, BuiltLibrary]:
    kernels = schedule_kernels(module, V3, TuningStore(writable=folder), 2)
    return kernels, build_library(kernels.module, V3)


def _run(library: BuiltLibrary, folder: Path, x: np.ndarray) -> list[np.ndarray]:
    path = folder / f"{len(list(folder.glob('*.so')))}.so"  # a loaded one may not change
    path.write_bytes(library.data)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    weights = tuple(tvm.runtime.tensor(array) for array in library.weights)
    arguments = [tvm.runtime.tensor(x), *([weights] if weights else [])]
    result = machine[f"run_b{len(x)}"](*arguments)
    tensors = [result] if hasattr(result, "numpy") else list(result)
    return [tensor.numpy() for tensor in tensors]


def _compare(
    emit: Emit,
    shape: Sequence[int],
    batch: int,
    folder: Path,
    algorithm: Algorithm = usual_algorithm,
) -> list[int]:
    """Checks a network by picture against the same one for the whole batch; returns the marks."""
    x = _noise(batch, *shape, seed=batch)
    modules = [_lower(emit, shape, batch, least, algorithm) for least in (ALL, NONE)]
    assert set(_marked(modules[1], batch)) == {1}
    got, wanted = (_run(_build(m, folder)[1], folder, x) for m in modules)
    for i, (one, other) in enumerate(zip(got, wanted, strict=True)):
        assert_close(one, other, rtol=1e-5, atol=1e-5, name=f"output {i}")
    return _marked(modules[0], batch)


def _chain(builder: relax.BlockBuilder, x: Any) -> Any:
    return _conv(builder, _conv(builder, _conv(builder, x), CHANNELS, 3), 8)


def test_numbers_of_a_chain_against_numpy(tmp_path: Path) -> None:
    x = _noise(3, SIDE, SIDE, CHANNELS)
    _, library = _build(_lower(_chain, x.shape[1:], 3, ALL), tmp_path)
    (got,) = _run(library, tmp_path, x)
    wanted = x
    for depth, channels, side in (
        (CHANNELS, CHANNELS, 1),
        (CHANNELS, CHANNELS, 3),
        (CHANNELS, 8, 1),
    ):
        weight = _noise(channels, side, side, depth, seed=channels + side) / 4
        pad = (side // 2,) * 4
        options: dict[str, Any] = {"strides": (1, 1), "padding": pad, "dilation": (1, 1)}
        wanted = np.maximum(conv2d_reference(wanted, weight, **options, groups=1), 0)
    assert_close(got, wanted, rtol=1e-4, atol=1e-4, name="chain")


def test_what_only_a_run_reads_exists_for_one_picture(tmp_path: Path) -> None:
    shape = (SIDE, SIDE, CHANNELS)
    _, by_picture = _build(_lower(_chain, shape, 8, ALL), tmp_path)
    _, by_batch = _build(_lower(_chain, shape, 8, NONE), tmp_path)
    result = 8 * PICTURE_BYTES // 2
    assert by_picture.planned_bytes["run_b8"] == result + 2 * PICTURE_BYTES
    assert by_batch.planned_bytes["run_b8"] == result + 8 * 2 * PICTURE_BYTES


def test_calls_are_counted_for_every_picture(tmp_path: Path) -> None:
    shape = (SIDE, SIDE, CHANNELS)
    module = _lower(_chain, shape, 8, ALL)
    assert _marked(module, 8) == [8, 8, 8]
    assert [task.count for task in extract_tasks(module, V3)] == [8, 8, 8]
    assert all(" n1 " in task.anchor for task in extract_tasks(module, V3))
    kernels, _ = _build(module, tmp_path)
    whole, _ = _build(_lower(_chain, shape, 8, NONE), tmp_path)
    assert kernels.flop() == whole.flop()
    written: Any = CallByPicture()
    calls: Counter[str] = Counter()
    plain = relax.transform.ToNonDataflow()(module)
    for block in written(plain)["run_b8"].body.blocks:
        for binding in block.bindings:
            if isinstance(binding.value, relax.Call):
                calls[type(binding.value.op).__name__] += 1
    assert calls["GlobalVar"] == 24


@pytest.mark.parametrize("batch", [2, 5])
def test_what_others_read_too_is_written_for_the_batch(batch: int, tmp_path: Path) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> list[Any]:
        first = _conv(builder, x)
        second = _conv(builder, first, CHANNELS, 3)
        small = builder.emit(relax.op.mean(first, axis=[1, 2]))
        third = builder.emit(relax.op.add(_conv(builder, second), first))
        return [third, small, second]

    marks = _compare(emit, (SIDE, SIDE, CHANNELS), batch, tmp_path)
    assert marks.count(batch) >= 3


def test_reshapes_within_a_run_and_after_it(tmp_path: Path) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> list[Any]:
        batch = int(x.ty.shape[0])
        first = _conv(builder, x)
        flat = builder.emit(relax.op.reshape(first, [batch, SIDE * SIDE, CHANNELS]))
        wide = builder.emit(relax.op.reshape(flat, [batch, SIDE, SIDE // 2, 2 * CHANNELS]))
        return [_conv(builder, wide), flat]

    assert _compare(emit, (SIDE, SIDE, CHANNELS), 3, tmp_path) == [3, 3]


def test_parts_that_no_vector_divides_are_computed_together(tmp_path: Path) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        return _conv(builder, _conv(builder, x, 5), CHANNELS)

    assert (4 * 5 * 7 * 5) % 64
    assert _compare(emit, (5, 7, CHANNELS), 3, tmp_path) == [1, 1]


def test_small_maps_are_computed_together(tmp_path: Path) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        return _conv(builder, _conv(builder, x), 64, 3, strides=[4, 4])

    shape, batch = (SIDE, SIDE, CHANNELS), 4
    # Of four pictures: 72 KiB in all to the first convolution, and 180 KiB to the second.
    between = batch * 2 * PICTURE_BYTES // 4
    assert _marked(_lower(emit, shape, batch, between), batch) == [batch, 1]
    assert _marked(_lower(emit, shape, batch, between + 1), batch) == [1, 1]
    x = _noise(batch, *shape)
    got, wanted = (
        _run(_build(_lower(emit, shape, batch, least), tmp_path)[1], tmp_path, x)
        for least in (between, NONE)
    )
    assert_close(got[0], wanted[0], rtol=1e-5, atol=1e-5, name="two")


def test_more_weights_than_maps_are_read_once() -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        return _conv(builder, _conv(builder, x), 128, 3)

    # Of one picture 2 KiB to the first, and 9 KiB to the second with 72 KiB of weights.
    module = _lower(emit, (4, 4, CHANNELS), 4, ALL, lambda _layer: "direct")
    assert _marked(module, 4) == [4, 1]


def test_what_mixes_pictures_is_computed_together(tmp_path: Path) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> list[Any]:
        first = _conv(builder, x)
        mean = builder.emit(relax.op.mean(first, axis=[0], keepdims=True))
        turned = builder.emit(relax.op.permute_dims(first, [1, 0, 2, 3]))
        twice = builder.emit(relax.op.nn.relu(builder.emit(relax.op.multiply(turned, turned))))
        return [builder.emit(relax.op.add(_conv(builder, first), mean)), twice]

    marks = _compare(emit, (SIDE, SIDE, CHANNELS), 3, tmp_path)
    assert 3 in marks and 1 in marks


def test_pictures_that_alternate_are_computed_together(tmp_path: Path) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        batch = int(x.ty.shape[0])
        turned = builder.emit(relax.op.permute_dims(_conv(builder, x), [1, 0, 2, 3]))
        rows = builder.emit(relax.op.reshape(turned, [SIDE * batch, SIDE * CHANNELS]))
        weight = relax.const(_noise(SIDE * CHANNELS, 5, seed=9) / 20)
        product = builder.emit(relax.op.matmul(builder.emit(relax.op.nn.relu(rows)), weight))
        made = builder.emit(relax.op.reshape(product, [SIDE, batch, 5]))
        return builder.emit(relax.op.permute_dims(made, [1, 0, 2]))

    assert _compare(emit, (SIDE, SIDE, CHANNELS), 3, tmp_path)[0] == 3


def test_siblings_keep_their_own_kernels(tmp_path: Path) -> None:
    """Though another algorithm computes some of them for the batch."""

    def choose(layer: ConvLayer) -> AlgorithmName:
        of_batch = " n1 " not in f" {layer.anchor} "
        return "winograd4" if of_batch and "d1x1" in layer.anchor else "direct"

    def emit(builder: relax.BlockBuilder, x: Any) -> list[Any]:
        made = []
        for seed, step in enumerate((1, 2, 3, 1)):
            weight = relax.const(_noise(CHANNELS, 3, 3, CHANNELS, seed=seed) / 4)
            padding, dilation = [step] * 4, [step, step]
            call = relax.op.nn.conv2d(x, weight, padding=padding, dilation=dilation, **LAYOUTS)
            made.append(builder.emit(call))
        return made

    marks = _compare(emit, (SIDE, SIDE, CHANNELS), 3, tmp_path, choose)
    assert marks == [1, 3, 3, 1]


@pytest.mark.parametrize("seed", range(6))
def test_networks_of_all_kinds(seed: int, tmp_path: Path) -> None:
    batch = 2 + seed % 3

    def emit(builder: relax.BlockBuilder, x: Any) -> list[Any]:
        rng = np.random.default_rng(seed)  # the same network at every batch size
        made = [x]
        for _ in range(9):
            some = made[rng.integers(len(made))]
            side, channels = int(some.ty.shape[1]), int(some.ty.shape[3])
            kind = rng.integers(6)
            if kind == 0:
                some = _conv(builder, some, int(rng.choice([8, 16, 24])), int(rng.choice([1, 3])))
            elif kind == 1:
                some = _conv(builder, some, channels, 3, groups=channels)
            elif kind == 2:
                others = [o for o in made if o.ty.shape[1] == side]
                other = others[rng.integers(len(others))]
                some = builder.emit(relax.op.concat([some, other], axis=3))
            elif kind == 3 and side % 2 == 0:
                some = builder.emit(
                    relax.op.nn.max_pool2d(some, [2, 2], strides=[2, 2], layout="NHWC")
                )
            elif kind == 4:
                some = builder.emit(relax.op.sigmoid(some))
            else:
                mean = builder.emit(relax.op.mean(some, axis=[1, 2], keepdims=True))
                some = builder.emit(relax.op.multiply(some, mean))
            made.append(some)
        return [made[-1], made[-3], *made[4:6]]

    marks = _compare(emit, (16, 16, CHANNELS), batch, tmp_path)
    assert marks.count(batch) >= 3
