"""The ways to compute a convolution, and who chooses one for each layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmName", "ConvLayer", "usual_algorithm"]

AlgorithmName: TypeAlias = Literal["direct", "winograd", "bf16"]

ALGORITHMS: dict[AlgorithmName, str] = {"direct": "", "winograd": "winograd_", "bf16": "bf16_"}
"""What each algorithm puts before the anchor of the direct convolution ("conv2d n1 h80 ...")."""


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """One convolution of a network, as the choice of its algorithm sees it.

    Attributes:
        anchor: Its shape as one line of text.
        weights_sha256: Of its weights: tells layers of one shape apart, and buckets do not.
        algorithms: Those that can compute it.
    """

    anchor: str
    weights_sha256: str
    algorithms: tuple[AlgorithmName, ...]


# Which algorithm computes a convolution.
Algorithm: TypeAlias = Callable[[ConvLayer], AlgorithmName]


def usual_algorithm(layer: ConvLayer) -> AlgorithmName:
    """Returns what was fastest on most layers measured: Winograd, then bfloat16, then direct."""
    preferred: tuple[AlgorithmName, ...] = ("winograd", "bf16", "direct")
    return next(name for name in preferred if name in layer.algorithms)
