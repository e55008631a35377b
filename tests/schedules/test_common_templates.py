"""The templates that serve every operator: right on every shape, also the odd ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from assertions import assert_close
from scheduled_kernels import Kernel, build, call_guarded, run_decisions, run_default
from tvm import relax, te, tirx, topi
from tvmdet.targets import Target

from tvmdet import schedules

ELEMENTWISE, REDUCTION, AS_IS = "common.elementwise", "common.reduction", "common.as_is"
ROWS = "common.rows"


def _draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


@dataclass(frozen=True)
class Op:
    """What is emitted, what it means, on which shapes, and which template takes it."""

    emit: Callable[..., Any]
    meaning: Callable[..., np.ndarray]
    shapes: tuple[tuple[int, ...], ...]
    template: str


def _layer_norm(x: np.ndarray) -> np.ndarray:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * 2 + 0.5


def _max_pool(x: np.ndarray, pad: tuple[int, int], size: int, stride: int) -> np.ndarray:
    padded = np.pad(x.astype(np.float64), ((0, 0), pad, pad, (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.asarray(windows[:, ::stride, ::stride].max(axis=(-1, -2)))


def _average_inside(x: np.ndarray, size: int) -> np.ndarray:
    pad = (size // 2, size // 2)
    total, count = (
        np.lib.stride_tricks.sliding_window_view(
            np.pad(a.astype(np.float64), ((0, 0), pad, pad, (0, 0))), (size, size), axis=(1, 2)
        ).sum(axis=(-1, -2))
        for a in (x, np.ones_like(x))
    )
    return np.asarray(total / count)


def _unary(shape: tuple[int, ...]) -> Op:
    return Op(lambda x: relax.op.add(x, relax.const(1.5)), lambda x: x + 1.5, (shape,), ELEMENTWISE)


def _concat(axis: int, *shapes: tuple[int, ...]) -> Op:
    return Op(
        lambda *x: relax.op.concat(list(x), axis=axis),
        lambda *x: np.concatenate(x, axis=axis),
        shapes,
        ELEMENTWISE,
    )


def _reduce(
    name: str,
    axes: tuple[int, ...],
    shape: tuple[int, ...],
    keep: bool = False,
    template: str = REDUCTION,
) -> Op:
    return Op(
        lambda x: getattr(relax.op, name)(x, axis=list(axes), keepdims=keep),
        lambda x: getattr(np, name)(x.astype(np.float64), axis=axes, keepdims=keep),
        (shape,),
        template,
    )


OPS: dict[str, Op] = {
    # There is no loop to schedule.
    "scalar": replace(_unary(()), template=AS_IS),
    "one element": _unary((1,)),
    "one element in four axes": _unary((1, 1, 1, 1)),
    "seventeen": _unary((17,)),
    "odd innermost, whole vectors in all": _unary((16, 5, 3)),
    "odd everywhere": _unary((3, 5, 7)),
    "many rows": _unary((1, 97, 61, 3)),
    "large": _unary((1, 80, 80, 32)),
    "broadcast": Op(
        lambda x, y: relax.op.multiply(x, y),
        lambda x, y: x * y,
        ((1, 9, 1, 16), (1, 1, 7, 1)),
        ELEMENTWISE,
    ),
    "transpose": Op(
        lambda x: relax.op.permute_dims(x, [0, 3, 1, 2]),
        lambda x: x.transpose(0, 3, 1, 2),
        ((1, 9, 7, 5),),
        ELEMENTWISE,
    ),
    "concat of channels": _concat(3, (1, 5, 7, 16), (1, 5, 7, 8), (1, 5, 7, 3)),
    "concat of anchors": _concat(1, (1, 1600, 18), (1, 400, 18), (1, 100, 18)),
    "picture to channels last": Op(
        lambda x: relax.op.permute_dims(x, [0, 2, 3, 1]),
        lambda x: x.transpose(0, 2, 3, 1),
        ((1, 3, 75, 101),),
        ELEMENTWISE,
    ),
    "grey pictures to channels last": Op(
        lambda x: relax.op.permute_dims(x, [0, 2, 3, 1]),
        lambda x: x.transpose(0, 2, 3, 1),
        ((2, 2, 9, 33),),
        ELEMENTWISE,
    ),
    "concat of boxes": _concat(1, (1, 4000, 4), (1, 400, 4), (1, 104, 4)),
    "concat of odd rows": _concat(1, (1, 40, 91), (1, 7, 91), (1, 1, 91)),
    "concat of channels that end inside a vector": _concat(3, (2, 3, 5, 20), (2, 3, 5, 28)),
    "concat of many rows": _concat(3, (1, 31, 37, 32), (1, 31, 37, 12), (1, 31, 37, 4)),
    "gate of channels of half vectors": Op(
        lambda x, y: relax.op.multiply(x, y),
        lambda x, y: x * y,
        ((1, 20, 20, 120), (1, 1, 1, 120)),
        ELEMENTWISE,
    ),
    "gate of odd channels": Op(
        lambda x, y: relax.op.multiply(x, y),
        lambda x, y: x * y,
        ((2, 9, 20, 91), (2, 1, 1, 91)),
        ELEMENTWISE,
    ),
    "concat of one": _concat(0, (1, 3), (4, 3)),
    "nearest resize": Op(
        lambda x: relax.op.image.resize2d(
            x,
            (10, 14),
            layout="NHWC",
            method="nearest_neighbor",
            coordinate_transformation_mode="asymmetric",
            rounding_method="floor",
        ),
        lambda x: x.repeat(2, axis=1).repeat(2, axis=2),
        ((1, 5, 7, 16),),
        ELEMENTWISE,
    ),
    "slice": Op(
        lambda x: relax.op.strided_slice(x, [1, 3], [1, 2], [5, 9], [2, 3]),
        lambda x: x[:, 1:5:2, :, 2:9:3],
        ((1, 6, 3, 9),),
        ELEMENTWISE,
    ),
    "mean over pixels": _reduce("mean", (1, 2), (1, 9, 11, 16), True),
    "mean over pixels, odd channels": _reduce("mean", (1, 2), (2, 9, 11, 17), True),
    "mean over many pixels": _reduce("mean", (1, 2), (1, 40, 40, 96), True),
    "mean over pixels, channels of half vectors": _reduce("mean", (1, 2), (1, 40, 40, 120), True),
    "mean over pixels of a batch": _reduce("mean", (1, 2), (3, 20, 20, 72)),
    "max over many rows": _reduce("max", (1,), (5, 300, 64)),
    "sum of all": _reduce("sum", (0, 1, 2), (3, 5, 7)),
    "sum of one axis of one": _reduce("sum", (1,), (4, 1, 3)),
    "max over channels": _reduce("max", (3,), (1, 5, 6, 18), template=ROWS),
    "max over the first axis": _reduce("max", (0,), (7, 33)),
    "sum of rows, whole vectors outside": _reduce("sum", (2,), (3, 16, 5), template=ROWS),
    "prod": _reduce("prod", (1,), (3, 4, 16)),
    "variance": Op(
        lambda x: relax.op.variance(x, axis=[1]),
        lambda x: x.astype(np.float64).var(axis=1),
        ((4, 33),),
        REDUCTION,
    ),
    "layer norm": Op(
        lambda x: relax.op.nn.layer_norm(
            x, relax.const(np.full(24, 2, "f4")), relax.const(np.full(24, 0.5, "f4")), axes=[-1]
        ),
        lambda x: _layer_norm(x.astype(np.float64)),
        ((3, 7, 24),),
        ROWS,
    ),
    "max pool": Op(
        lambda x: relax.op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1), layout="NHWC"),
        lambda x: _max_pool(x, (1, 1), 3, 2),
        ((1, 9, 11, 16),),
        REDUCTION,
    ),
    "max pool of odd channels": Op(
        lambda x: relax.op.nn.max_pool2d(x, (5, 5), (1, 1), (2, 2, 2, 2), layout="NHWC"),
        lambda x: _max_pool(x, (2, 2), 5, 1),
        ((2, 5, 4, 3),),
        REDUCTION,
    ),
    "max pool, ceil": Op(
        lambda x: relax.op.nn.max_pool2d(x, (2, 2), (2, 2), ceil_mode=True, layout="NHWC"),
        lambda x: _max_pool(np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge"), (0, 0), 2, 2),
        ((1, 5, 7, 8),),
        REDUCTION,
    ),
    "average pool": Op(
        lambda x: relax.op.nn.avg_pool2d(x, (2, 2), (2, 2), layout="NHWC"),
        lambda x: x.reshape(1, 3, 2, 4, 2, 16).mean(axis=(2, 4)),
        ((1, 6, 8, 16),),
        REDUCTION,
    ),
    "average pool with a border that does not count": Op(
        lambda x: relax.op.nn.avg_pool2d(
            x, (3, 3), (1, 1), (1, 1, 1, 1), count_include_pad=False, layout="NHWC"
        ),
        lambda x: _average_inside(x, 3),
        ((2, 5, 7, 24),),
        REDUCTION,
    ),
    "max pool of many rows": Op(
        lambda x: relax.op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1, 1, 1), layout="NHWC"),
        lambda x: _max_pool(x, (1, 1), 3, 2),
        ((1, 61, 35, 48),),
        REDUCTION,
    ),
    "max pool, a wide window": Op(
        lambda x: relax.op.nn.max_pool2d(x, (7, 7), (1, 1), (3, 3, 3, 3), layout="NHWC"),
        lambda x: _max_pool(x, (3, 3), 7, 1),
        ((1, 9, 10, 40),),
        REDUCTION,
    ),
    "sum of products over a middle axis": Op(
        lambda x, y: relax.op.sum(relax.op.multiply(x, y), axis=[2]),
        lambda x, y: (x.astype(np.float64) * y).sum(axis=2),
        ((37, 4, 12, 32), (37, 4, 12, 1)),
        REDUCTION,
    ),
    "argmax": Op(
        lambda x: relax.op.argmax(x, axis=2),
        lambda x: x.argmax(axis=2),
        ((1, 40, 18),),
        REDUCTION,
    ),
    "argmax across whole vectors": Op(
        lambda x: relax.op.argmax(x, axis=1),
        lambda x: x.argmax(axis=1),
        ((2, 18, 32),),
        REDUCTION,
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_one_operator(name: str, target: Target) -> None:
    op = OPS[name]
    inputs = _draw(*op.shapes)
    kernel, (got,) = run_default(lambda b, *x: b.emit(op.emit(*x)), inputs, target)
    assert kernel.template.name == op.template
    assert list(kernel.decisions) == [kernel.decisions[0]], "these have one way"
    assert_close(got, op.meaning(*inputs), rtol=2e-5, atol=2e-5, name=name)


def test_split_into_several_outputs(target: Target) -> None:
    (data,) = _draw((1, 6, 7, 24))

    def emit(builder: Any, x: Any) -> Any:
        return builder.emit(relax.op.split(x, [8, 11], axis=3))

    kernel, got = run_default(emit, [data], target)
    assert kernel.template.name == ELEMENTWISE
    for part, want in zip(got, np.split(data, [8, 11], axis=3), strict=True):
        np.testing.assert_array_equal(part, want)


def test_uint8_pixels_become_floats(target: Target) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 9, 33), np.uint8)

    def emit(builder: Any, x: Any) -> Any:
        return builder.emit(
            relax.op.multiply(builder.emit(relax.op.astype(x, "float32")), relax.const(0.5))
        )

    _, (got,) = run_default(emit, [pixels], target)
    np.testing.assert_array_equal(got, pixels * np.float32(0.5))


def _from_te(outputs: list[te.Tensor], inputs: list[te.Tensor]) -> tirx.PrimFunc:
    return te.create_prim_func([*inputs, *outputs])


def _te_kernel(
    outputs: list[te.Tensor], inputs: list[te.Tensor], arrays: list[np.ndarray], target: Target
) -> Kernel:
    func = _from_te(outputs, inputs)
    template, workload = schedules.find(func, target)
    shapes = tuple((tuple(int(d) for d in o.shape), str(o.dtype)) for o in outputs)
    decisions = tuple(template.decisions(workload, target))
    return Kernel(func, tuple(arrays), shapes, template, workload, decisions)


def test_an_output_that_feeds_another_is_written(target: Target) -> None:
    (data,) = _draw((3, 5, 16))
    x = te.placeholder((3, 5, 16), name="x")
    doubled = te.compute(x.shape, lambda *i: x(*i) * 2.0, name="doubled")
    shifted = te.compute(x.shape, lambda *i: doubled(*i) + 1.0, name="shifted")
    kernel = _te_kernel([doubled, shifted], [x], [data], target)
    ((first, second),) = run_decisions(kernel, kernel.decisions, target)
    assert_close(first, data * 2)
    assert_close(second, data * 2 + 1)


def test_an_output_that_feeds_another_beside_a_reduction(target: Target) -> None:
    (data,) = _draw((3, 5, 16))
    x = te.placeholder((3, 5, 16), name="x")
    doubled = te.compute(x.shape, lambda *i: x(*i) * 2.0, name="doubled")
    shifted = te.compute(x.shape, lambda *i: doubled(*i) + 1.0, name="shifted")
    total = topi.sum(shifted, axis=1)
    last = te.compute(x.shape, lambda i, j, k: shifted(i, j, k) - total(i, k), name="last")
    kernel = _te_kernel([doubled, total, last], [x], [data], target)
    assert kernel.template.name == REDUCTION
    ((first, second, third),) = run_decisions(kernel, kernel.decisions, target)
    assert_close(first, data * 2)
    assert_close(second, (data * 2 + 1).sum(axis=1), atol=1e-5)
    assert_close(third, data * 2 + 1 - (data * 2 + 1).sum(axis=1, keepdims=True), atol=1e-5)


def test_a_function_of_plain_loops_is_taken_as_it_is(target: Target) -> None:
    from tvmdet.passes.suppress_boxes_kernel import suppress_boxes_func
    from tvmdet.spec import PostprocessSpec

    func = suppress_boxes_func(1, 8, 2, PostprocessSpec(max_detections=3))
    template, workload = schedules.find(func, target)
    assert template.name == AS_IS
    (decision,) = template.decisions(workload, target)
    library = build([template.apply(func, workload, decision).mod["main"]], target)
    zeros = [np.zeros((1, 8, 4), "f4"), np.zeros((1, 8, 2), "f4"), np.array([0.1, 0.5], "f4")]
    rows = ((1, 3), "int32")
    shapes = [((1, 3, 4), "float32"), ((1, 3), "float32"), rows, rows, ((1,), "int32")]
    assert not any(np.any(out) for out in call_guarded(library["k0"], zeros, shapes))


@pytest.mark.parametrize("channels", [8, 40, 44, 48])
def test_rows_that_a_tensor_chooses(channels: int, target: Target) -> None:
    """The queries of a transformer: some rows, whose last vector may be cut off."""
    (data,) = _draw((1, 60, channels))
    places = np.random.default_rng(1).integers(0, 60, (1, 30, channels))

    def emit(builder: relax.BlockBuilder, x: Any, at: Any) -> Any:
        return builder.emit(relax.op.gather_elements(x, at, axis=1))

    kernel, (got,) = run_default(emit, [data, places], target)
    assert kernel.template.name == ELEMENTWISE
    np.testing.assert_array_equal(got, np.take_along_axis(data, places, axis=1))
