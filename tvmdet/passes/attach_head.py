"""AttachHead: bytes in, boxes out. Wraps an imported network with its input and its head.

The network as imported takes normalised NCHW floats and returns raw outputs. A detector takes
the BGR bytes that OpenCV decodes, and two thresholds, and returns boxes: channel order,
normalisation, decoding and suppression become part of the graph, so that they are compiled,
fused and tuned like everything else, and no caller can get them wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmdet.errors import ShapeError
from tvmdet.heads import Decoded, MaskValues, get_head
from tvmdet.passes.mask_rows_kernel import mask_rows_func
from tvmdet.passes.relax_tools import static_shape
from tvmdet.passes.suppress_boxes import emit_suppress_boxes
from tvmdet.passes.suppress_oriented import emit_suppress_oriented
from tvmdet.spec import DetectorSpec, InputSpec

__all__ = ["attach_head", "attach_nothing", "emit_masks", "emit_network", "emit_normalize"]


def attach_head(
    builder: relax.BlockBuilder,
    network: tvm.IRModule,
    output_names: Sequence[str],
    spec: DetectorSpec,
    function_name: str = "main",
) -> None:
    """Adds a Relax function that finds boxes in images to the builder's module.

    It takes images uint8 ``[N, H, W, 3]`` in BGR order and thresholds float32 ``[2]`` (score,
    IoU), and returns a tuple: boxes float32 ``[N, K, 4]`` in pixels of the network's input, scores
    float32 ``[N, K]``, class ids int32 ``[N, K]``, counts int32 ``[N]``, and where the spec says so
    angles float32 ``[N, K]``, or keypoints float32 ``[N, K, P * D]`` and masks float32
    ``[N, K, h, w]``; rows past the count are zero, those of angles, keypoints and masks whatever.

    Args:
        builder: Whose module receives the function.
        network: A module whose ``main`` takes ``[N, 3, H, W]`` of numbers and returns the outputs.
        output_names: Names of the network's outputs, in their order.
        spec: The detector around it.
        function_name: Name of the new function.

    Raises:
        ShapeError: The network does not take one three-channel picture of the spec's size.
    """
    func = network["main"]
    shapes = [static_shape(param) for param in func.params]
    height, width = spec.input.size_hw
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1:] != (3, height, width):
        raise ShapeError(
            f"the network takes {shapes}; a detector takes one input [N, 3, {height}, {width}]; "
            "give --size, or compile with --raw"
        )
    images = relax.Var("images", relax.TensorType((shapes[0][0], height, width, 3), "uint8"))
    thresholds = relax.Var("thresholds", relax.TensorType((2,), "float32"))
    with builder.function(function_name, [images, thresholds]):
        with builder.dataflow():
            pixels = emit_normalize(builder, images, spec.input)
            pixels = _emit_cast(builder, pixels, str(func.params[0].ty.dtype))
            results = [_emit_wide(builder, one) for one in emit_network(builder, network, [pixels])]
            outputs: Mapping[str, Any] = dict(zip(output_names, results, strict=True))
            decoded = get_head(spec.family).decode(builder, outputs, spec)
            found = _emit_suppressed(builder, decoded, thresholds, spec)
            boxes, scores, class_ids, candidates, counts = (
                builder.emit(found[i]) for i in range(5)
            )
            results = [boxes, scores, class_ids, counts]
            if spec.oriented:
                results.append(_emit_chosen(builder, decoded.angles, candidates))
            if spec.keypoints is not None:
                if decoded.keypoints is None:
                    raise ShapeError(
                        f"family {spec.family} has no keypoints; remove keypoints from the spec"
                    )
                results.append(_emit_chosen(builder, decoded.keypoints, candidates))
            if spec.masks is not None:
                if decoded.masks is None:
                    raise ShapeError(
                        f"family {spec.family} has no masks; remove masks from the spec"
                    )
                results.append(emit_masks(builder, decoded.masks, candidates, counts))
            found = builder.emit_output(relax.Tuple(results))
        builder.emit_func_output(found)


def _emit_suppressed(
    builder: relax.BlockBuilder, decoded: Decoded, thresholds: Any, spec: DetectorSpec
) -> Any:
    """Emits the suppression of a network's boxes, turned or not.

    Raises:
        ShapeError: The spec says that boxes are turned, and the family has no angles.
    """
    boxes, scores = decoded.boxes, decoded.scores
    if not spec.oriented:
        return emit_suppress_boxes(builder, boxes, scores, thresholds, spec.postprocess)
    if decoded.angles is None:
        raise ShapeError(f"family {spec.family} has no angles; remove oriented from the spec")
    return emit_suppress_oriented(
        builder, boxes, decoded.angles, scores, thresholds, spec.postprocess
    )


def emit_masks(builder: relax.BlockBuilder, masks: MaskValues, candidates: Any, counts: Any) -> Any:
    """Emits the masks of the chosen candidates.

    Args:
        builder: Where to emit.
        masks: Of every candidate.
        candidates: int32 ``[N, K]``, which candidate each row is.
        counts: int32 ``[N]``, how many rows of an image are detections.

    Returns:
        float32 ``[N, K, h, w]``, 0 to 1; rows past the count are whatever.
    """
    values = _emit_chosen(builder, masks.values, candidates)
    if masks.prototypes is None:
        return values
    batch, rows, _ = static_shape(values)
    _, count, height, width = static_shape(masks.prototypes)
    shared = builder.emit(relax.op.reshape(masks.prototypes, (batch, count, height * width)))
    func = mask_rows_func(batch, rows, count, height * width)
    made = relax.TensorType((batch, rows, height * width), "float32")
    var = builder.add_func(func, "mask_rows")
    mixed = builder.emit(relax.call_tir(var, [values, shared, counts], made))
    return builder.emit(relax.op.reshape(mixed, (batch, rows, height, width)))


def _emit_chosen(builder: relax.BlockBuilder, values: Any, candidates: Any) -> Any:
    """Emits ``[N, K, ...]``: of values ``[N, A, ...]`` those of the chosen candidates."""
    batch, rows = static_shape(candidates)
    _, anchors, *inner = static_shape(values)
    start = relax.const(np.arange(batch, dtype="int32")[:, None] * anchors)
    flat = builder.emit(relax.op.reshape(builder.emit(relax.op.add(candidates, start)), (-1,)))
    values = builder.emit(relax.op.reshape(values, (batch * anchors, *inner)))
    values = builder.emit(relax.op.take(values, flat, axis=0, mode="clip"))
    return builder.emit(relax.op.reshape(values, (batch, rows, *inner)))


def attach_nothing(builder: relax.BlockBuilder, network: tvm.IRModule, function_name: str) -> None:
    """Adds a network as it is, under a name of its own, to the builder's module."""
    func = network["main"]
    params = [relax.Var(f"input{i}", param.ty) for i, param in enumerate(func.params)]
    with builder.function(function_name, params):
        with builder.dataflow():
            outputs = emit_network(builder, network, params)
            result = outputs[0] if len(outputs) == 1 else relax.Tuple(outputs)
            result = builder.emit_output(result)
        builder.emit_func_output(result)


def emit_normalize(builder: relax.BlockBuilder, images: Any, spec: InputSpec) -> Any:
    """Emits ``(pixel - mean) / std`` and the channel order; returns float32 NCHW.

    A row of pixels is scaled as one line of numbers against a row of constants, so that whole
    vectors are loaded although there are three channels; the reordering of channels comes last,
    where :class:`~tvmdet.passes.fold_channel_order.FoldChannelOrder` folds it into the weights of
    the first convolution.
    """
    batch, height, width, _ = static_shape(images)
    scale = 1.0 / np.asarray(spec.std, "float32")
    offset = -np.asarray(spec.mean, "float32") * scale
    if spec.color == "rgb":
        scale, offset = scale[::-1], offset[::-1]
    pixels = builder.emit(relax.op.reshape(images, (batch, height, width * 3)))
    pixels = builder.emit(relax.op.astype(pixels, "float32"))
    row = relax.const(np.tile(scale, width).reshape(1, 1, -1))
    pixels = builder.emit(relax.op.multiply(pixels, row))
    if np.any(offset):
        row = relax.const(np.tile(offset, width).reshape(1, 1, -1))
        pixels = builder.emit(relax.op.add(pixels, row))
    pixels = builder.emit(relax.op.reshape(pixels, (batch, height, width, 3)))
    pixels = builder.emit(relax.op.permute_dims(pixels, [0, 3, 1, 2]))
    if spec.color == "rgb":
        reverse = relax.const(np.array([2, 1, 0], "int64"))
        pixels = builder.emit(relax.op.take(pixels, reverse, axis=1, mode="clip"))
    return pixels


def _emit_cast(builder: relax.BlockBuilder, value: Any, dtype: str) -> Any:
    return value if str(value.ty.dtype) == dtype else builder.emit(relax.op.astype(value, dtype))


def _emit_wide(builder: relax.BlockBuilder, output: Any) -> Any:
    """Emits an output as the heads take it: floats of single precision."""
    floats = str(output.ty.dtype).startswith(("float", "bfloat"))
    return _emit_cast(builder, output, "float32") if floats else output


def emit_network(
    builder: relax.BlockBuilder, network: tvm.IRModule, args: Sequence[Any]
) -> list[Any]:
    """Emits the body of a module's ``main`` on other arguments; returns its outputs as a list.

    Kernels that it calls, as TVM's importer makes some of, are added to the builder's module.
    """
    func = network["main"]
    renamed = dict(zip(func.params, args, strict=True))

    @relax.expr_functor.mutator
    class Rename(relax.PyExprMutator):  # type: ignore[misc]
        def visit_var_(self, var: Any) -> Any:
            return renamed.get(var, var)

        visit_dataflow_var_ = visit_var_

        def visit_global_var_(self, var: Any) -> Any:
            if var not in renamed:
                renamed[var] = builder.add_func(network[var], var.name_hint)
            return renamed[var]

    rename = Rename()
    for block in func.body.blocks:
        for binding in block.bindings:
            renamed[binding.var] = builder.emit(rename.visit_expr(binding.value))
    result = rename.visit_expr(func.body.body)
    if not isinstance(result.ty, relax.TupleType):
        return [result]
    if isinstance(result, relax.Tuple):
        return list(result.fields)
    return [builder.emit(result[i]) for i in range(len(result.ty.fields))]
