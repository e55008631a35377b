"""Transformed weights of Winograd's products are asked for ahead; plain ones and ARM's are not."""

from __future__ import annotations

import re

import pytest
from conv_cases import Conv, network
from scheduled_kernels import build, only_kernel
from tvmdet.targets import get_target

from tvmdet.passes import pack_conv2d

CASE = Conv(why="a block of weights is a page", size=(20, 20), channels=64, filters=64)
_PREFETCH = re.compile(r"\tprefetch(t[012]|nta)\t(?P<place>.*)")


def _asked(name: str, algorithm: str, precision: str = "fp32") -> list[str]:
    """What the kernels of two decisions ask for, in the order of their code."""
    target = get_target(name).at_precision(precision)
    emit, inputs, *_ = network(CASE, algorithm)
    kernel = only_kernel(emit, inputs, target, algorithm)
    funcs = [
        kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        for decision in kernel.decisions[:2]
    ]
    code = build(funcs, target).inspect_source("asm")
    return [found[0] for found in map(_PREFETCH.match, code.splitlines()) if found]


@pytest.mark.parametrize(
    ("name", "algorithm", "precision"),
    [
        ("x86-64-v4", "winograd4", "fp32"),
        ("x86-64-v3", "winograd2", "fp32"),
        ("x86-64-v4", "bf16_winograd4", "bf16"),
    ],
)
def test_transformed_weights_are_asked_for(name: str, algorithm: str, precision: str) -> None:
    asked = _asked(name, algorithm, precision)
    assert asked and all(one.startswith("\tprefetcht1") for one in asked), "into L2"


def test_what_the_kernel_transforms_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_conv2d, "WINOGRAD_BYTES_AT_MOST", 0)
    assert not _asked("x86-64-v4", "winograd4")


@pytest.mark.parametrize("algorithm", ["direct", "winograd4"])
def test_nothing_else_is(algorithm: str) -> None:
    name = "x86-64-v4" if algorithm == "direct" else "cortex-a76"
    assert not _asked(name, algorithm)
