"""MMDeploy's nodes for TensorRT that pick rows and pool regions, held against numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.custom_sampling import replace_custom_sampling
from tvmdet.frontend.prove import run_onnx

PATH = Path("detector.onnx")
STRIDES = [4.0, 8.0, 16.0]


def _run(operator: str, inputs: dict[str, np.ndarray], **attributes: Any) -> np.ndarray:
    model = replace_custom_sampling(PATH, _model(operator, inputs, **attributes))
    assert [one.domain for one in model.opset_import] == [""]
    ((result,),) = [results.values() for results in run_onnx(model, [inputs])]
    return result


def _model(operator: str, inputs: dict[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, [*inputs], ["y"], "own", domain="mmdeploy", **attributes)
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in inputs.items()}
    graph = helper.make_graph(
        [node],
        "test",
        [
            helper.make_tensor_value_info(name, kinds[name], value.shape)
            for name, value in inputs.items()
        ],
        [helper.make_tensor_value_info("y", kinds[next(iter(inputs))], None)],
    )
    opsets = [helper.make_opsetid("", 11), helper.make_opsetid("mmdeploy", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=7)


@pytest.mark.parametrize("places", [np.int64, np.int32])
@pytest.mark.parametrize("columns", [(), (4,)])
def test_rows_are_taken_from_their_own_picture(places: type, columns: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 7, *columns)).astype(np.float32)
    chosen = np.array([[6, 0, 3], [1, 1, 5]], places)
    got = _run("GatherTopk", {"rows": rows, "places": chosen})
    np.testing.assert_array_equal(got, np.stack([rows[n][chosen[n]] for n in range(2)]))


def _pool(values: np.ndarray, box: np.ndarray, stride: float, aligned: bool) -> np.ndarray:
    """Means of 2 x 2 samples in each of 2 x 3 bins of a region inside the map; ``[C, 2, 3]``."""
    x1, y1, x2, y2 = box / stride - (0.5 if aligned else 0)
    pooled = np.zeros((len(values), 2, 3))
    for row, column, down, across in np.ndindex(2, 3, 2, 2):
        y = y1 + (y2 - y1) * (2 * row + down + 0.5) / 4
        x = x1 + (x2 - x1) * (2 * column + across + 0.5) / 6
        top, left = int(y), int(x)
        part = values[:, top : top + 2, left : left + 2]
        shares = np.outer([1 - (y - top), y - top], [1 - (x - left), x - left])
        pooled[:, row, column] += (part * shares).sum(axis=(1, 2)) / 4
    return pooled


def _pyramid() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    boxes = [
        [0, 20, 20, 40, 44],  # sizes of about 22, 40, 98 and 140 pixels; a level doubles 28
        [1, 30, 40, 75, 76],
        [0, 25, 25, 130, 116],
        [1, 20, 20, 160, 160],
        [0, 20, 20, 76, 76],  # twice the finest: the first of the next level
    ]
    maps = {
        f"map{at}": rng.normal(size=(2, 3, int(192 / stride), int(192 / stride)))
        for at, stride in enumerate(STRIDES)
    }
    return {
        name: np.asarray(value, np.float32) for name, value in {"regions": boxes, **maps}.items()
    }


@pytest.mark.parametrize("aligned", [True, False])
def test_a_region_is_pooled_on_the_level_of_its_size(aligned: bool) -> None:
    inputs = _pyramid()
    got = _run(
        "MMCVMultiLevelRoiAlign",
        inputs,
        aligned=int(aligned),
        featmap_strides=STRIDES,
        finest_scale=28,
        output_height=2,
        output_width=3,
        pool_mode=1,
        roi_scale_factor=1.0,
        sampling_ratio=2,
    )
    for found, region, level in zip(got, inputs["regions"], [0, 0, 1, 2, 1], strict=True):
        values = inputs[f"map{level}"][int(region[0])]
        expected = _pool(values, region[1:], STRIDES[level], aligned)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_regions_and_maps_may_be_of_16_bits() -> None:
    settings = {"featmap_strides": STRIDES, "finest_scale": 28, "output_height": 2}
    # Of 400 x 400 pixels, more than 16 bits hold.
    inputs = {**_pyramid(), "regions": np.array([[0, 20, 20, 40, 44], [1, 0, 0, 400, 400]])}
    halves = {name: value.astype(np.float16) for name, value in inputs.items()}
    floats = {name: value.astype(np.float32) for name, value in halves.items()}
    got, wanted = (
        _run("MMCVMultiLevelRoiAlign", values, **settings) for values in (halves, floats)
    )
    assert got.dtype == np.float16
    np.testing.assert_allclose(got, wanted, atol=2e-3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"featmap_strides": [4.0]}, "a stride above 0 for each"),
        ({"featmap_strides": [4.0, 0.0, 16.0]}, "a stride above 0 for each"),
        ({"finest_scale": 0}, "a stride above 0 for each"),
        ({"finest_scale": [28]}, "a stride above 0 for each"),
        ({"output_height": [7, 7]}, r"has output_height \[7, 7\]; allowed: 1 to 1024"),
        ({"sampling_ratio": -1}, "has sampling_ratio -1; allowed: 0 to 1024"),
        ({"pool_mode": 0}, r"allowed: 1 \(average\) and 1.0"),
        ({"roi_scale_factor": 1.2}, r"allowed: 1 \(average\) and 1.0"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, Any], reason: str) -> None:
    usual: dict[str, Any] = {"featmap_strides": STRIDES, "output_height": 2, "output_width": 3}
    model = _model("MMCVMultiLevelRoiAlign", _pyramid(), **{**usual, **settings})
    with pytest.raises(UnsupportedOperatorError, match=rf"'own' .*{reason}"):
        replace_custom_sampling(PATH, model)
