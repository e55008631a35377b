"""Einsum: products become ``matmul``, with the numbers of ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from onnx_models import Graph, run_relax

from tvmdet.frontend.convert_einsum import explicit_equation
from tvmdet.frontend.importer import import_relax
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.onnx_tools import name_nodes
from tvmdet.frontend.prove import run_onnx
from tvmdet.frontend.specialise import specialise

SIZES = {"b": 2, "n": 3, "q": 5, "k": 4, "d": 6, "h": 7, "w": 8, "c": 6}


@pytest.mark.parametrize(
    ("equation", "operator"),
    [
        ("bnqd,bnkd->bnqk", "matmul"),  # attention
        ("bnqk,bnkd->bnqd", "matmul"),
        ("bqc,bchw->bqhw", "matmul"),  # masks of queries
        ("bchw,bkc->bkhw", "matmul"),  # text and pictures
        ("bqnd,bknd->bnqk", "matmul"),  # heads inside
        ("qd,kd->kq", "matmul"),
        ("qd , kd", "matmul"),
        ("bqd,d->qb", "matmul"),
        ("bqd,bqd->b", "matmul"),
        ("bqh,bqd->bd", "matmul"),  # h is summed first
        ("q,k->kq", "multiply"),
        ("bq,bqd->dqb", "multiply"),
        ("qq,qd->qd", None),
        ("b...d,bd->b...", None),
        ("bqd->dqb", None),
        ("bq,qd,dk->bk", None),
    ],
)
def test_equals_onnx_runtime(equation: str, operator: str | None) -> None:
    operands = equation.partition("->")[0].replace(" ", "").split(",")
    sizes = {**SIZES, ".": 3}
    rng = np.random.default_rng(1)
    graph = Graph()
    names, shapes = [], {}
    for at, letters in enumerate(operands):
        shape = [sizes[letter] for letter in letters.replace("...", ".")]
        shapes[f"x{at}"] = tuple(shape)
        names.append(graph.node("Add", f"x{at}", graph.constant(0.25)))
    output = graph.node("Einsum", *names, equation=equation)
    model = graph.model(shapes, {output: None})
    name_nodes(model.graph)
    static = specialise(model, shapes, Limits())
    module = import_relax(static, onnx_models.OPSET)
    feeds = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    (expected,) = run_onnx(static, [feeds])
    (got,) = run_relax(module, *feeds.values())
    np.testing.assert_allclose(got, *expected.values(), rtol=1e-5, atol=1e-5)
    script = module.script()
    if operator is None:
        assert "call_tir" in script, "TVM's own"
    else:
        assert f"R.{operator}(" in script
        assert "call_tir" not in script


@pytest.mark.parametrize(
    ("given", "explicit"),
    [
        ("qd , kd", "qd,kd->kq"),
        ("b h i d, b h j d -> b h i j", "bhid,bhjd->bhij"),
        ("...kd,...d", "...kd,...d->...k"),
        ("ii", "ii->"),
    ],
)
def test_equations_are_spelt_out(given: str, explicit: str) -> None:
    assert explicit_equation(given) == explicit


def test_a_side_of_one_is_repeated() -> None:
    shapes = {"x0": (2, 1), "x1": (1, 2)}
    graph = Graph()
    names = [graph.node("Add", name, graph.constant(0.25)) for name in shapes]
    output = graph.node("Einsum", *names, equation="ab,ab->ab")
    model = graph.model(shapes, {output: [2, 2]})
    name_nodes(model.graph)
    script = import_relax(model, onnx_models.OPSET).script()
    assert "R.multiply(" not in script, "no product of what does not fit"
