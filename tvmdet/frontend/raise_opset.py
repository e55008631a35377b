"""Old exports: operators of opset 7 to 10 as those of opset 11, by ONNX's own converter."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.version_converter

from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import DEFAULT_DOMAINS, first_line, name_nodes
from tvmdet.steps import reached

__all__ = ["OLDEST_READ", "RAISED", "raise_opset"]

OLDEST_READ = 11
"""TVM's importer takes the lowest converter that it has for older versions, so that Slice and
Resize of opset 10 and below would be read by the rules of later ones."""

RAISED = f"operators brought to opset {OLDEST_READ} (onnx.version_converter)"


def raise_opset(path: Path, model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Returns a model whose operators are of opset 11 or later.

    Args:
        path: Its file, for messages.
        model: The checked model; it is left as it is.
        opset: Its version of the default operator set.

    Returns:
        The model itself where it is new enough, else a converted copy, every node named.

    Raises:
        ModelError: An operator cannot be converted; says which.
    """
    if opset >= OLDEST_READ:
        return model
    reached(f"ONNX converts opset {opset} to {OLDEST_READ}")
    try:
        raised = onnx.version_converter.convert_version(model, OLDEST_READ)
        onnx.checker.check_model(raised)
    except Exception as error:  # its C++ side raises anything
        raise ModelError(
            f"{path} has opset {opset}, and cannot be brought to {OLDEST_READ}: "
            f"{first_line(error)}; export it again with opset_version=17"
        ) from error
    # Other domains stay: the converter keeps the default one only.
    kept = [one for one in model.opset_import if one.domain not in DEFAULT_DOMAINS]
    known = {one.domain for one in raised.opset_import}
    raised.opset_import.extend(one for one in kept if one.domain not in known)
    name_nodes(raised.graph)
    return raised
