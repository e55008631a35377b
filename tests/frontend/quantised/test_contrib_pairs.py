"""com.microsoft's QuantizeLinear and DequantizeLinear as the standard's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from qdq_models import STEP, copied, operators, pair, run

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.quantised import opset_of_pairs, take_pairs

DOMAIN = "com.microsoft"


def _model(zero: Any, opset: int = 17, scale: Any = STEP, **more: Any) -> onnx.ModelProto:
    """``x`` through a Relu and a pair of ONNX Runtime's own domain."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), *pair("r", "y", domain=DOMAIN, **more)]
    if zero is None:
        for node in nodes[1:]:
            node.input.pop()
    for index, node in enumerate(nodes):
        node.name = f"node_{index}"
    arrays = {"s": np.asarray(scale)} | ({} if zero is None else {"z": np.asarray(zero)})
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize(
    ("zero", "opset", "needed", "more"),
    [
        (None, 17, 13, {}),  # of uint8
        (np.uint8(3), 17, 13, {}),
        (np.zeros(4, np.int8), 17, 13, {"scale": np.full(4, STEP), "axis": 1}),
        (np.int16(-5), 21, 21, {}),
        (np.uint16(7), 21, 21, {}),
    ],
)
def test_they_compute_the_same(zero: Any, opset: int, needed: int, more: dict[str, Any]) -> None:
    model = _model(zero, opset, **more)
    assert opset_of_pairs(model) == needed
    given = run(copied(model))
    assert take_pairs(model) == 2
    assert [one.domain for one in model.opset_import] == [""]
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model), given)
    assert opset_of_pairs(model) is None


@pytest.mark.parametrize(
    ("zero", "opset", "read"),
    [
        (np.int16(0), 17, 21),  # as ONNX Runtime's quantiser writes 16 bits before opset 21
        (np.int16(0), 21, 21),
        (np.int8(0), 17, 17),
    ],
)
def test_files_of_them_become_floats(zero: Any, opset: int, read: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(_model(zero, opset), path)
    loaded = load_onnx(path)
    assert loaded.opset == read
    assert loaded.exported_opset == (opset if opset != read else None)
    assert set(operators(loaded.proto)) == {"Relu", "Clip"}
    before = run(copied(loaded.exported))
    assert np.abs(run(loaded.proto) - before).max() <= STEP / 2 * (1 + 1e-5)


def test_steps_that_are_no_constants_stay(tmp_path: Path) -> None:
    model = _model(np.int16(0))
    model.graph.node[1].input[2] = model.graph.node[2].input[2] = "zero"
    model.graph.node.insert(0, helper.make_node("Identity", ["z"], ["zero"], name="node_z"))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(UnsupportedOperatorError, match="their steps are not constants"):
        load_onnx(tmp_path / "m.onnx")
