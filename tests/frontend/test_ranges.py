"""Ranges that would not fit into memory are refused before anything counts them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest

from tvmdet.errors import ModelError
from tvmdet.frontend import Limits, diagnose
from tvmdet.frontend.ranges import check_ranges


def _range(start: float, limit: float, step: float, dtype: type = np.int64) -> onnx.ModelProto:
    graph = onnx_models.Graph()
    ends = [graph.constant(value, dtype) for value in (start, limit, step)]
    total = graph.node("Cast", graph.node("Range", *ends), to=onnx.TensorProto.FLOAT)
    output = graph.node("Add", "x", graph.node("ReduceSum", total, keepdims=0))
    return graph.model({"x": [1, 3, 8, 8]}, {output: None})


@pytest.mark.parametrize(
    ("start", "limit", "step"),
    [(0, 4e8, 1), (0, 2**40, 1), (0, -(2**40), -1), (0.0, 1.0, 1e-30), (0.0, math.inf, 1.0)],
)
def test_refuses_ranges_without_end(start: float, limit: float, step: float) -> None:
    dtype = np.int64 if math.isfinite(limit) and limit != 1 else np.float32
    with pytest.raises(ModelError, match=r"node 'range_0' \(Range\) counts from 0 to .*damaged"):
        check_ranges(_range(start, limit, step, dtype), Limits())


@pytest.mark.parametrize(
    ("start", "limit", "step"),
    [(0, 0, 1), (0, 10, -1), (0, 8400, 1), (0, 10, 0), (math.nan, 1, 1), (0, math.inf, math.inf)],
)
def test_takes_the_others(start: float, limit: float, step: float) -> None:
    check_ranges(_range(start, limit, step, np.float64), Limits())


def test_doctor_is_told_at_once(tmp_path: Path) -> None:
    path = onnx_models.save(_range(0, 2**40, 1), tmp_path / "m.onnx")
    began = time.process_time()
    assert "counts from 0 to 1.09951e+12" in "".join(diagnose(path).problems)
    assert time.process_time() - began < 5
