"""The GPU's own kernels, emulated, against the CPU's kernels and against definitions."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import tvm
from cuda_kernels import run_functions
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.passes.cuda.use_device_kernels import UseDeviceKernels
from tvmdet.passes.cumsum_kernel import cumsum_func
from tvmdet.passes.non_max_suppression_kernel import non_max_suppression_func
from tvmdet.passes.roi_align_kernel import roi_align_func
from tvmdet.passes.scatter_kernel import scatter_func
from tvmdet.passes.suppress_boxes_kernel import suppress_boxes_func
from tvmdet.passes.suppress_oriented_kernel import suppress_oriented_func
from tvmdet.passes.top_k_kernel import top_k_func
from tvmdet.spec import PostprocessSpec

TARGET = get_target("sm_90")
RNG = np.random.default_rng(5)


def _boxes(*lead: int) -> np.ndarray:
    corner = RNG.random((*lead, 2), "float32") * 40
    size = RNG.random((*lead, 2), "float32") * 30
    return np.concatenate([corner, corner + size], axis=-1)


def _rounded(*shape: int) -> np.ndarray:
    """Scores of which many are equal, and some are negative zeros."""
    values = np.round(RNG.random(shape, "float32") * 16) / 16
    return np.where(values == 0, np.float32(-0.0), values)


def _suppression(batch: int, anchors: int, classes: int, **spec: Any) -> tuple[Any, Any, Any]:
    post = PostprocessSpec(**{"max_detections": 20, **spec})
    rows = post.max_detections
    inputs = [_boxes(batch, anchors), _rounded(batch, anchors, classes)]
    inputs.append(np.array([0.3, 0.4], "float32"))
    outputs = [((batch, rows, 4), "float32"), ((batch, rows), "float32")]
    outputs += [((batch, rows), "int32"), ((batch, rows), "int32"), ((batch,), "int32")]
    return suppress_boxes_func(batch, anchors, classes, post), inputs, outputs


def _oriented(batch: int, candidates: int, **spec: Any) -> tuple[Any, Any, Any]:
    post = PostprocessSpec(**{"max_detections": 20, **spec})
    anchors, classes, rows = 300, 3, post.max_detections
    scores = RNG.random((batch, anchors, classes), "float32")
    ranked = scores.reshape(batch, -1) if post.multi_label else scores.max(axis=2)
    order = np.argsort(-ranked, axis=1)[:, :candidates].astype("int32")
    angles = RNG.random((batch, anchors), "float32") * 9 - 3
    boxes = _boxes(batch, anchors)
    boxes[0, order[0, 1], 0], angles[0, order[0, 2]] = np.inf, np.nan
    inputs = [boxes, angles, scores, order, np.array([0.3, 0.4], "float32")]
    outputs = [((batch, rows, 4), "float32"), ((batch, rows), "float32")]
    outputs += [((batch, rows), "int32"), ((batch, rows), "int32"), ((batch,), "int32")]
    return suppress_oriented_func(batch, anchors, classes, candidates, post), inputs, outputs


def _onnx_suppression(centered: bool, rows: int) -> tuple[Any, Any, Any]:
    func = non_max_suppression_func(
        2,
        3,
        40,
        rows=rows,
        per_class=7,
        iou_threshold=0.3,
        score_threshold=0.2,
        center_point_box=centered,
    )
    inputs = [_boxes(2, 40), _rounded(2, 3, 40), RNG.random(40) < 0.8]
    return func, inputs, [((rows, 3), "int64"), ((rows,), "bool")]


def _roi(**attributes: Any) -> tuple[Any, Any, Any]:
    func = roi_align_func((2, 9, 11, 6), 5, (3, 2), spatial_scale=0.5, **attributes)
    rois = np.concatenate([np.array([[0], [1], [1], [7], [0]], "float32"), _boxes(5) * 0.4], axis=1)
    data = RNG.standard_normal((2, 9, 11, 6), "float32")
    return func, [data, rois], [((5, 3, 2, 6), "float32")]


def _top_k(length: int, k: int, dtype: str, largest: bool) -> tuple[Any, Any, Any]:
    data = (RNG.integers(-20, 20, (3, length)) / (1 if dtype == "int32" else 4)).astype(dtype)
    func = top_k_func(3, length, k, dtype, "int64", largest=largest)
    return func, [data], [((3, k), dtype), ((3, k), "int64")]


def _cumsum(exclusive: bool) -> tuple[Any, Any, Any]:
    data = RNG.integers(0, 9, (2, 700)).astype("float32")  # sums are exact in any order
    func = cumsum_func(2, 700, "float32", "float32", exclusive=exclusive)
    return func, [data], [((2, 700), "float32")]


def _scatter() -> tuple[Any, Any, Any]:
    inputs = [
        RNG.standard_normal((2, 30), "float32"),
        RNG.integers(-33, 33, (2, 40)),
        RNG.standard_normal((2, 40), "float32"),
    ]
    return scatter_func(2, 30, 40, "float32", "int64"), inputs, [((2, 30), "float32")]


CASES: dict[str, Any] = {
    "suppress, best class": lambda: _suppression(2, 300, 3),
    "suppress, every class": lambda: _suppression(1, 90, 5, multi_label=True),
    "suppress, across classes": lambda: _suppression(1, 70, 2, class_agnostic=True),
    "suppress, few candidates": lambda: _suppression(1, 40, 3, pre_nms_top_k=7),
    "suppress, rounds": lambda: _suppression(1, 700, 1, max_detections=300),
    "suppress, one anchor": lambda: _suppression(1, 1, 1, max_detections=3),
    "oriented": lambda: _oriented(2, 300),
    "oriented, every class": lambda: _oriented(1, 500, multi_label=True),
    "oriented, across classes": lambda: _oriented(1, 40, class_agnostic=True),
    "oriented, few rows": lambda: _oriented(1, 300, max_detections=3),
    "onnx, corners": lambda: _onnx_suppression(False, 60),
    "onnx, centres, full": lambda: _onnx_suppression(True, 9),
    "roi, half pixels": lambda: _roi(sampling_ratio=2, aligned=True),
    "roi, as many samples as pixels": lambda: _roi(sampling_ratio=0, aligned=False),
    "top-k of ties": lambda: _top_k(1000, 33, "float32", True),
    "least of ties": lambda: _top_k(500, 64, "float32", False),
    "top-k of whole numbers": lambda: _top_k(77, 5, "int32", True),
    "top-1": lambda: _top_k(9, 1, "float32", True),
    "sort": lambda: _top_k(300, 300, "float32", True),
    "sort, long": lambda: _top_k(2100, 2100, "float32", False),
    "running sum": lambda: _cumsum(False),
    "running sum before": lambda: _cumsum(True),
    "scatter": _scatter,
}


def _module(func: Any, inputs: Any, outputs: Any) -> tvm.IRModule:
    builder = relax.BlockBuilder()
    params = [
        relax.Var(f"x{i}", relax.TensorType(array.shape, str(array.dtype)))
        for i, array in enumerate(inputs)
    ]
    types = [relax.TensorType(shape, dtype) for shape, dtype in outputs]
    with builder.function("main", params):
        with builder.dataflow():
            var = builder.add_func(func, "kernel")
            made = builder.emit(relax.call_tir(var, params, types if len(types) > 1 else types[0]))
            result = builder.emit_output(made)
        builder.emit_func_output(result)
    return builder.get()


@functools.cache
def _results() -> dict[str, tuple[list[np.ndarray], list[np.ndarray]]]:
    """What both kernels answer in every case; one library each, which takes longest."""
    cases = {name: make() for name, make in CASES.items()}
    plain = {f"c{i}": case[0] for i, case in enumerate(cases.values())}
    module = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in plain.items()})
    library = tvm.tirx.build(module, tvm.target.Target("llvm"))
    found = {}
    functions, arguments, outputs, chains = {}, {}, {}, {}
    for index, (name, (func, inputs, shapes)) in enumerate(cases.items()):
        made = [np.zeros(shape, dtype) for shape, dtype in shapes]
        tensors = [tvm.runtime.tensor(array) for array in (*inputs, *made)]
        library[f"c{index}"](*tensors)
        found[name] = [tensor.numpy() for tensor in tensors[len(inputs) :]]
        chains[name] = _calls(UseDeviceKernels()(_module(func, inputs, shapes)), inputs)
    # Kernels of a chain need the results of those before: as many rounds as the longest has.
    values = {name: {f"in{i}": a for i, a in enumerate(cases[name][1])} for name in cases}
    for step in range(max(len(chain) for chain in chains.values())):
        functions, arguments, outputs = {}, {}, {}
        for index, (name, chain) in enumerate(chains.items()):
            if step < len(chain):
                key = f"s{index}_{step}"
                functions[key], given, outputs[key] = chain[step]
                arguments[key] = [values[name][one] for one in given]
        answers = run_functions(functions, arguments, outputs, TARGET)
        for index, name in enumerate(chains):
            for at, array in enumerate(answers.get(f"s{index}_{step}", [])):
                values[name][f"{step}.{at}"] = array
    return {
        name: (
            found[name],
            [values[name][f"{len(chain) - 1}.{at}"] for at in range(len(cases[name][2]))],
        )
        for name, chain in chains.items()
    }


def _calls(module: tvm.IRModule, inputs: Any) -> list[tuple[Any, list[str], list[Any]]]:
    """The kernels that a module calls in order, with the names of what they are given."""
    names: dict[Any, str] = {p: f"in{i}" for i, p in enumerate(module["main"].params)}
    calls: list[tuple[Any, list[str], list[Any]]] = []
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.TupleGetItem):
                names[binding.var] = f"{names[value.tuple_value]}.{int(value.index)}"
            elif isinstance(value, relax.Call):
                types = value.ty_args[0]
                fields = types.fields if isinstance(types, relax.TupleType) else [types]
                shapes = [(tuple(int(d) for d in t.shape), str(t.dtype)) for t in fields]
                given = [names[arg] for arg in value.args[1].fields]
                calls.append((module[value.args[0]], given, shapes))
                several = isinstance(types, relax.TupleType)
                names[binding.var] = f"{len(calls) - 1}" + ("" if several else ".0")
    return calls


@pytest.mark.parametrize("name", CASES)
def test_the_gpus_kernel_answers_as_the_cpus(name: str) -> None:
    wanted, got = _results()[name]
    for one, other in zip(wanted, got, strict=True):
        if name.startswith("roi"):
            np.testing.assert_allclose(other, one, rtol=2e-5, atol=2e-5)
        else:
            np.testing.assert_array_equal(other, one)
    assert any(np.any(array) for array in wanted), "the case is empty"
