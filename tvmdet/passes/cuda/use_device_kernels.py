"""UseDeviceKernels: kernels that were written for a CPU's threads, by others for a GPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax, tirx

from tvmdet.passes.cuda.device_calls import emit_device_call
from tvmdet.passes.kernel_marks import read_mark
from tvmdet.passes.relax_tools import is_call_to
from tvmdet.passes.rewrite_calls import rewrite_calls

__all__ = ["UseDeviceKernels"]

_THREADS = 256
_MOST_SORTED = 2048  # keys of a row in shared memory: 16 KiB
_BOX_WORDS = 5
_ORIENTED_WORDS = 8
_C_TYPES = {
    "float32": "float",
    "float16": "half",
    "int32": "int",
    "int64": "int64_t",
    "bool": "bool",
    "int8": "int8_t",
    "uint8": "uint8_t",
}


@tvm.ir.transform.module_pass(opt_level=0, name="UseDeviceKernels")
class UseDeviceKernels:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with marked kernels replaced."""
        functions = {
            var.name_hint: read_mark(func)
            for var, func in mod.functions_items()
            if isinstance(func, tirx.PrimFunc)
        }

        def replace(builder: relax.BlockBuilder, call: Any) -> Any:
            if not is_call_to(call, "relax.call_tir"):
                return call
            name = call.args[0].name_hint
            if name not in functions:
                # Added by an earlier replacement of this pass.
                return call
            mark = functions[name]
            if mark is None or mark["name"] not in _RULES:
                return call
            results = _RULES[mark["name"]](builder, list(call.args[1].fields), mark)
            return results[0] if len(results) == 1 else relax.Tuple(results)

        result = rewrite_calls(mod, replace)
        for name, mark in functions.items():
            if mark is not None and mark["name"] in _RULES:
                del result[result.get_global_var(name)]
        return result


def _top_k(builder: relax.BlockBuilder, args: list[Any], mark: dict[str, Any]) -> list[Any]:
    rows, length, k = mark["rows"], mark["length"], mark["k"]
    types = f"{_C_TYPES[mark['dtype']]}, {_C_TYPES[mark['index_dtype']]}"
    outputs = [((rows, k), mark["dtype"]), ((rows, k), mark["index_dtype"])]
    scalars = [length, k, bool(mark["largest"])]
    if k <= _MOST_SORTED and mark["dtype"] in ("float32", "int32"):
        capacity = max(2, 1 << (k - 1).bit_length())
        helper = f"tvmdet_top_k_of_row<{_THREADS}, {capacity}, {types}>"
        grid = (rows, 1)
    else:
        helper, grid = f"tvmdet_rank_in_row<{types}>", (-(-length // _THREADS), rows)
    return emit_device_call(builder, helper, args, outputs, scalars, grid=grid, threads=_THREADS)


def _suppress_boxes(
    builder: relax.BlockBuilder, args: list[Any], mark: dict[str, Any]
) -> list[Any]:
    batch, anchors, classes = mark["batch"], mark["anchors"], mark["classes"]
    rows, multi = mark["rows"], bool(mark["multi_label"])
    blocks, stretch = -(-anchors // _THREADS), _THREADS * (classes if multi else 1)
    boxes, scores, thresholds = args
    keys, lengths = emit_device_call(
        builder,
        f"tvmdet_collect<{_THREADS}>",
        [scores, thresholds],
        [((batch, blocks, stretch), "uint64"), ((batch, blocks), "int32")],
        [anchors, classes, multi],
        grid=(blocks, batch),
        threads=_THREADS,
    )
    found = emit_device_call(
        builder,
        f"tvmdet_suppress_image<{_THREADS}>",
        [boxes, keys, lengths, thresholds],
        [
            ((batch, rows, 4), "float32"),
            ((batch, rows), "float32"),
            ((batch, rows), "int32"),
            ((batch, rows), "int32"),
            ((batch,), "int32"),
            ((batch, rows, _BOX_WORDS), "int32"),
        ],
        [anchors, classes, rows, blocks, stretch, mark["most"], not mark["class_agnostic"]],
        grid=(batch, 1),
        threads=_THREADS,
    )
    return found[:-1]


def _suppress_oriented(
    builder: relax.BlockBuilder, args: list[Any], mark: dict[str, Any]
) -> list[Any]:
    batch, rows, candidates = mark["batch"], mark["rows"], mark["candidates"]
    found = emit_device_call(
        builder,
        f"tvmdet_suppress_oriented<{_THREADS}>",
        args,
        [
            ((batch, rows, 4), "float32"),
            ((batch, rows), "float32"),
            ((batch, rows), "int32"),
            ((batch, rows), "int32"),
            ((batch,), "int32"),
            ((batch, candidates, _ORIENTED_WORDS), "int32"),
            ((batch, candidates), "int32"),
        ],
        [
            *(mark["anchors"], mark["classes"], candidates, rows),
            *(bool(mark["multi_label"]), not mark["class_agnostic"]),
        ],
        grid=(batch, 1),
        threads=_THREADS,
    )
    return found[:-2]


def _non_max_suppression(
    builder: relax.BlockBuilder, args: list[Any], mark: dict[str, Any]
) -> list[Any]:
    groups, classes = mark["images"] * mark["classes"], mark["classes"]
    rows, most, count = mark["rows"], mark["most"], mark["count"]
    kept, counts, _ = emit_device_call(
        builder,
        f"tvmdet_onnx_suppress_class<{_THREADS}>",
        args,
        [((groups, most), "int32"), ((groups,), "int32"), ((groups, most, _BOX_WORDS), "int32")],
        [
            classes,
            count,
            most,
            float(mark["iou_threshold"]),
            float(mark["score_threshold"]),
            bool(mark["center_point_box"]),
        ],
        grid=(groups, 1),
        threads=_THREADS,
    )
    return emit_device_call(
        builder,
        f"tvmdet_onnx_join<{_THREADS}>",
        [kept, counts],
        [((rows, 3), "int64"), ((rows,), "bool")],
        [groups, classes, most, rows],
        threads=_THREADS,
    )


def _roi_align(builder: relax.BlockBuilder, args: list[Any], mark: dict[str, Any]) -> list[Any]:
    batch, height, width, channels = mark["data_shape"]
    regions, (rows, columns) = mark["regions"], mark["pooled_hw"]
    points = regions * rows * columns * channels
    return emit_device_call(
        builder,
        "tvmdet_roi_align_all",
        args,
        [((regions, rows, columns, channels), "float32")],
        [
            *(regions, batch, height, width, channels, rows, columns),
            float(mark["scale"]),
            int(mark["ratio"]),
            float(mark["offset"]),
            float(mark["smallest"]),
        ],
        grid=(-(-points // _THREADS), 1),
        threads=_THREADS,
    )


def _cumsum(builder: relax.BlockBuilder, args: list[Any], mark: dict[str, Any]) -> list[Any]:
    rows, length = mark["rows"], mark["length"]
    types = f"{_C_TYPES[mark['dtype']]}, {_C_TYPES[mark['sum_dtype']]}"
    return emit_device_call(
        builder,
        f"tvmdet_running_sum<{_THREADS}, {types}>",
        args,
        [((rows, length), mark["sum_dtype"])],
        [length, bool(mark["exclusive"])],
        grid=(rows, 1),
        threads=_THREADS,
    )


def _scatter(builder: relax.BlockBuilder, args: list[Any], mark: dict[str, Any]) -> list[Any]:
    rows, length = mark["rows"], mark["length"]
    types = f"{_C_TYPES[mark['dtype']]}, {_C_TYPES[mark['index_dtype']]}"
    data, places, values = args
    return emit_device_call(
        builder,
        f"tvmdet_scatter<{_THREADS}, {types}>",
        [data, places, values],
        [((rows, length), mark["dtype"])],
        [length, mark["updates"]],
        grid=(rows, 1),
        threads=_THREADS,
    )


def _mask_rows(builder: relax.BlockBuilder, args: list[Any], _mark: dict[str, Any]) -> list[Any]:
    """All rows, as a product on tensor cores: a GPU has little to win by leaving some out."""
    weights, prototypes, _ = args
    return [builder.emit(relax.op.sigmoid(builder.emit(relax.op.matmul(weights, prototypes))))]


_Rule = Callable[[relax.BlockBuilder, list[Any], dict[str, Any]], list[Any]]
_RULES: dict[str, _Rule] = {
    "top_k": _top_k,
    "suppress_boxes": _suppress_boxes,
    "suppress_oriented": _suppress_oriented,
    "non_max_suppression": _non_max_suppression,
    "roi_align": _roi_align,
    "cumsum": _cumsum,
    "scatter": _scatter,
    "mask_rows": _mask_rows,
}
