"""A wrong rewrite is refused, whatever it gets wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx_models import Graph
from rows import chosen, ints, make

from tvmdet.errors import ModelError, ShapeError
from tvmdet.frontend import import_onnx
from tvmdet.frontend.bounded import bound_shapes, prove_rows
from tvmdet.frontend.bounded.rewriter import RULES, Rewriter
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.prove import prove_equal


def _detector() -> onnx.ModelProto:
    """The best four bright pixels of a picture, at any place."""
    graph = Graph()
    pixels = graph.node("Reshape", "images", ints(graph, -1))
    bright = chosen(graph, pixels, 0.6)
    values = graph.node("Gather", pixels, bright)
    k = graph.node("Min", graph.node("Shape", values), ints(graph, 4))
    best = graph.node("TopK", values, k, outputs=2, axis=0)
    places = graph.node("Gather", bright, f"{best}.1")
    return make(graph, [best, places], {"images": [1, 3, 8, 8]})


def test_proof_says_how_many_rows_it_saw() -> None:
    model = _detector()
    proof = prove_rows(model, bound_shapes(model, Limits()), Limits())
    assert proof.largest == 0.0
    assert "random values (seed 0): 4 rows" in proof.inputs
    assert "black: 0 rows" in proof.inputs


def test_runs_that_were_made_are_not_made_again() -> None:
    model = _detector()
    bounded = bound_shapes(model, Limits())
    known: dict[str, dict[str, np.ndarray]] = {}
    prove_equal("nothing", model, model, [v.name for v in model.graph.output], known.__setitem__)
    assert list(known) == ["random values (seed 0)", "smooth shapes (seed 0)"]
    assert prove_rows(model, bounded, Limits(), known) == prove_rows(model, bounded, Limits())
    best = model.graph.output[0].name
    known["random values (seed 0)"][best] = known["random values (seed 0)"][best] + 1.0
    with pytest.raises(ModelError, match=r"random values \(seed 0\)"):
        prove_rows(model, bounded, Limits(), known)


def _unsure_detector(threshold: float) -> onnx.ModelProto:
    """Pixels that are brighter than any pixel is."""
    graph = Graph()
    pixels = graph.node("Reshape", "images", ints(graph, -1))
    faint = graph.node("Mul", pixels, graph.constant(0.01))
    places = chosen(graph, faint, threshold)
    return make(graph, [graph.node("Gather", pixels, places)], {"images": [1, 3, 8, 8]})


def test_thresholds_are_lowered_where_no_row_was_seen() -> None:
    model = _unsure_detector(0.9)
    proof = prove_rows(model, bound_shapes(model, Limits()), Limits())
    assert "random values (seed 0): 0 rows" in proof.inputs
    rows = [line for line in proof.inputs if line.startswith("thresholds of 0, random")]
    assert rows and not any(line.endswith(" 0 rows") for line in rows)
    assert not any("no row was ever seen" in line for line in proof.inputs)


def test_a_proof_without_rows_says_so() -> None:
    model = _unsure_detector(3.0)
    proof = prove_rows(model, bound_shapes(model, Limits()), Limits())
    assert any("no row was ever seen" in line for line in proof.inputs)


def _poison_smallest(rw: Rewriter, node: onnx.NodeProto, inputs: list) -> list:
    flipped = onnx.NodeProto()
    flipped.CopyFrom(node)
    flipped.attribute.append(onnx.helper.make_attribute("largest", 0))
    return _TOP_K(rw, flipped, inputs)


def _poison_all_real(rw: Rewriter, node: onnx.NodeProto, inputs: list) -> list:
    values, places = _TOP_K(rw, node, inputs)
    every = rw.symbol(rw.emit.constant(np.ones(4), np.bool_), prefix=True)
    return [rw.value(value.name, [every]) for value in (values, places)]


def _poison_fixed(rw: Rewriter, node: onnx.NodeProto, inputs: list) -> list:
    return [rw.plain(value.name) for value in _TOP_K(rw, node, inputs)]


_TOP_K = RULES["TopK"]


@pytest.mark.parametrize("poison", [_poison_smallest, _poison_all_real, _poison_fixed])
def test_poisoned_rule_is_refused(
    poison: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = onnx_models.save(_detector(), tmp_path / "m.onnx")
    model = import_onnx(path, raw=True)
    assert len(model.network.proofs) == 2
    monkeypatch.setitem(RULES, "TopK", poison)
    with pytest.raises(ModelError, match="bounding the sizes that depend on the image changed"):
        import_onnx(path, raw=True)


def test_bound_that_cuts_rows_names_the_limit() -> None:
    graph = Graph()
    model = make(
        graph,
        [chosen(graph, graph.node("Reshape", "x", ints(graph, -1)), 0.2)],
        {"x": [1, 3, 8, 8]},
    )
    with pytest.raises(ModelError, match=r"3 of at most 3 rows instead of .*Limits\.max_rows"):
        prove_rows(model, bound_shapes(model, Limits(max_rows=3)), Limits(max_rows=3))


def test_network_imports_at_its_own_batch_only(tmp_path: Path) -> None:
    model = import_onnx(onnx_models.save(_detector(), tmp_path / "m.onnx"), raw=True)
    assert model.output_names[-1].endswith(".rows")
    with pytest.raises(ShapeError, match="chooses its boxes itself"):
        model.onnx_at(2)


def test_compiled_network_gives_the_same_rows(tmp_path: Path) -> None:
    model = import_onnx(onnx_models.save(_detector(), tmp_path / "m.onnx"), raw=True)
    rng = np.random.default_rng(5)
    pictures = [rng.random((1, 3, 8, 8), np.float32), np.full((1, 3, 8, 8), 0.1, np.float32)]
    pictures[1][0, 1, 3, 4] = 0.9
    from tvmdet.frontend.prove import run_onnx

    for picture in pictures:
        (expected,) = run_onnx(model.onnx_at(1), [{"images": picture}])
        got = onnx_models.run_relax(model.relax_at(1), picture)
        for wanted, value in zip(expected.values(), got, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-6)
