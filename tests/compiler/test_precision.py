"""Which layers a build takes back to float32."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import onnx_models
import pytest

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.compiler.precision import SHARES_KEPT, LayerPrecision
from tvmdet.errors import ParityError, TargetError
from tvmdet.passes.conv_algorithms import AlgorithmName, ConvLayer, usual_algorithm


def _layers(count: int) -> list[ConvLayer]:
    return [
        ConvLayer(
            anchor=f"conv2d {i}",
            weights_sha256=f"w{i}",
            possible=("direct", "bf16"),
            algorithms=("bf16", "direct"),
            fine=("bf16", "direct"),
            exact=("winograd4", "direct"),
        )
        for i in range(count)
    ]


def test_the_layers_next_to_the_outputs_are_taken_back_first() -> None:
    layers = _layers(16)
    choice = LayerPrecision(usual_algorithm)
    kept = []
    for _ in choice.attempts():
        chosen = [choice(layer) for layer in layers]
        kept.append(chosen.count("winograd4"))
        assert chosen == ["bf16"] * (16 - kept[-1]) + ["winograd4"] * kept[-1]
        assert choice.rounded == 16 - kept[-1]
    assert kept == [0, 2, 4, 8]
    assert len(kept) == 1 + len(SHARES_KEPT)


def test_coarse_algorithms_are_given_up_before_any_layer_is_taken_back() -> None:
    names: tuple[AlgorithmName, ...] = ("bf16_winograd4", "bf16_winograd2", "direct")
    layers = [dataclasses.replace(layer, algorithms=names, fine=names[1:]) for layer in _layers(8)]
    choice = LayerPrecision(usual_algorithm)
    tried = [(change, [choice(layer) for layer in layers]) for change in choice.attempts()]
    assert [change for change, _ in tried] == [
        "",
        "no 4x4 Winograd tiles of rounded factors",
        "1 layer in fp32",
        "2 layers in fp32",
        "4 layers in fp32",
    ]
    assert tried[0][1] == ["bf16_winograd4"] * 8
    assert tried[1][1] == ["bf16_winograd2"] * 8
    assert tried[-1][1] == ["bf16_winograd2"] * 4 + ["winograd4"] * 4


def test_a_coarse_algorithm_is_seen_behind_a_finer_one_of_the_same_weights() -> None:
    names: tuple[AlgorithmName, ...] = ("bf16_winograd4", "bf16_winograd2")
    (first,) = _layers(1)
    sizes = [dataclasses.replace(first, algorithms=(name,), fine=names[1:]) for name in names]
    choice = LayerPrecision(usual_algorithm)
    tried = [[choice(layer) for layer in sizes] for _ in choice.attempts()]
    assert tried == [["bf16_winograd4", "bf16_winograd2"], ["bf16_winograd2"] * 2]


def test_layers_that_are_faster_otherwise_are_not_counted() -> None:
    choice = LayerPrecision(lambda layer: "direct")
    assert [choice(layer) for layer in _layers(3)] == ["direct"] * 3
    assert choice.rounded == 0
    assert list(choice.attempts()) == [""]


def test_a_target_without_the_instruction_refuses() -> None:
    with pytest.raises(TargetError, match=r"x86-64-v3 cannot compute in 'bf16'; it can in fp32"):
        tvmdet.targets.get_target("x86-64-v3").at_precision("bf16")
    with pytest.raises(TargetError, match="cannot compute in 'int3'"):
        tvmdet.targets.get_target("x86-64-v4").at_precision("int3")


@pytest.mark.parametrize(
    ("layers", "fails", "said", "algorithms"),
    [
        (2, 0, [], ["bf16_winograd4"] * 2),
        (2, 1, ["no 4x4 Winograd tiles of rounded factors"], ["bf16_winograd2"] * 2),
        (
            4,
            2,
            ["no 4x4 Winograd tiles of rounded factors", "1 layer in fp32"],
            ["bf16_winograd2"] * 3 + ["winograd4"],
        ),
    ],
)
def test_a_build_that_is_too_far_off_is_made_again(
    layers: int,
    fails: int,
    said: list[str],
    algorithms: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = _fail(monkeypatch, fails)
    lines: list[str] = []
    report = _compile(layers, tmp_path, lines.append)
    assert [line.partition("ONNX Runtime: ")[2] for line in lines if "too far" in line] == said
    assert len(tried) == fails + 1 and set(tried[-1]) == set(algorithms)
    kept = sum(name.startswith("bf16") for name in algorithms)
    (member,) = Artifact.open(report.output).manifest["targets"]
    assert member["bf16_layers"] == kept


@pytest.mark.parametrize(("layers", "attempts"), [(1, 2), (4, 4), (8, 5)])
def test_a_build_that_stays_too_far_off_is_refused(
    layers: int, attempts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = _fail(monkeypatch, 99)
    with pytest.raises(ParityError, match=f"attempt {attempts}"):
        _compile(layers, tmp_path, None)
    assert len(tried) == attempts
    assert not (tmp_path / "net.tvmdet").exists()


def _fail(monkeypatch: pytest.MonkeyPatch, times: int) -> list[list[str]]:
    """Makes the first parity checks fail; returns the algorithms of each attempt's layers."""
    module = importlib.import_module("tvmdet.compiler.compile")
    tried: list[list[str]] = []

    def check(_build: Any, built: Any) -> dict[str, Any]:
        anchors = [fact["anchor"] for fact in built.kernels.facts.values()]
        tried.append([a.partition("_conv2d ")[0] for a in anchors if "_conv2d " in a])
        if len(tried) <= times:
            raise ParityError(f"attempt {len(tried)}")
        return {"skipped": "not of interest"}

    monkeypatch.setattr(module._Build, "_check", check)
    # What was measured says nothing here.
    monkeypatch.setattr(module, "measured_algorithm", lambda *_: usual_algorithm)
    return tried


def _compile(layers: int, tmp_path: Path, progress: Any) -> Any:
    graph = onnx_models.Graph()
    value = "picture"
    for _ in range(layers):
        value = graph.node("Relu", graph.conv(value, (64, 64), 3, pads=[1, 1, 1, 1]))
    proto = graph.model({"picture": [1, 64, 20, 20]}, {value: None})
    model = tvmdet.import_onnx(onnx_models.save(proto, tmp_path / "net.onnx"), raw=True)
    return tvmdet.compiler.compile(
        model,
        target="x86-64-v4",
        precision="bf16",
        output=tmp_path / "net.tvmdet",
        logs=tmp_path / "logs",
        progress=progress,
    )
