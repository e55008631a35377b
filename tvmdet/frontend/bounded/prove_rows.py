"""The proof of a bounded network: the same rows, as many, in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx

from tvmdet.errors import ModelError
from tvmdet.frontend.bounded.bound import Bounded, bound_shapes
from tvmdet.frontend.bounded.lower_thresholds import lower_thresholds
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.prove import TOLERANCE, Proof, differences, prepare_onnx, probes

__all__ = ["BOUNDED", "prove_rows"]

BOUNDED = "sizes that depend on the image bounded, rows that are not real masked"
# Pairs of a random and a smooth picture; more are tried while no row was seen at all.
_FEWEST, _MOST = 2, 6


def prove_rows(
    before: onnx.ModelProto,
    bounded: Bounded,
    limits: Limits,
    known: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({}),
) -> Proof:
    """Measures how far the real rows of a bounded network are from those of the original.

    Besides random and smooth pictures both run on a black one, which usually has no object. A
    network that gives no row on any of them is compared again with its thresholds lowered.

    Args:
        before: The network with open sizes, its inputs static.
        bounded: The rewritten one.
        limits: What it was bounded by.
        known: What ``before`` gave on probes that it ran on already, by their names.

    Raises:
        ModelError: An output has other rows, or rows past the last that are not zero; or the
            original runs on no probe.
    """
    largest = dict.fromkeys((value.name for value in before.graph.output), 0.0)
    seen = _prove_on_probes(before, bounded, largest, known)
    described = [_described(inputs, rows, bounded) for inputs, rows in seen.items()]
    if bounded.opened and not any(seen.values()):
        lowered = lower_thresholds(before)
        again = {}
        if lowered is not None:
            again = _prove_on_probes(lowered, bound_shapes(lowered, limits), largest, {})
        described += [f"thresholds of 0, {_described(*one, bounded)}" for one in again.items()]
        if not any(again.values()):
            described.append("no row was ever seen: check the compiled file on pictures of yours")
    return Proof(
        rewrite="; ".join((BOUNDED, *bounded.notes)), differences=largest, inputs=tuple(described)
    )


def _described(inputs: str, rows: int | None, bounded: Bounded) -> str:
    if rows is None:
        return f"{inputs}: skipped, ONNX Runtime cannot run the export on it"
    return f"{inputs}: {rows} rows" if bounded.opened else inputs


def _prove_on_probes(
    before: onnx.ModelProto,
    bounded: Bounded,
    largest: dict[str, float],
    known: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, int | None]:
    """Compares both on every probe; returns the rows of each, None where the original fails."""
    seen: dict[str, int | None] = {}
    run_before, run_bounded = _prepared(before), prepare_onnx(bounded.model)
    for seed in range(_MOST):
        feeds = probes(bounded.model, seed)
        if seed == 0:
            first = next(iter(feeds.values()))
            feeds["black"] = {name: np.zeros_like(value) for name, value in first.items()}
        for inputs, feed in feeds.items():
            expected = known.get(inputs) or run_before(feed)
            if expected is None:
                seen[inputs] = None
                continue
            got = run_bounded(feed)
            seen[inputs] = _compare(inputs, expected, got, bounded, list(largest), largest)
        if seed + 1 >= _FEWEST and (any(seen.values()) or not bounded.opened):
            break
    if all(rows is None for rows in seen.values()):
        raise ModelError(
            "ONNX Runtime runs the export on no random or smooth picture, so that bounding its "
            "sizes cannot be proven; check the export with ONNX Runtime"
        )
    return seen


def _prepared(
    model: onnx.ModelProto,
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray] | None]:
    """Loads the original; runs give None where it fails, as some do on an empty picture.

    Raises:
        ModelError: ONNX Runtime cannot load it.
    """
    run = prepare_onnx(model)

    def attempt(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        try:
            return run(feed)
        except ModelError:
            return None

    return attempt


def _compare(
    inputs: str,
    expected: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    bounded: Bounded,
    names: list[str],
    largest: dict[str, float],
) -> int:
    """Compares one run, keeps the largest differences, and returns the rows of it."""
    real, rows = {}, 0
    for name in names:
        value = got[name]
        for axis, counter in bounded.opened.get(name, {}).items():
            count = int(got[counter][0])
            wanted = expected[name].shape[axis] if expected[name].ndim > axis else -1
            if min(wanted, value.shape[axis]) != count or wanted > value.shape[axis]:
                raise _differs(
                    name,
                    inputs,
                    f"{count} of at most {value.shape[axis]} rows instead of {wanted}; raise "
                    "Limits.max_rows where that is what bounds them",
                )
            value, past = np.split(value, [count], axis=axis)
            if past.any():
                raise _differs(name, inputs, "rows past the last that are not zero")
            rows = max(rows, count)
        real[name] = value
    for name, difference in differences(expected, real, names).items():
        if not difference <= TOLERANCE:
            amount = "infinite" if math.isinf(difference) else f"{difference:.3g}"
            raise _differs(
                name, inputs, f"a relative difference of {amount}, allowed {TOLERANCE:g}"
            )
        largest[name] = max(largest[name], difference)
    return rows


def _differs(name: str, inputs: str, how: str) -> ModelError:
    return ModelError(
        f"bounding the sizes that depend on the image changed output {name!r}: on {inputs} it has "
        f"{how}; this model cannot be used safely: please report it"
    )
