"""RoiAlign against ONNX Runtime: every rule for regions, borders and sampling grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from assertions import assert_close
from onnx import helper
from onnx_models import Graph, run_relax, save
from relax_nets import operators

import tvmdet
from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.prove import run_onnx
from tvmdet.passes.convert_to_nhwc import ConvertToNHWC
from tvmdet.passes.lower_roi_align import LowerRoiAlign

REGIONS = 40
SIZE_HW = (9, 13)


def _model(channels: int, batch: int, **attributes: object) -> onnx.ModelProto:
    graph = Graph()
    images = graph.node("Cast", "images", to=7)
    shape = graph.constant([batch, channels, *SIZE_HW], np.int64)
    data = graph.node("Reshape", "x", shape)
    pooled = graph.node("RoiAlign", data, "rois", images, **attributes)
    made = helper.make_graph(
        graph.nodes,
        "roi_align",
        [
            helper.make_tensor_value_info("x", 1, [1, batch * channels, *SIZE_HW]),
            helper.make_tensor_value_info("rois", 1, [REGIONS, 4]),
            helper.make_tensor_value_info("images", 1, [REGIONS]),
        ],
        [helper.make_tensor_value_info(pooled, 1, None)],
        graph.weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 16)])
    model.ir_version = 8
    return model


def _regions(rng: np.random.Generator, scale: float) -> np.ndarray:
    """Inside, across each border, far outside, without area, and larger than the picture."""
    corners = rng.uniform(-4, 16, (REGIONS, 2, 2)) / scale
    rois = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    rois[0] = 0
    rois[1] = [2 / scale, 3 / scale, 2 / scale, 3 / scale]
    rois[2] = [-100 / scale, -100 / scale, 100 / scale, 100 / scale]
    rois[3] = [200, 300, 400, 500]
    rois[4] = [0, 0, SIZE_HW[1] / scale, SIZE_HW[0] / scale]
    return rois.astype(np.float32)


@pytest.mark.parametrize(
    ("mode", "scale"), [("half_pixel", 0.125), ("output_half_pixel", 0.125), ("half_pixel", 1.0)]
)
@pytest.mark.parametrize(
    ("ratio", "pooled", "channels", "batch"), [(0, (3, 2), 5, 1), (2, (7, 7), 16, 2)]
)
def test_like_onnx_runtime(
    ratio: int,
    pooled: tuple[int, int],
    channels: int,
    batch: int,
    mode: str,
    scale: float,
    tmp_path: Path,
) -> None:
    proto = _model(
        channels,
        batch,
        output_height=pooled[0],
        output_width=pooled[1],
        sampling_ratio=ratio,
        spatial_scale=scale,
        coordinate_transformation_mode=mode,
    )
    rng = np.random.default_rng(ratio)
    feed = {
        "x": rng.normal(size=(1, batch * channels, *SIZE_HW)).astype(np.float32),
        "rois": _regions(rng, scale),
        "images": rng.integers(0, batch, REGIONS).astype(np.float32),
    }
    (want,) = run_onnx(proto, [feed])[0].values()
    model = tvmdet.import_onnx(save(proto, tmp_path / "m.onnx"), raw=True)
    module = model.relax_at(1)
    for converted in (module, ConvertToNHWC()(module))[-1 if scale < 1 else 0 :]:
        lowered = LowerRoiAlign()(converted)
        assert "vision.roi_align" not in operators(lowered)
        (got,) = run_relax(lowered, *feed.values())
        assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_a_region_of_no_image_is_zero(tmp_path: Path) -> None:
    proto = _model(8, 1, output_height=2, output_width=2)
    model = tvmdet.import_onnx(save(proto, tmp_path / "m.onnx"), raw=True)
    lowered = LowerRoiAlign()(model.relax_at(1))
    rois = np.tile(np.array([0, 0, 8, 8], np.float32), (REGIONS, 1))
    images = np.arange(REGIONS, dtype=np.float32) % 3 - 1
    (got,) = run_relax(lowered, np.ones((1, 8, *SIZE_HW), np.float32), rois, images)
    assert [bool(np.any(row)) for row in got] == [image == 0 for image in images]


def test_maximum_is_named_as_blocking(tmp_path: Path) -> None:
    proto = _model(8, 1, output_height=2, output_width=2, mode="max")
    with pytest.raises(UnsupportedOperatorError, match="mode 'max' is not settled"):
        tvmdet.import_onnx(save(proto, tmp_path / "m.onnx"), raw=True)
