"""The kernel of masks mixed from prototypes, in TVMScript: of the detections that there are.

Bolya et al., "YOLACT" (2019), section 3.1: a mask is the sigmoid of a weighted sum of pictures that
all detections share. There are rows for as many detections as may be, most of them empty; as a
matrix product all of them are computed.

Strategy: a block of pixels of every prototype lies in the L1 cache, and each detection's sums over
them are vectors in registers. Blocks go to threads, since there may be one detection only.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

import math
from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from tvmdet.passes.kernel_marks import mark_kernel

__all__ = ["mask_rows_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour
_PIXELS = 64  # float32: enough sums at once to hide the latency of each
_LARGEST = 88.3762626647949
_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2)
_POLYNOMIAL += (1.6666665459e-1, 5.0000001201e-1, 1.0, 1.0)


def mask_rows_func(batch: int, rows: int, count: int, pixels: int) -> tirx.PrimFunc:
    """Returns the kernel; rows past an image's number of detections are left as they are.

    Args:
        batch: Images N.
        rows: Most detections of an image, K: weights are float32 ``[N, K, P]``.
        count: Prototypes P of an image, float32 ``[N, P, pixels]``.
        pixels: Of a prototype; masks are float32 ``[N, K, pixels]``.
    """
    lanes = math.gcd(pixels, _PIXELS)
    blocks = pixels // lanes

    @T.prim_func(s_tir=True)
    def mask_rows(
        weights: T.Buffer((batch, rows, count), "float32"),
        prototypes: T.Buffer((batch, count, pixels), "float32"),
        found: T.Buffer((batch,), "int32"),
        masks: T.Buffer((batch, rows, pixels), "float32"),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        for block in T.parallel(batch * blocks):
            total = T.alloc_buffer((lanes,), "float32", scope="local")
            for k in T.serial(found[block // blocks]):
                for c in T.vectorized(lanes):
                    total[c] = T.float32(0)
                for p in T.serial(count):
                    for c in T.vectorized(lanes):
                        total[c] = (
                            total[c]
                            + weights[block // blocks, k, p]
                            * prototypes[block // blocks, p, block % blocks * lanes + c]
                        )
                for c in T.vectorized(lanes):
                    masks[block // blocks, k, block % blocks * lanes + c] = T.float32(1) / (
                        T.float32(1) + _exp(-total[c])
                    )

    return mark_kernel(mask_rows, "mask_rows", batch=batch, rows=rows, count=count, pixels=pixels)


def _exp(value: Any) -> Any:
    """Returns e to a value as plain arithmetic, which vectorises (after Cephes' ``expf``)."""
    value = T.max(T.min(value, T.float32(_LARGEST)), T.float32(-_LARGEST))
    power = T.floor(value * T.float32(1.44269504088896341) + T.float32(0.5))
    rest = value - power * T.float32(0.6931471805599453)
    result = T.float32(0)
    for factor in _POLYNOMIAL:
        result = result * rest + T.float32(factor)
    exponent = (T.cast(power, "int32") + 127) << 23
    return T.reinterpret("float32", exponent) * result
