"""Which layers of a build round the factors of their products, and which are kept in float32.

A build that may use bfloat16, float16 or tf32 takes it wherever the tuning records say that it is
fastest. When the result is further from ONNX Runtime than its tolerance allows, first the algorithm
that loses most is given up, Winograd's 4x4 tiles of rounded factors; then layers are taken back to
float32, those nearest to the outputs first: what they round goes to boxes and scores without
passing through anything else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from tvmdet.counted import counted
from tvmdet.passes.conv_algorithms import COARSE, ROUNDED, Algorithm, AlgorithmName, ConvLayer

__all__ = ["SHARES_KEPT", "LayerPrecision"]

SHARES_KEPT = (0.125, 0.25, 0.5)
"""Shares of the rounded layers that are taken back, one attempt after the other."""


class LayerPrecision:
    """Chooses algorithms as another choice does, but for what was too far from ONNX Runtime.

    Attributes:
        kept: Hashes of the weights of the layers kept in float32 that would not be otherwise.
    """

    def __init__(self, choose: Algorithm) -> None:
        """Wraps the choice by speed."""
        self._choose = choose
        # By weights: layers of several sizes may share them.
        self._rounded: dict[str, set[AlgorithmName]] = {}
        self._fine = False
        self.kept: frozenset[str] = frozenset()

    def __call__(self, layer: ConvLayer) -> AlgorithmName:
        """Returns the algorithm of a layer."""
        if self._fine:
            layer = dataclasses.replace(layer, algorithms=layer.fine)
        chosen = self._choose(layer)
        if chosen not in ROUNDED:
            return chosen
        self._rounded.setdefault(layer.weights_sha256, set()).add(chosen)
        if layer.weights_sha256 not in self.kept:
            return chosen
        return self._choose(dataclasses.replace(layer, algorithms=layer.exact))

    @property
    def rounded(self) -> int:
        """Layers whose factors are rounded."""
        return len(self._rounded) - len(self.kept)

    def attempts(self) -> Iterator[str]:
        """Yields what each attempt computes with more precision, nothing at first.

        Between two of them the network must be lowered with this choice.
        """
        yield ""
        if any(not COARSE.isdisjoint(chosen) for chosen in self._rounded.values()):
            self._fine = True
            self._rounded.clear()
            yield "no 4x4 Winograd tiles of rounded factors"
        for share in SHARES_KEPT:
            layers = list(self._rounded)
            kept = frozenset(layers[len(layers) - round(share * len(layers)) :])
            if kept != self.kept and kept:
                self.kept = kept
                yield f"{counted(len(kept), 'layer')} in fp32"
