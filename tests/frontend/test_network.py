"""Whatever a graph makes a rewrite or a proof raise, it is an error of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest

from tvmdet.errors import InputError, ModelError
from tvmdet.frontend import Limits, diagnose
from tvmdet.frontend import network as network_module
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.network import Network


def _mistyped_loop() -> onnx.ModelProto:
    """A convolution with whole numbers as its bias, which the checker passes, before a loop."""
    graph = onnx_models.Graph()
    weight = graph.constant(np.ones((4, 3, 1, 1)), np.float32)
    state = graph.node("Conv", "x", weight, graph.constant([-1, 0, 0, 0], np.int64))
    body = onnx.parser.parse_graph(
        "body (int64 step, bool go, float[a,b,c,d] state)"
        " => (bool go_on, float[a,b,c,d] state_out)"
        " { go_on = Identity (go) state_out = Relu (state) }"
    )
    output = graph.node(
        "Loop", graph.constant(3, np.int64), graph.constant(True, np.bool_), state, body=body
    )
    return graph.model({"x": [1, 3, 8, 8]}, {output: None})


def test_node_that_breaks_the_standard_is_named(tmp_path: Path) -> None:
    loaded = load_onnx(onnx_models.save(_mistyped_loop(), tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"node 'conv_\d' \(Conv\).*tensor\(int64\)") as raised:
        Network(loaded, None, Limits()).at(1)
    assert type(raised.value.__cause__).__name__ == "ValidationError"
    (problem, *_) = diagnose(tmp_path / "m.onnx").problems
    assert "(Conv)" in problem


@pytest.mark.parametrize("step", ["input_shapes", "specialise", "prove_batch"])
def test_anything_raised_is_an_error_of_the_model(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("boxes")

    graph = onnx_models.Graph()
    model = graph.model({"x": ["n", 3, 8, 8]}, {graph.node("Relu", "x"): None})
    loaded = load_onnx(onnx_models.save(model, tmp_path / "m.onnx"))
    monkeypatch.setattr(network_module, step, fail)
    with pytest.raises(
        ModelError, match=r"cannot be made static: KeyError: 'boxes'.*report"
    ) as got:
        Network(loaded, None, Limits()).at(2)
    assert isinstance(got.value.__cause__, KeyError)


def test_our_own_errors_pass_as_they_are(tmp_path: Path) -> None:
    loaded = load_onnx(onnx_models.save(_mistyped_loop(), tmp_path / "m.onnx"))
    with pytest.raises(InputError, match="batch size is 0"):
        Network(loaded, None, Limits()).at(0)
