"""Rows joined of several tensors, and results that lie across what they are made of."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import Emit, build, call_guarded, run_default
from tvm import relax, te
from tvmdet.schedules.common.elementwise import Elementwise
from tvmdet.targets import Target, get_target

TARGETS = [get_target(name) for name in ("x86-64-v3", "x86-64-v4", "cortex-a76")]
HERE = [target for target in TARGETS if not target.missing_features()]
RNG = np.random.default_rng(0)


def joined(
    counts: Sequence[int], widths: Sequence[int], order: Sequence[int] | None = None
) -> Emit:
    """Rows of several maps, each of whose columns are computed in their own way, and turned."""

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        cut = np.cumsum([0, *counts]).tolist()
        rows = []
        for begin, end in itertools.pairwise(cut):
            part = builder.emit(relax.op.strided_slice(x, [1], [begin], [end]))
            rows.append(builder.emit(relax.op.add(part, relax.const(float(begin)))))
        whole = builder.emit(relax.op.concat(rows, axis=1)) if len(rows) > 1 else rows[0]
        cut = np.cumsum([0, *widths]).tolist()
        columns = []
        for begin, end in itertools.pairwise(cut):
            part = builder.emit(relax.op.strided_slice(whole, [2], [begin], [end]))
            columns.append(builder.emit(relax.op.multiply(part, relax.const(float(begin + 1)))))
        result = builder.emit(relax.op.concat(columns, axis=2)) if len(columns) > 1 else columns[0]
        if order is not None:
            result = builder.emit(relax.op.permute_dims(result, list(order)))
        return result

    return emit


def expected(x: np.ndarray, counts: Sequence[int], widths: Sequence[int]) -> np.ndarray:
    rows = np.repeat(np.cumsum([0, *counts[:-1]]), counts).astype("float32")
    columns = np.repeat(np.cumsum([0, *widths[:-1]]) + 1, widths).astype("float32")
    return (x + rows[None, :, None]) * columns


@pytest.mark.parametrize("target", HERE, ids=operator.attrgetter("name"))
@pytest.mark.parametrize("order", [None, (0, 2, 1), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize(
    ("batch", "counts", "widths"),
    [
        (1, (1600, 400, 100), (2, 2, 80)),
        (1, (169, 676), (4, 1, 20)),
        (2, (64, 16, 4), (33, 7)),
        (1, (300,), (5, 3, 91)),
        (3, (128,), (64,)),
        (1, (1009,), (17, 1)),  # no block divides the rows
        (1, (8, 8), (3,)),
        (1, (256,), tuple(range(1, 20))),  # too many to have code of their own
    ],
    ids=str,
)
def test_numbers(
    target: Target,
    batch: int,
    counts: tuple[int, ...],
    widths: tuple[int, ...],
    order: tuple[int, ...] | None,
) -> None:
    x = RNG.standard_normal((batch, sum(counts), sum(widths))).astype("float32")
    _, (got,) = run_default(joined(counts, widths, order), [x], target)
    want = expected(x, counts, widths)
    np.testing.assert_array_equal(got, want if order is None else want.transpose(order))


@pytest.mark.parametrize("target", HERE, ids=operator.attrgetter("name"))
@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((1, 40, 48, 72), (0, 3, 1, 2)),
        ((2, 17, 19, 33), (0, 3, 1, 2)),
        ((1, 24, 80, 80), (0, 2, 3, 1)),
        ((3, 4, 50, 64), (0, 2, 1, 3)),
        ((1, 400, 2, 64), (0, 2, 3, 1)),
    ],
    ids=str,
)
def test_transposed(target: Target, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        return builder.emit(relax.op.permute_dims(x, list(order)))

    x = RNG.standard_normal(shape).astype("float32")
    _, (got,) = run_default(emit, [x], target)
    np.testing.assert_array_equal(got, x.transpose(order))


@pytest.mark.parametrize("target", HERE, ids=operator.attrgetter("name"))
def test_an_output_and_the_same_turned(target: Target) -> None:
    data = te.placeholder((300, 80), "float32", name="data")
    twice = te.compute((300, 80), lambda i, j: data[i, j] * 2.0, name="twice")
    turned = te.compute((80, 300), lambda i, j: twice[j, i], name="turned")
    func = te.create_prim_func([data, twice, turned])
    template = Elementwise()
    workload = template.match(func, target)
    assert workload is not None
    (decision,) = template.decisions(workload, target)
    library = build([template.apply(func, workload, decision).mod["main"]], target)
    x = RNG.standard_normal((300, 80)).astype("float32")
    shapes = [((300, 80), "float32"), ((80, 300), "float32")]
    first, second = call_guarded(library["k0"], [x], shapes)
    np.testing.assert_array_equal(first, x * 2)
    np.testing.assert_array_equal(second, first.T)


@pytest.mark.parametrize("order", [None, (0, 2, 1)])
def test_scores_beside_boxes_are_vectors(order: tuple[int, ...] | None) -> None:
    target = get_target("x86-64-v4")

    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        boxes = builder.emit(relax.op.strided_slice(x, [2], [0], [4]))
        scores = builder.emit(relax.op.strided_slice(x, [2], [4], [84]))
        both = [builder.emit(relax.op.abs(boxes)), builder.emit(relax.op.sigmoid(scores))]
        result = builder.emit(relax.op.concat(both, axis=2))
        return builder.emit(relax.op.permute_dims(result, order)) if order else result

    x = RNG.standard_normal((1, 8400, 84)).astype("float32")
    kernel, (got,) = run_default(emit, [x], target)
    want = np.concatenate([np.abs(x[:, :, :4]), 1 / (1 + np.exp(-x[:, :, 4:]))], axis=2)
    np.testing.assert_allclose(got, want if order is None else want.transpose(order), rtol=1e-5)
    scheduled = kernel.template.apply(kernel.func, kernel.workload, kernel.decisions[0]).mod["main"]
    assembly = build([scheduled], target).inspect_source("asm")
    # The exponential of a score: of sixteen at once, and of none alone.
    assert re.search(r"vfn?m(add|sub)\d+ps\s.*zmm", assembly)
    assert not re.search(r"vfn?m(add|sub)\d+ss\s", assembly)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ((1, 80, 80, 64), (1, 6400, 64), "v_i1 // T.int64(80), v_i1 % T.int64(80), v_i2]"),
        ((1, 6400, 64), (1, 80, 80, 64), "v_i1 * T.int64(80) + v_i2, v_i3]"),
        ((1, 8400, 4, 1), (1, 8400, 4), "v_i1, v_i2, T.int64(0)]"),
    ],
)
def test_reshapes_read_as_plainly_as_they_can(
    before: tuple[int, ...], after: tuple[int, ...], text: str
) -> None:
    def emit(builder: relax.BlockBuilder, x: Any) -> Any:
        flat = builder.emit(relax.op.reshape(x, after))
        other = relax.const(np.ones(after, "float32"))
        return builder.emit(relax.op.concat([flat, other], axis=1))

    x = RNG.standard_normal(before).astype("float32")
    kernel, (got,) = run_default(emit, [x], get_target("x86-64-v3"))
    np.testing.assert_array_equal(got[:, : after[1]], x.reshape(after))
    assert text in kernel.func.script()
