"""The ways to compute a convolution, and who chooses one for each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from tvmdet.passes.winograd_variants import BF16_F2, BF16_F4, F2, F4, F6, WinogradVariant

__all__ = [
    "ALGORITHMS",
    "COARSE",
    "ROUNDED",
    "WINOGRAD",
    "WINOGRAD_BYTES_AT_MOST",
    "Algorithm",
    "AlgorithmName",
    "ConvLayer",
    "promising_algorithms",
    "usual_algorithm",
]

AlgorithmName: TypeAlias = Literal[
    "direct",
    "winograd2",
    "winograd4",
    "winograd6",
    "bf16",
    "bf16_winograd2",
    "bf16_winograd4",
    "amx",
    "fp16",
    "tf32",
]

ALGORITHMS: dict[AlgorithmName, str] = {
    "direct": "",
    "winograd2": "winograd2_",
    "winograd4": "winograd4_",
    "winograd6": "winograd6_",
    "bf16": "bf16_",
    "bf16_winograd2": "bf16_winograd2_",
    "bf16_winograd4": "bf16_winograd4_",
    "amx": "amx_",
    "fp16": "fp16_",
    "tf32": "tf32_",
}
"""What each algorithm puts before the anchor of the direct convolution ("conv2d n1 h80 ...")."""


WINOGRAD: dict[AlgorithmName, WinogradVariant] = {
    "winograd2": F2,
    "winograd4": F4,
    "winograd6": F6,
    "bf16_winograd2": BF16_F2,
    "bf16_winograd4": BF16_F4,
}
"""The tiles of each Winograd algorithm."""

ROUNDED: frozenset[AlgorithmName] = frozenset(
    {"bf16", *(name for name, variant in WINOGRAD.items() if variant.bf16), "amx", "fp16", "tf32"}
)
"""The algorithms that round the factors of their products."""

COARSE: frozenset[AlgorithmName] = frozenset({"bf16_winograd4"})
"""Those of them whose error is several times that of direct products of rounded factors, on data
without structure (:mod:`tvmdet.passes.winograd_variants`)."""

WINOGRAD_BYTES_AT_MOST = 4 * 2**20
"""Of a layer's transformed Winograd weights; greater ones would come from memory, not from a shared
cache, so that the kernel reads plain ones and transforms them itself."""

_BYTES_PER_CYCLE = 8
"""From beyond L2, a core."""


class _Costs(NamedTuple):
    """Cycles of Winograd beside its products, of one vector; a cycle multiplies one.

    Attributes:
        transform: Of a tile's elements, into or out of the products' form, their load and store
            too, by the tile's edge.
        weights: Of the transform of weights that are kept plain; None where reading as many bytes
            as they have transformed takes as long.
    """

    transform: Mapping[int, float]
    weights: float | None = None


_WIDE = _Costs(transform={4: 6, 6: 6, 8: 6})
# By the lanes of a vector. Those of four are fitted to the cycles that are predicted of the default
# schedules of 18 layers on a Cortex-A76 and a Cortex-A72 (docs/arm.md): the narrower a vector, the
# more of them a transform takes, and 64 elements of a tile do not fit 32 registers.
_COSTS = {4: _Costs(transform={4: 8, 6: 8, 8: 12}, weights=8)}

_BF16_SPEED = 1.8
"""Of bfloat16 dot products, compared with float32."""

_AMX_SPEED = 8.0
"""Of products of bfloat16 matrix tiles, compared with float32: half of their peak."""

_FP16_SPEED = 1.8
"""Of float16 vectors, compared with float32, by the instructions of a convolution: twice the lanes,
less the conversions."""

_HOPELESS = 1.3
"""Times the least estimate: beyond it a Winograd algorithm is not tried."""

_MOST_WINOGRAD = 2
"""Of one precision."""


@dataclass(frozen=True, kw_only=True)
class ConvLayer:
    """One convolution of a network, as the choice of its algorithm sees it.

    Attributes:
        anchor: Its shape as one line of text.
        weights_sha256: Of its weights: tells layers of one shape apart, and buckets do not.
        possible: The algorithms that can compute it.
        algorithms: Those of them that may be the fastest, the most promising first.
        fine: Those that may be the fastest of the ones that are not coarse.
        exact: Those that may be the fastest of the ones that round no factors.
    """

    anchor: str
    weights_sha256: str
    possible: tuple[AlgorithmName, ...]
    algorithms: tuple[AlgorithmName, ...]
    fine: tuple[AlgorithmName, ...]
    exact: tuple[AlgorithmName, ...]

    @property
    def compared(self) -> tuple[AlgorithmName, ...]:
        """The algorithms that are measured, for the fastest to be taken.

        Matrix tiles are not compared: they multiply several times as fast as the others, and what
        a kernel takes by itself does not show what its neighbours save by pictures in 16 bits.
        """
        return ("amx",) if "amx" in self.algorithms else self.algorithms


# Which algorithm computes a convolution.
Algorithm: TypeAlias = Callable[[ConvLayer], AlgorithmName]


def usual_algorithm(layer: ConvLayer) -> AlgorithmName:
    """Returns what should be the fastest, without a measurement."""
    return layer.algorithms[0]


def promising_algorithms(
    pixels_hw: tuple[int, int],
    channels: tuple[int, int],
    lanes: int,
    *,
    dilation: tuple[int, int],
    taps: int,
    batch: int,
    possible: Sequence[AlgorithmName],
) -> tuple[AlgorithmName, ...]:
    """Returns the algorithms that may be the fastest for a convolution, the best guess first.

    Guesses count the multiplications, the transforms and the weights, which come from memory.

    Args:
        pixels_hw: Height and width of the result.
        channels: Of the picture (per group) and of the result.
        lanes: Floats of a vector.
        dilation: Vertical and horizontal.
        taps: Elements of a filter, per channel.
        batch: Pictures.
        possible: Those that can compute it.
    """
    depth, filters = channels
    height, width = pixels_hw
    costs = _COSTS.get(lanes, _WIDE)
    weight_bytes = 4 * depth * filters
    multiplied = batch * height * width * taps * depth * filters / lanes
    cycles: dict[AlgorithmName, float] = {
        "direct": multiplied + taps * weight_bytes / _BYTES_PER_CYCLE
    }
    if "bf16" in possible:
        cycles["bf16"] = multiplied / _BF16_SPEED + taps * weight_bytes / 2 / _BYTES_PER_CYCLE
    if "amx" in possible:
        cycles["amx"] = multiplied / _AMX_SPEED + taps * weight_bytes / 2 / _BYTES_PER_CYCLE
    if "fp16" in possible:
        cycles["fp16"] = multiplied / _FP16_SPEED + taps * weight_bytes / 2 / _BYTES_PER_CYCLE
    winograd: dict[AlgorithmName, float] = {}
    for name in (name for name in WINOGRAD if name in possible):
        variant = WINOGRAD[name]
        speed, size = (_BF16_SPEED, 2) if variant.bf16 else (1.0, 4)
        down, across = (
            _tiles(pixels, step, variant.side)
            for pixels, step in zip(pixels_hw, dilation, strict=True)
        )
        elements = variant.edge**2
        transforms = elements * (depth + filters) * costs.transform[variant.edge]
        products = elements * depth * filters / speed
        held = size * elements * depth * filters
        weights = held / _BYTES_PER_CYCLE
        if costs.weights is not None and held > WINOGRAD_BYTES_AT_MOST:
            weights = elements * depth * filters / lanes * costs.weights
        winograd[name] = batch * down * across * (products + transforms) / lanes + weights
    best = min([*cycles.values(), *winograd.values()])
    for bf16 in (False, True):
        kind = [name for name in winograd if WINOGRAD[name].bf16 == bf16]
        for name in sorted(kind, key=winograd.__getitem__)[:_MOST_WINOGRAD]:
            if winograd[name] < _HOPELESS * best:
                cycles[name] = winograd[name]
    return tuple(sorted(cycles, key=cycles.__getitem__))


def _tiles(pixels: int, dilation: int, side: int) -> int:
    """Returns the tiles along one axis: those of every picture of each ``dilation``-th pixel."""
    return dilation * -(-pixels // (dilation * side))
