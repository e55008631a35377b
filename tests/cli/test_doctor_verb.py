"""`doctor`: what reaches the function, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from recorder import Recorder

from tvmdet import untrusted
from tvmdet.contain import Bounds
from tvmdet.diagnosis import Diagnosis, NodeVerdict, Proof, Shrunk


def test_doctor_of_a_good_model(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (
        NodeVerdict(node="a", operator="Conv", verdict="imports"),
        NodeVerdict(node="b", operator="Identity", verdict="rewritten", detail="folded"),
    )
    found = Diagnosis(path="x.onnx", family="toy", size_hw=(32, 48), static=True, nodes=nodes)
    recorder = Recorder(found)
    monkeypatch.setattr(untrusted, "diagnose", recorder)
    words = ["--spec", "s.toml", "--shrink", "p.onnx", "--budget", "90s", "--save-onnx", "r.onnx"]
    done = run("doctor", "x.onnx", "--size", "32x48", "--raw", "--compare", *words)
    assert done.code == 0
    assert callable(recorder.options.pop("tell"))
    assert recorder.options == {
        "spec": Path("s.toml"),
        "size_hw": (32, 48),
        "raw": True,
        "compare": True,
        "shrink": Path("p.onnx"),
        "shrink_budget_s": 90.0,
        "save_onnx": Path("r.onnx"),
        "bounds": Bounds(timeout_s=1800.0),
    }
    assert done.out.startswith(
        "COMPILES  x.onnx\n  family toy, input 32x48 (height x width)\n\nnext: tvmdet tune"
    )
    assert "2: 1 import, 1 are rewritten, none blocks" in done.out
    assert "Identity" not in done.out
    assert "Identity" in run("doctor", "x.onnx", "-v").out
    assert "next: tvmdet tune x.onnx" in done.out
    assert json.loads(run("doctor", "x.onnx", "--json").out)["ok"] is True


def test_doctor_shows_proofs_and_what_was_compared(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = NodeVerdict(
        node="b", operator="Identity", verdict="rewritten", detail="folded", difference=2e-7
    )
    found = Diagnosis(
        path="x.onnx",
        family="toy",
        nodes=(node,),
        proofs=(Proof(rewrite="folded", differences={"y": 2e-7, "z": 0.0}, inputs=("noise",)),),
        compared={"y": 0.5, "z": 1e-7},
        problems=("the compiled network gives other values",),
        shrunk=Shrunk(summary="90 nodes to 1 (Erf)", command="tvmdet doctor p.onnx --raw"),
    )
    monkeypatch.setattr(untrusted, "diagnose", Recorder(found))
    done = run("doctor", "x.onnx", "--nodes")
    assert done.code == 1
    assert done.out.startswith("DOES NOT COMPILE  x.onnx: 1 problem\n")
    assert "by ONNX Runtime, largest difference 2.0e-07, on noise" in done.out
    assert "folded: largest difference 2.0e-07" in done.out
    assert "2 outputs: largest difference 5.0e-01 (y)" in done.out
    assert "folded, proven: largest difference 2.0e-07" in done.out
    assert "90 nodes to 1 (Erf)" in done.out
    data = json.loads(run("doctor", "x.onnx", "--json").out)
    assert data["proofs"][0]["differences"]["y"] == data["nodes"][0]["difference"] == 2e-7
    assert data["shrunk"]["command"] == "tvmdet doctor p.onnx --raw"


def test_doctor_of_a_model_that_blocks(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (NodeVerdict(node="l", operator="Loop", verdict="blocks", detail="no loops; cut it"),)
    found = Diagnosis(path="x.onnx", problems=("node 'l' (Loop) no loops; cut it",), nodes=nodes)
    monkeypatch.setattr(untrusted, "diagnose", Recorder(found))
    done = run("doctor", "x.onnx")
    assert done.code == 1
    assert "blocks: node 'l' (Loop)" in done.out
    assert done.out.startswith("DOES NOT COMPILE  x.onnx: 1 problem\n\nnext: do what")
    assert "1 block (Loop 1)" in done.out
    assert run("doctor", "x.onnx", "--json").code == 1


def test_doctor_of_a_network_of_no_family(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (NodeVerdict(node="a", operator="Conv", verdict="imports"),)
    found = Diagnosis(path="x.onnx", static=True, problems=("no known detector",), nodes=nodes)
    monkeypatch.setattr(untrusted, "diagnose", Recorder(found))
    done = run("doctor", "x.onnx", "--size", "64x96", "--spec", "mine.toml")
    assert "no known family" in done.out and "none blocks" in done.out
    assert "next: tvmdet compile x.onnx --size 64x96 --raw\n" in done.out
