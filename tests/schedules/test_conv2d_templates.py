"""Convolution templates against the definition, at awkward sizes, with and without epilogues."""

from __future__ import annotations

from typing import Any

import pytest
from assertions import assert_close
from conv_cases import CASES, Conv, check, every, network, some
from scheduled_kernels import Kernel, only_kernel, run_decisions
from tvmdet.schedules.common.deep_conv2d_nhwc import DEEP
from tvmdet.targets import Target


def _deep(why: str, channels: int = 2560, **more: Any) -> Conv:
    more = {"size": (4, 5), "filters": 48, **more}
    return Conv(why=why, channels=channels, kernel=(1, 1), padding=(0, 0, 0, 0), **more)


DEEP_CASES = [
    _deep("rows of a box head", size=(8, 25), filters=64, epilogue="bias relu"),
    _deep("seven times seven cells", channels=12544, size=(1, 6)),
    _deep("one row of pixels of a prime number", size=(1, 7), epilogue="residual"),
    _deep("batch 2, gated", batch=2, epilogue="gate per channel"),
    _deep("stride 2", size=(9, 8), strides=(2, 2), epilogue="two residuals"),
    _deep("one vector of filters", filters=16, epilogue="silu"),
    _deep("slices are the second guess", channels=1024),
]
NOT_SLICED = [
    _deep("filters that are no whole vectors", filters=33),
    _deep("a prime number of channels", channels=2579),
    _deep("two groups", groups=2),
    _deep("not that deep", channels=512),
]


def _sliced(kernel: Kernel) -> list[int]:
    return [i for i, d in enumerate(kernel.decisions) if d["order"] == "depth"]


@pytest.mark.parametrize("case", DEEP_CASES, ids=lambda case: case.why)
def test_deep_products_are_right_in_slices(case: Conv, target: Target) -> None:
    emit, inputs, expected, atol = network(case, "direct")
    kernel = only_kernel(emit, inputs, target)
    sliced = _sliced(kernel)
    assert (0 in sliced) == (case.channels >= DEEP) and sliced
    chosen = [kernel.decisions[i] for i in sorted({sliced[0], sliced[len(sliced) // 2]})]
    for decision, (result,) in zip(chosen, run_decisions(kernel, chosen, target), strict=True):
        assert_close(result, expected, rtol=3e-5, atol=atol, name=f"{case.why}: {decision}")


@pytest.mark.parametrize("case", NOT_SLICED, ids=lambda case: case.why)
def test_what_cannot_be_sliced_is_not(case: Conv, target: Target) -> None:
    emit, inputs, expected, atol = network(case, "direct")
    kernel = only_kernel(emit, inputs, target)
    assert not _sliced(kernel)
    ((result,),) = run_decisions(kernel, kernel.decisions[:1], target)
    assert_close(result, expected, rtol=3e-5, atol=atol)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_some_decisions_are_right(case: Conv, target: Target) -> None:
    check(case, target, some(target))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.why)
def test_every_decision_is_right(case: Conv, target: Target) -> None:
    check(case, target, every)
