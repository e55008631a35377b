"""Shrinking: a fault of one converter ends in a few nodes that hold nothing of the user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import numpy_helper
from tvm import relax

from tvmdet.compiler import shrink as shrinking
from tvmdet.compiler.checkup import examine
from tvmdet.compiler.part_of_onnx import anonymous, halved, take_part, with_random_weights
from tvmdet.compiler.shrink import DIFFERS, Failure, shrink
from tvmdet.frontend import converters
from tvmdet.frontend.onnx_tools import constants_of, name_nodes


def _network() -> onnx.ModelProto:
    """A chain with a branch, in which one node is a HardSwish."""
    graph = onnx_models.Graph()
    value = graph.conv("secret input", (3, 8), 3, pads=[1, 1, 1, 1], strides=[2, 2])
    for _ in range(3):
        value = graph.node("Relu", graph.conv(value, (8, 8), 3, pads=[1, 1, 1, 1]))
    left = graph.node("Sigmoid", graph.conv(value, (8, 8), 1))
    gated = graph.node("HardSwish", graph.node("Add", value, left))
    right = graph.node("MaxPool", gated, kernel_shape=[2, 2], strides=[2, 2])
    for _ in range(3):
        right = graph.node("Tanh", graph.conv(right, (8, 8), 1))
    flat = graph.node("Reshape", right, graph.constant([1, 8, -1], np.int64))
    output = graph.node("Transpose", flat, perm=[0, 2, 1])
    model = graph.model({"secret input": [1, 3, 32, 32]}, {output: None}, metadata={"who": "me"})
    name_nodes(model.graph)
    return onnx.shape_inference.infer_shapes(model)


class _Wrong(converters._HardSwish):
    """What the test breaks: 3 percent too much."""

    @classmethod
    def _impl_v14(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        right = bb.normalize(super()._impl_v14(bb, inputs, attr, params))
        return relax.op.multiply(right, relax.const(1.03, "float32"))


class _Failing(converters._HardSwish):
    """What the test breaks: it cannot be converted."""

    @classmethod
    def _impl_v14(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        raise ValueError("no such luck in the year 2026")


def _weights(model: onnx.ModelProto) -> list[bytes]:
    arrays = [numpy_helper.to_array(tensor) for tensor in constants_of(model.graph).values()]
    return [array.tobytes() for array in arrays if array.dtype.kind == "f" and array.size > 1]


def _small_network() -> onnx.ModelProto:
    graph = onnx_models.Graph()
    gated = graph.node("HardSwish", graph.conv("secret input", (3, 8), 1))
    output = graph.conv(gated, (8, 4), 1)
    return graph.model({"secret input": [1, 3, 4, 4]}, {output: None})


@pytest.mark.parametrize(
    ("wrong", "make"),
    [
        (_Wrong, _small_network),
        pytest.param(_Wrong, _network, marks=pytest.mark.slow),
        (_Failing, _network),
    ],
)
def test_faulty_converter_is_found(
    wrong: type,
    make: Callable[[], onnx.ModelProto],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(converters.OWN_CONVERTERS, "HardSwish", wrong)
    path, part = tmp_path / "m.onnx", tmp_path / "part.onnx"
    original = make()
    onnx_models.save(original, path)
    found = examine(path, raw=True, shrink_to=part, shrink_budget_s=600)
    assert found.shrunk is not None, found.problems
    assert found.shrunk.operators == ("HardSwish",)
    assert found.shrunk.complete
    assert found.shrunk.command == f"tvmdet doctor {part} --raw --compare"
    data = part.read_bytes()
    for bytes_of_weight in _weights(original):
        assert bytes_of_weight not in data
        assert bytes_of_weight[:16] not in data
    assert b"secret" not in data
    again = examine(part, raw=True, compare=True)
    assert not again.ok
    if wrong is _Failing:
        assert "no such luck" in found.shrunk.failure
        assert "no such luck" in "".join(again.problems)
    else:
        assert again.compared is not None
        assert max(again.compared.values()) == pytest.approx(0.03, rel=0.05)
        (small,) = onnx.load(part).graph.input
        assert [dim.dim_value for dim in small.type.tensor_type.shape.dim] == [1, 1, 1, 1]


def test_healthy_network_has_nothing_to_shrink(tmp_path: Path) -> None:
    path, part = tmp_path / "m.onnx", tmp_path / "part.onnx"
    graph = onnx_models.Graph()
    output = graph.node("Relu", graph.conv("x", (3, 4), 1))
    onnx_models.save(graph.model({"x": [1, 3, 8, 8]}, {output: None}), path)
    found = examine(path, raw=True, shrink_to=part)
    assert found.ok
    assert found.shrunk is not None
    assert "nothing to shrink" in found.shrunk.summary
    assert not part.exists()


def _pretend(shows: Callable[[list[str]], bool]) -> Callable[..., Failure | None]:
    """Stands in for compiling: a network fails when its operators are as told."""

    def find(model: onnx.ModelProto, opset: int, seed: int = 0) -> Failure | None:
        operators = [node.op_type for node in model.graph.node]
        return Failure(kind=DIFFERS, detail="it differs") if shows(operators) else None

    return find


@pytest.mark.parametrize(
    ("needed", "left"),
    [
        (["Tanh"], ["Tanh"]),
        (["HardSwish", "Transpose"], ["HardSwish", "Transpose"]),
        (["Relu", "Relu", "Sigmoid"], ["Relu", "Relu", "Sigmoid"]),
    ],
)
def test_search_keeps_what_the_failure_needs(
    needed: list[str], left: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shows(operators: list[str]) -> bool:
        return all(operators.count(name) >= needed.count(name) for name in needed)

    monkeypatch.setattr(shrinking, "find_failure", _pretend(shows))
    parts = [shrink(_network(), onnx_models.OPSET, budget_s=600) for _ in range(2)]
    assert parts[0] is not None
    assert parts[1] is not None
    assert sorted(node.op_type for node in parts[0].model.graph.node) == sorted(left)
    assert parts[0].model == parts[1].model
    assert parts[0].attempts == parts[1].attempts < 100


def test_spent_budget_ends_with_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrinking, "find_failure", _pretend(lambda names: "Tanh" in names))
    times = iter(range(1000))
    network = _network()
    part = shrink(network, onnx_models.OPSET, budget_s=4, clock=lambda: float(next(times)))
    assert part is not None
    assert not part.complete
    assert 1 < len(part.model.graph.node) <= len(network.graph.node)


def test_failure_that_needs_the_weights_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrinking, "find_failure", _pretend(lambda _: False))
    assert shrink(_network(), onnx_models.OPSET, budget_s=60) is None


def test_random_weights_keep_what_says_what_is_computed() -> None:
    graph = onnx_models.Graph()
    kept = {
        graph.constant(6.0),
        graph.constant([1, 8, -1], np.int64),
        graph.constant(np.ones((8, 1, 1))),
        graph.constant(np.zeros((0, 4))),
    }
    changed = {graph.constant(graph.rng.uniform(0.1, 2, (8, 4))), graph.constant([-1.5, np.nan, 3])}
    names = [*kept, *changed]
    for name in names:
        graph.node("Identity", name)
    model = graph.model({"x": [1]}, {"identity_0": None})
    one, two = with_random_weights(model, 0), with_random_weights(model, 0)
    assert one == two
    before, after = constants_of(model.graph), constants_of(one.graph)
    for name in names:
        same = before[name].raw_data == after[name].raw_data
        assert same == (name in kept)
        if name in changed:
            old, new = (numpy_helper.to_array(c[name]) for c in (before, after))
            assert new.shape == old.shape
            assert np.nanmin(old) * 0.9 - 0.2 <= new.min() <= new.max() <= np.nanmax(old) * 1.1


def test_parts_run_alone() -> None:
    network = _network()
    part = take_part(network, [3, 4, 11])
    onnx.checker.check_model(part, full_check=True)
    assert [value.name for value in part.graph.input] == ["relu_2", "hardswish_10"]
    assert len(part.graph.output) == 2
    smaller = halved(part, 3)
    assert smaller is not None
    dims = [d.dim_value for d in smaller.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 8, 16, 8]
    assert halved(part, 4) is None
    bare = anonymous(part)
    onnx.checker.check_model(bare, full_check=True)
    assert {value.name for value in bare.graph.input} == {"v0", "v1"}
