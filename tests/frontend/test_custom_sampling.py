"""MMDeploy's sampling nodes, held against numpy: what they sample, and the opset they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.custom_sampling import replace_custom_sampling
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.prove import run_onnx

PATH = Path("detector.onnx")


def _model(
    operator: str,
    inputs: dict[str, np.ndarray],
    opset: int = 11,
    domain: str = "mmdeploy",
    **attrs: Any,
) -> onnx.ModelProto:
    """One node, and a Squeeze whose axes later opsets have as an input."""
    nodes = [
        helper.make_node(operator, [*inputs], ["sampled"], "sample", domain=domain, **attrs),
        helper.make_node("Squeeze", ["sampled"], ["y"], "squeeze", axes=[0]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
            for name, value in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 3)],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=7)


def _run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    ((result,),) = [results.values() for results in run_onnx(model, [inputs])]
    return result


def _sample(picture: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear between the centres of pixels, nothing outside; ``[C]``."""
    total = np.zeros(len(picture))
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < picture.shape[1] and 0 <= column < picture.shape[2]:
                share = (1 - abs(y - row)) * (1 - abs(x - column))
                total += share * picture[:, row, column]
    return total


@pytest.mark.parametrize("domain", ["mmdeploy", "mmcv"])
def test_grid_sampler(domain: str) -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(1, 2, 4, 5)).astype(np.float32)
    grid = rng.uniform(-1.2, 1.2, (1, 3, 2, 2)).astype(np.float32)
    inputs = {"x": picture, "grid": grid}
    attributes = {"interpolation_mode": 0, "padding_mode": 0, "align_corners": 0}
    model = replace_custom_sampling(
        PATH, _model("grid_sampler", inputs, domain=domain, **attributes)
    )
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 16)]
    expected = np.empty((2, 3, 2))
    for row, column in np.ndindex(3, 2):
        x, y = ((grid[0, row, column] + 1) * [5, 4] - 1) / 2
        expected[:, row, column] = _sample(picture[0], y, x)
    np.testing.assert_allclose(_run(model, inputs), expected, atol=1e-5)


def test_modes_of_grid_sampler_are_pytorchs_numbers() -> None:
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    attributes = {"interpolation_mode": 1, "padding_mode": 2, "align_corners": 1}
    model = replace_custom_sampling(PATH, _model("grid_sampler", inputs, opset=17, **attributes))
    assert model.opset_import[0].version == 17
    assert model.graph.node[0].op_type == "GridSample"
    found = {one.name: helper.get_attribute_value(one) for one in model.graph.node[0].attribute}
    assert found == {"mode": b"nearest", "padding_mode": b"reflection", "align_corners": 1}


@pytest.mark.parametrize(("modulated", "with_bias"), [(False, False), (True, False), (True, True)])
def test_deformable_convolution(modulated: bool, with_bias: bool) -> None:
    """Two groups of offsets, y before x; padding, stride and dilation differ by axis."""
    rng = np.random.default_rng(1)
    inputs = {
        "x": rng.normal(size=(1, 4, 6, 7)),
        "offset": rng.normal(size=(1, 2 * 9 * 2, 3, 7)),
        **({"mask": rng.uniform(size=(1, 2 * 9, 3, 7))} if modulated else {}),
        "weight": rng.normal(size=(2, 4, 3, 3)),
        **({"bias": rng.normal(size=2)} if with_bias else {}),
    }
    inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
    operator = "MMCVModulatedDeformConv2d" if modulated else "MMCVDeformConv2d"
    model = _model(
        operator,
        inputs,
        stride=[2, 1],
        padding=[1, 2] if modulated else [1, 2, 1, 2],
        dilation=[1, 2],
        groups=1,
        deform_groups=2,
    )
    model = replace_custom_sampling(PATH, model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 19)]
    expected = np.zeros((2, 3, 7)) + inputs.get("bias", np.zeros(2))[:, None, None]
    for part, ky, kx, row, column in np.ndindex(2, 3, 3, 3, 7):
        at = part * 9 + ky * 3 + kx
        move = inputs["offset"][0, 2 * at : 2 * at + 2, row, column]
        y, x = row * 2 - 1 + ky + move[0], column - 2 + 2 * kx + move[1]
        values = _sample(inputs["x"][0, 2 * part : 2 * part + 2], y, x)
        values *= inputs["mask"][0, at, row, column] if modulated else 1
        expected[:, row, column] += inputs["weight"][:, 2 * part : 2 * part + 2, ky, kx] @ values
    np.testing.assert_allclose(_run(model, inputs), expected, atol=1e-4)


def test_a_file_is_read_with_its_own_opset_remembered(tmp_path: Path) -> None:
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    path = tmp_path / "sampler.onnx"
    onnx.save(_model("grid_sampler", inputs), path)
    loaded = load_onnx(path)
    assert (loaded.opset, loaded.exported_opset) == (16, 11)


def test_of_another_domain_it_is_foreign(tmp_path: Path) -> None:
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    model = _model("grid_sampler", inputs, domain="mine")
    assert replace_custom_sampling(PATH, model) is model
    onnx.save(model, tmp_path / "sampler.onnx")
    with pytest.raises(UnsupportedOperatorError, match="custom domain 'mine'"):
        load_onnx(tmp_path / "sampler.onnx")


def test_other_operators_must_have_the_opset_too() -> None:
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    model = _model("grid_sampler", inputs)
    model.graph.node.insert(0, helper.make_node("NoOperator", ["x"], ["z"], "none"))
    with pytest.raises(
        UnsupportedOperatorError, match=r"'sample' .*cannot be brought to 16: .*opset_version=17"
    ):
        replace_custom_sampling(PATH, model)


def test_other_domains_stay_when_the_model_is_brought_to_another_opset() -> None:
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    model = _model("grid_sampler", inputs)
    model.graph.node.append(
        helper.make_node("Gelu", ["sampled"], ["z"], "gelu", domain="com.microsoft")
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    raised = replace_custom_sampling(PATH, model)
    assert {one.domain: one.version for one in raised.opset_import} == {"": 16, "com.microsoft": 1}


def test_modes_have_the_names_of_their_opset() -> None:
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    names = []
    for opset in (16, 20):
        model = replace_custom_sampling(PATH, _model("grid_sampler", inputs, opset=opset))
        mode = next(one for one in model.graph.node[0].attribute if one.name == "mode")
        names.append(mode.s)
    assert names == [b"bilinear", b"linear"]


def test_what_mmdeploy_does_not_write_is_refused() -> None:
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    for number in (3, -1, "zeros"):
        with pytest.raises(UnsupportedOperatorError, match=r"'sample' .*padding_mode.*allowed"):
            replace_custom_sampling(PATH, _model("grid_sampler", inputs, padding_mode=number))
    with pytest.raises(UnsupportedOperatorError, match=r"'sample' .*has 2 inputs; allowed: 3"):
        replace_custom_sampling(PATH, _model("MMCVDeformConv2d", inputs))


def test_opsets_whose_resize_is_another_are_refused() -> None:
    """The converter leaves away how they place pixels, and it is not to be proven here."""
    inputs = {"x": np.zeros((1, 1, 2, 2)), "grid": np.zeros((1, 1, 1, 2))}
    with pytest.raises(UnsupportedOperatorError, match=r"'sample' .*has opset 10; allowed: 11"):
        replace_custom_sampling(PATH, _model("grid_sampler", inputs, opset=10))


@pytest.mark.parametrize(
    ("key", "value"),
    [("stride", [1]), ("padding", [0, 0, 0]), ("groups", [1, 1]), ("dilation", [0.5, 0.5])],
)
def test_settings_of_other_lengths_or_types_are_refused(key: str, value: list[float]) -> None:
    inputs = {
        "x": np.zeros((1, 2, 4, 4)),
        "offset": np.zeros((1, 18, 4, 4)),
        "weight": np.zeros((3, 2, 3, 3)),
    }
    model = _model("MMCVDeformConv2d", inputs, **{key: value})
    with pytest.raises(UnsupportedOperatorError, match=rf"'sample' .* has {key} .* whole numbers"):
        replace_custom_sampling(PATH, model)
