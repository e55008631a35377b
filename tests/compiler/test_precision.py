"""Which layers a build takes back to float32."""

from __future__ import annotations

import pytest

import tvmdet
from tvmdet.compiler.precision import SHARES_KEPT, LayerPrecision
from tvmdet.errors import TargetError
from tvmdet.passes.conv_algorithms import ConvLayer, usual_algorithm


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
    assert len(kept) == len(SHARES_KEPT)


def test_layers_that_are_faster_otherwise_are_not_counted() -> None:
    choice = LayerPrecision(lambda layer: "direct")
    assert [choice(layer) for layer in _layers(3)] == ["direct"] * 3
    assert choice.rounded == 0
    assert list(choice.attempts()) == [0.0]


def test_a_target_without_the_instruction_refuses() -> None:
    with pytest.raises(TargetError, match=r"x86-64-v3 cannot compute in 'bf16'; it can in fp32"):
        tvmdet.targets.get_target("x86-64-v3").at_precision("bf16")
    with pytest.raises(TargetError, match="cannot compute in 'int3'"):
        tvmdet.targets.get_target("x86-64-v4").at_precision("int3")
