"""What a rewrite or a proof raises is an error of the model, and no work is done twice."""

from __future__ import annotations

import pickle
import sys
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

# The package exports the function under the module's name.
prove_rows_module = sys.modules["tvmdet.frontend.bounded.prove_rows"]


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


def _count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """Returns a list that grows by each call of a module's function."""
    real, calls = getattr(module, name), list[str]()

    def counted(*args: Any, **more: Any) -> Any:
        calls.append(name)
        return real(*args, **more)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_relax_is_imported_once_for_a_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = _count(monkeypatch, network_module, "import_relax")
    graph = onnx_models.Graph()
    model = graph.model({"x": ["n", 3, 8, 8]}, {graph.node("Relu", "x"): None})
    path = onnx_models.save(model, tmp_path / "m.onnx")
    network = Network(load_onnx(path), None, Limits())
    first = network.relax_at(1)
    assert network.relax_at(1) is first
    assert len(calls) == 1
    assert network.relax_at(2)["main"].params[0].ty.shape[0] == 2
    again = pickle.loads(pickle.dumps(network))  # to another process, without TVM's objects
    assert len(calls) == 2
    assert again.relax_at(1)["main"].params[0].ty.shape[0] == 1
    calls.clear()
    diagnose(path, spec={"family": "raw"}, dry_run=lambda model: model.relax_at(1))
    assert len(calls) == 1  # what the doctor looked at is what is lowered


def test_a_proof_loads_each_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _count(monkeypatch, prove_rows_module, "prepare_onnx")
    graph = onnx_models.Graph()
    rows = graph.node("Transpose", graph.node("NonZero", graph.node("Relu", "x")), perm=[1, 0])
    output = graph.node("Cast", rows, to=onnx.TensorProto.FLOAT)
    loaded = load_onnx(
        onnx_models.save(graph.model({"x": [4, 4]}, {output: None}), tmp_path / "m.onnx")
    )
    network = Network(loaded, None, Limits())
    network.at(4)
    assert len(network.proofs[-1].inputs) > 2
    assert len(calls) == 2
