"""Sampling nodes of MMDeploy, rewritten in standard ONNX.

MMDeploy exports at opset 11, which has neither GridSample nor DeformConv, and writes operators of
its own instead (``mmdeploy/pytorch/symbolics/grid_sampler.py``, ``deform_conv.py`` and
``modulated_deform_conv.py`` of ``mmdeploy/mmcv/ops``). The model is brought to the opset that has
them. ONNX Runtime does not run these nodes without MMDeploy's library, so that their rewriting
cannot be proven on the export; the tests hold it against numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from tvmdet.counted import counted
from tvmdet.errors import ModelError, UnsupportedOperatorError
from tvmdet.frontend.bounded.attributes import attribute
from tvmdet.frontend.custom_regions import gather_top_k, pool_levels
from tvmdet.frontend.onnx_tools import (
    DEFAULT_DOMAINS,
    describe,
    drop_domains,
    name_nodes,
)
from tvmdet.frontend.raise_opset import OLDEST_READ, raise_opset

__all__ = ["replace_custom_sampling"]

_DOMAINS = ("mmdeploy", "mmcv")
_GRID_SAMPLE_OPSET, _DEFORM_CONV_OPSET = 16, 19
_GATHER_OPSET, _ALIGNED_OPSET = 13, 16  # GatherND with batch_dims, RoiAlign with half pixels
# PyTorch's numbers of them (aten/src/ATen/native/GridSamplerUtils.h); opset 20 renamed two.
_RENAMED_OPSET = 20
_MODES = ("bilinear", "nearest", "bicubic")
_RENAMED_MODES = ("linear", "nearest", "cubic")
_PADDINGS = ("zeros", "border", "reflection")


def replace_custom_sampling(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy with MMDeploy's sampling nodes in standard ONNX, of the opset that has them.

    A model without such nodes comes back as it is.

    Args:
        path: Its file, for messages.
        model: The model; it is left as it is.

    Raises:
        UnsupportedOperatorError: The other operators cannot be brought to that opset, or such a
            node has other inputs or settings than MMDeploy gives it.
    """
    found = [node for node in model.graph.node if _is_known(node)]
    if not found:
        return model
    least = max(_OPERATORS[node.op_type][0] for node in found)
    opset = next(o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS)
    if opset < least:
        copy = _raised(path, model, found[0], opset, least)
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
    nodes = [new for node in copy.graph.node for new in _rewritten(node, max(opset, least))]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    drop_domains(copy)
    name_nodes(copy.graph)
    return copy


def _rewritten(node: onnx.NodeProto, opset: int) -> list[onnx.NodeProto]:
    """Returns what takes a node's place: a copy of itself unless it is one of MMDeploy's."""
    if not _is_known(node):
        same = onnx.NodeProto()
        same.CopyFrom(node)
        return [same]
    _, counts, rewrite = _OPERATORS[node.op_type]
    if len(node.input) not in counts:
        allowed = (
            f"{counts[0]} to {counts[-1]}" if len(counts) > 2 else " or ".join(map(str, counts))
        )
        raise UnsupportedOperatorError(
            f"{describe(node)} has {counted(len(node.input), 'input')}; allowed: {allowed}; export "
            "it again with MMDeploy"
        )
    return rewrite(node, opset)


def _is_known(node: onnx.NodeProto) -> bool:
    return node.domain in _DOMAINS and node.op_type in _OPERATORS


def _raised(
    path: Path, model: onnx.ModelProto, node: onnx.NodeProto, given: int, opset: int
) -> onnx.ModelProto:
    if given < OLDEST_READ:  # MMDeploy writes 11, and nothing here can be proven on the export
        raise UnsupportedOperatorError(
            f"{describe(node)} is one of standard ONNX from opset {opset} on, and the model has "
            f"opset {given}; allowed: {OLDEST_READ} or later; export it with opset_version={opset}"
        )
    try:
        return raise_opset(path, model, given, opset)
    except ModelError as error:
        raise UnsupportedOperatorError(
            f"{describe(node)} is one of standard ONNX from opset {opset} on, but {error}"
        ) from error


def _standard(
    node: onnx.NodeProto, operator: str, inputs: list[str], attributes: Mapping[str, Any]
) -> list[onnx.NodeProto]:
    """Returns the standard node of a name and outputs that are kept."""
    return [helper.make_node(operator, inputs, list(node.output), node.name, **attributes)]


def _grid_sample(node: onnx.NodeProto, opset: int) -> list[onnx.NodeProto]:
    modes = _MODES if opset < _RENAMED_OPSET else _RENAMED_MODES
    mode = _named(node, "interpolation_mode", modes)
    padding = _named(node, "padding_mode", _PADDINGS)
    corners = _numbers(node, "align_corners", (0,), (1,))[0]
    given = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    return _standard(node, "GridSample", list(node.input), given)


def _named(node: onnx.NodeProto, key: str, names: Sequence[str]) -> str:
    """Returns the name of a setting that a node gives by number."""
    number = attribute(node, key, 0)
    if number not in range(len(names)):
        raise UnsupportedOperatorError(
            f"{describe(node)} has {key} {number!r}; allowed: 0 to {len(names) - 1} "
            f"({', '.join(names)}); export it again with MMDeploy"
        )
    return names[int(number)]


def _deform_conv(node: onnx.NodeProto, _opset: int) -> list[onnx.NodeProto]:
    data, offset, weight = node.input
    return _standard(node, "DeformConv", [data, weight, offset], _convolution(node))


def _modulated_deform_conv(node: onnx.NodeProto, _opset: int) -> list[onnx.NodeProto]:
    data, offset, mask, weight, *bias = node.input
    inputs = [data, weight, offset, *(bias or [""]), mask]
    return _standard(node, "DeformConv", inputs, _convolution(node))


def _convolution(node: onnx.NodeProto) -> dict[str, Any]:
    """Returns DeformConv's attributes; MMDeploy says the padding once or twice, height first."""
    pads = _numbers(node, "padding", (0, 0), (2, 4))
    return {
        "dilations": _numbers(node, "dilation", (1, 1), (2,)),
        "group": _numbers(node, "groups", (1,), (1,))[0],
        "offset_group": _numbers(node, "deform_groups", (1,), (1,))[0],
        "pads": pads if len(pads) == 4 else pads * 2,
        "strides": _numbers(node, "stride", (1, 1), (2,)),
    }


def _numbers(
    node: onnx.NodeProto, key: str, default: Sequence[int], lengths: Sequence[int]
) -> list[int]:
    """Returns a setting that is a whole number or a list of some."""
    value = attribute(node, key, default)
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if len(numbers) not in lengths or not all(type(number) is int for number in numbers):
        raise UnsupportedOperatorError(
            f"{describe(node)} has {key} {value!r}; allowed: {' or '.join(map(str, lengths))} "
            "whole numbers; export it again with MMDeploy"
        )
    return numbers


# The first opset that has each, the numbers of its inputs, and what rewrites it.
_OPERATORS: dict[
    str, tuple[int, Sequence[int], Callable[[onnx.NodeProto, int], list[onnx.NodeProto]]]
] = {
    "GatherTopk": (_GATHER_OPSET, (2,), lambda node, _opset: gather_top_k(node)),
    "MMCVDeformConv2d": (_DEFORM_CONV_OPSET, (3,), _deform_conv),
    "MMCVModulatedDeformConv2d": (_DEFORM_CONV_OPSET, (4, 5), _modulated_deform_conv),
    "MMCVMultiLevelRoiAlign": (
        _ALIGNED_OPSET,
        range(2, 12),
        lambda node, _opset: pool_levels(node),
    ),
    "grid_sampler": (_GRID_SAMPLE_OPSET, (2,), _grid_sample),
}
