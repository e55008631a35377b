"""Which layers a build takes back to float32."""

from __future__ import annotations

import dataclasses

import pytest

import tvmdet
from tvmdet.compiler.precision import SHARES_KEPT, LayerPrecision
from tvmdet.errors import TargetError
from tvmdet.passes.conv_algorithms import AlgorithmName, ConvLayer, usual_algorithm


def _layers(count: int) -> list[ConvLayer]:
    return [
        ConvLayer(
            anchor=f"conv2d {i}",
            weights_sha256=f"w{i}",
            possible=("direct", "bf16"),
            algorithms=("bf16", "direct"),
        )
        for i in range(count)
    ]


def test_the_layers_next_to_the_outputs_are_taken_back_first() -> None:
    layers = _layers(16)
    choice = LayerPrecision(usual_algorithm)
    kept = []
    for _ in choice.attempts():
        chosen = [choice(layer) for layer in layers]
        kept.append(chosen.count("direct"))
        assert chosen == ["bf16"] * (16 - kept[-1]) + ["direct"] * kept[-1]
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
    assert tried[-1][1] == ["bf16_winograd2"] * 4 + ["direct"] * 4


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
