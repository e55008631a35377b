"""Old exports: operators of opset 7 to 10 as those of opset 11, by ONNX's own converter.

And to later opsets, for operators that are standard only there.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.version_converter
from onnx import helper

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, first_line, iter_graphs, name_nodes
from tvmdet.steps import reached

__all__ = ["OLDEST_READ", "RAISED", "raise_opset", "raised_to"]

OLDEST_READ = 11
"""TVM's importer takes the lowest converter that it has for older versions, so that Slice and
Resize of opset 10 and below would be read by the rules of later ones."""


def raised_to(opset: int) -> str:
    """Says so, for people."""
    return f"operators brought to opset {opset} (onnx.version_converter)"


RAISED = raised_to(OLDEST_READ)


def raise_opset(
    path: Path, model: onnx.ModelProto, opset: int, wanted: int = OLDEST_READ
) -> onnx.ModelProto:
    """Returns a model whose operators are of a later opset.

    Args:
        path: Its file, for messages.
        model: The checked model; it is left as it is.
        opset: Its version of the default operator set, before the wanted one.
        wanted: That of the result.

    Returns:
        A converted copy, every node named.

    Raises:
        ModelError: An operator cannot be converted; says which.
    """
    reached(f"ONNX converts opset {opset} to {wanted}")
    given = onnx.ModelProto()
    given.CopyFrom(model)
    # Before version 4 every constant that the converter adds would have to be an input.
    given.ir_version = max(model.ir_version, 4)
    try:
        raised = onnx.version_converter.convert_version(given, wanted)
    except Exception as error:  # its C++ side raises anything
        raise ModelError(
            f"{path} has opset {opset}, and cannot be brought to {wanted}: "
            f"{first_line(error)}; export it again with opset_version={max(wanted, 17)}"
        ) from error
    # Other domains stay: the converter keeps the default one only.
    kept = [one for one in model.opset_import if one.domain not in DEFAULT_DOMAINS]
    known = {one.domain for one in raised.opset_import}
    raised.opset_import.extend(one for one in kept if one.domain not in known)
    for graph in iter_graphs(raised.graph):
        for node in graph.node:
            if node.op_type == "Resize" and opset < OLDEST_READ:
                _resize_as_before(node)
    name_nodes(raised.graph)
    return raised


def _resize_as_before(node: onnx.NodeProto) -> None:
    """Says of a Resize what its coordinates were before opset 11 let it say so.

    Upsample and the Resize of opset 10 divide by the scale, and take the pixel below; the
    converter leaves both away, and the defaults of opset 11 are others.
    """
    kept = [a for a in node.attribute if a.name == "mode"]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
