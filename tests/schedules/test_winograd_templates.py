"""Winograd's convolutions against the definition, of float32 and of bfloat16 products."""

from __future__ import annotations

import pytest
import tvm
from assertions import assert_close
from conv_cases import (
    DILATED_WINOGRAD_CASES,
    WINOGRAD_CASES,
    Conv,
    check,
    compiled,
    every,
    network,
    some,
    template_of,
)
from scheduled_kernels import kernels_of, only_kernel, run_decisions
from tvmdet.targets import Target, get_target

from tvmdet.passes import pack_conv2d
from tvmdet.passes.conv_algorithms import WINOGRAD, AlgorithmName, ConvLayer

IN_FLOAT32 = [name for name, variant in WINOGRAD.items() if not variant.bf16]
IN_BF16 = [name for name, variant in WINOGRAD.items() if variant.bf16]
# A product of two sums has an error of its own at each value: it is tested in float32.
BF16_CASES = [case for case in WINOGRAD_CASES if case.epilogue != "two residuals"]


@pytest.mark.parametrize("algorithm", IN_FLOAT32)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=lambda case: case.why)
def test_winograd_is_right(case: Conv, algorithm: str, target: Target) -> None:
    check(case, target, some(target), algorithm)


def test_winograd_of_a_batch_has_short_indices(target: Target) -> None:
    """The rows of a slab were a minimum of dozens of terms once, and took minutes to compile."""
    case = Conv(why="slabs of several pictures", size=(40, 40), channels=64, filters=64, batch=4)
    emit, inputs, *_ = network(case, "winograd6")
    kernel = only_kernel(emit, inputs, target, "winograd6")
    for decision in [d for d in kernel.decisions if d["rows"] == 1][:4]:
        scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
        for name in ("PlanAndUpdateBufferAllocationLocation", "ConvertBlocksToOpaque"):
            module = getattr(tvm.s_tir.transform, name)()(module)
        compacted = tvm.s_tir.transform.CompactBufferAllocation()(module)
        assert compacted.script().count("T.min(") < 20, str(decision)


@pytest.mark.parametrize("algorithm", IN_FLOAT32)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=lambda case: case.why)
def test_winograd_of_plain_weights_is_right(
    case: Conv, algorithm: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large weights are not transformed before the kernel runs."""
    monkeypatch.setattr(pack_conv2d, "WINOGRAD_BYTES_AT_MOST", 0)
    check(case, target, some(target), algorithm)


@pytest.mark.parametrize("algorithm", IN_FLOAT32)
@pytest.mark.parametrize("case", DILATED_WINOGRAD_CASES, ids=lambda case: case.why)
def test_dilated_winograd_is_right(case: Conv, algorithm: str, target: Target) -> None:
    _check_dilated(case, algorithm, target)


@pytest.mark.parametrize("case", DILATED_WINOGRAD_CASES, ids=lambda case: case.why)
def test_dilated_winograd_in_bf16_is_right(case: Conv, bf16_target: Target) -> None:
    _check_dilated(case, "bf16_winograd4", bf16_target)


def _check_dilated(case: Conv, algorithm: str, target: Target) -> None:
    emit, inputs, expected, atol = network(case, algorithm)
    split, winograd, join = kernels_of(emit, inputs, target, algorithm)
    assert winograd.template.name == template_of(case, algorithm)
    phases = case.dilation[0] * case.dilation[1] * case.batch
    assert winograd.outputs[0][0][0] == phases, "every d-th pixel is a picture"
    made = inputs[0]
    for kernel in (split, winograd, join):
        ((made,),) = run_decisions(kernel, kernel.decisions[-1:], target, {0: made})
    assert_close(made, expected, rtol=3e-5, atol=atol, name=case.why)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", IN_FLOAT32)
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=lambda case: case.why)
def test_every_winograd_decision_is_right(case: Conv, algorithm: str, target: Target) -> None:
    check(case, target, every, algorithm)


@pytest.mark.parametrize("algorithm", IN_BF16)
@pytest.mark.parametrize("case", BF16_CASES, ids=lambda case: case.why)
def test_winograd_in_bf16_is_right(case: Conv, algorithm: str, bf16_target: Target) -> None:
    check(case, bf16_target, some(bf16_target), algorithm)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", IN_BF16)
@pytest.mark.parametrize("case", BF16_CASES, ids=lambda case: case.why)
def test_every_decision_of_winograd_in_bf16_is_right(
    case: Conv, algorithm: str, bf16_target: Target
) -> None:
    """TVM's own checks are off there: what it would refuse must not be among the decisions."""
    check(case, bf16_target, every, algorithm)


@pytest.mark.parametrize("case", BF16_CASES[1::6], ids=lambda case: case.why)
def test_winograd_in_bf16_is_compiled_where_it_cannot_run(case: Conv) -> None:
    target = get_target("x86-64-v4").at_precision("bf16")
    compiled(case, target, "bf16_winograd4")


def test_winograd_in_bf16_is_left_to_tiles_where_there_are_any() -> None:
    emit, inputs, *_ = network(WINOGRAD_CASES[0], "direct")
    seen: list[ConvLayer] = []

    def choose(layer: ConvLayer) -> AlgorithmName:
        seen.append(layer)
        return "direct"

    for name, offered in (("x86-64-v4", True), ("sapphirerapids", False)):
        kernels_of(emit, inputs, get_target(name).at_precision("bf16"), choose)
        assert (set(IN_BF16) <= set(seen[-1].possible)) == offered


@pytest.mark.parametrize("algorithm", IN_BF16)
@pytest.mark.parametrize("case", BF16_CASES[1::4], ids=lambda case: case.why)
def test_winograd_of_plain_weights_in_bf16_is_right(
    case: Conv, algorithm: str, bf16_target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_conv2d, "WINOGRAD_BYTES_AT_MOST", 0)
    check(case, bf16_target, some(bf16_target), algorithm)
