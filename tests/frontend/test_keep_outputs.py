"""Outputs that are not wanted go, with what only they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tvmdet import untrusted
from tvmdet.errors import InputError, ShapeError
from tvmdet.frontend import import_onnx
from tvmdet.frontend.doctor import diagnose
from tvmdet.frontend.keep_outputs import keep_outputs, without
from tvmdet.frontend.load import load_onnx
from tvmdet.frontend.operators import find_blocks
from tvmdet.spec import DetectorSpec


def _value(name: str, *shape: int, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model() -> onnx.ModelProto:
    """Returns a network with a detour: ``kept`` needs one weight, ``lost`` a Loop and another."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Mul", ["sum", "second"], ["twice"]),
        ],
        "body",
        [
            _value("step", kind=TensorProto.INT64),
            _value("go", kind=TensorProto.BOOL),
            _value("sum", 1, 3, 8, 8),
        ],
        [_value("on", kind=TensorProto.BOOL), _value("twice", 1, 3, 8, 8)],
    )
    nodes = [
        helper.make_node("Mul", ["x", "first"], ["kept"]),
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["count"], to=TensorProto.INT64),
        helper.make_node("Loop", ["count", "", "kept"], ["lost"], name="turns", body=body),
        helper.make_node("Neg", ["lost"], ["lost too"]),
    ]
    weights = [
        numpy_helper.from_array(np.float32(value), name)
        for name, value in (("first", 2.0), ("second", 3.0))
    ]
    outputs = [_value(name, 1, 3, 8, 8) for name in ("lost", "kept", "lost too")]
    graph = helper.make_graph(nodes, "g", [_value("x", 1, 3, 8, 8)], outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(_model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_what_no_kept_output_needs_goes() -> None:
    model = _model()
    keep_outputs(model, ["kept"])
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Mul"]
    assert [value.name for value in model.graph.output] == ["kept"]
    assert [weight.name for weight in model.graph.initializer] == ["first"]


def test_inputs_that_only_others_need_go(tmp_path: Path) -> None:
    """Of weights that are listed among the inputs too, as before IR version 4, and of others."""
    model = _model()
    for name in ("first", "second"):
        model.graph.input.append(_value(name))
    model.graph.input.append(_value("mask", 1, 3, 8, 8))
    model.graph.node.append(helper.make_node("Mul", ["lost", "mask"], ["masked"]))
    model.graph.output.append(_value("masked", 1, 3, 8, 8))
    model.ir_version = 3
    onnx.save(model, tmp_path / "old.onnx")
    loaded = import_onnx(tmp_path / "old.onnx", raw=True, spec={"outputs": ["kept"]})
    assert (loaded.input_names, loaded.output_names) == (("x",), ("kept",))


def test_what_a_body_reads_stays_and_outputs_keep_their_order() -> None:
    model = _model()
    keep_outputs(model, ["kept", "lost"])
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Mul", "ReduceMax", "Cast", "Loop"]
    assert [value.name for value in model.graph.output] == ["lost", "kept"]
    assert {weight.name for weight in model.graph.initializer} == {"first", "second"}


def test_an_output_that_is_none_is_named_with_those_there_are(path: Path) -> None:
    with pytest.raises(InputError, match=r"'boxes'; the model has: lost, kept, lost too"):
        load_onnx(path, outputs=["kept", "boxes"])


@pytest.mark.parametrize("wrong", ["kept", [1], [""], {"kept": 1}])
def test_outputs_are_a_list_of_names(path: Path, wrong: object) -> None:
    with pytest.raises(InputError, match="give a list of the outputs to keep"):
        import_onnx(path, raw=True, spec={"outputs": wrong})


def test_what_does_without_a_node_is_said() -> None:
    graph = _model().graph
    loop = graph.node[3]
    inner = loop.attribute[0].g.node[1]
    wanted = 'or keep the outputs that do without it: outputs = ["kept"] in a spec'
    assert without(graph, [loop]) == without(graph, [inner]) == wanted
    assert without(graph, [graph.node[0]]) == ""


def test_a_node_without_a_converter_says_what_does_without_it() -> None:
    (block,) = find_blocks(_model().graph, {"Mul", "ReduceMax", "Cast", "Loop"})
    assert (block.operator, block.fix) == (
        "Neg",
        "export the model without it; or keep the outputs that do without it: "
        'outputs = ["lost", "kept"] in a spec',
    )


def test_a_network_whose_other_outputs_are_refused_is_imported(path: Path) -> None:
    with pytest.raises(ShapeError, match=r'outputs = \["kept"\] in a spec'):
        import_onnx(path, raw=True)
    model = import_onnx(path, raw=True, spec={"outputs": ["kept"]})
    assert model.output_names == ("kept",)
    assert model.spec.outputs == ("kept",)
    assert DetectorSpec.from_dict(model.spec.to_dict()) == model.spec


def test_an_error_about_a_node_crosses_to_this_process(path: Path) -> None:
    """Also where no output does without it, so that there is nothing to write."""
    spec = {"family": "raw", "outputs": ["lost"]}
    with pytest.raises(ShapeError, match="'turns'") as caught:
        untrusted.import_onnx(path, raw=True, spec=spec)
    assert "or keep" not in str(caught.value)


def test_what_may_be_bounded_is_not_counted_as_lost(tmp_path: Path) -> None:
    """The boxes of a suppression do without a node that nothing converts."""
    graph = _model().graph
    del graph.node[3:], graph.output[:]
    for name, operator in (("boxes", "TopK"), ("extra", "Det")):
        graph.node.append(helper.make_node(operator, ["x"], [name]))
        graph.output.append(_value(name))
    (block,) = find_blocks(graph, {"Mul", "ReduceMax", "Cast"}, but={"TopK"})
    assert block.fix.endswith('outputs = ["boxes"] in a spec')


def test_the_doctor_counts_the_node_that_blocks_alone(path: Path) -> None:
    found = diagnose(path, spec={"family": "raw"})
    blocked = [verdict.node for verdict in found.nodes if verdict.verdict == "blocks"]
    assert blocked == ["turns"]
    assert diagnose(path, spec={"family": "raw", "outputs": ["kept"]}).problems == ()
