"""How operators become functions for a GPU, where TVM's own expressions do not serve."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from tvm import relax, te

from tvmdet.passes.conv2d_expressions import dense_anchor, depthwise_conv2d
from tvmdet.passes.conv_algorithms import Algorithm, AlgorithmName, ConvLayer, usual_algorithm
from tvmdet.passes.cuda.products import FACTORS, batch_product, implicit_gemm, pack_matrix
from tvmdet.passes.legalize_gates import GATES
from tvmdet.passes.legalize_take import legalize_take
from tvmdet.passes.relax_tools import (
    constant_array,
    is_constant,
    legalize_as_usual,
    static_shape,
)
from tvmdet.targets import Target

__all__ = ["cuda_legalizers"]

_OUT_ELEMENTWISE_FUSABLE = 4  # tvm::relax::OpPatternKind::kOutEWiseFusable


def cuda_legalizers(target: Target, algorithm: Algorithm = usual_algorithm) -> dict[str, Any]:
    """Returns the legalisations by operator.

    Args:
        target: A GPU, and the precision that layers may have.
        algorithm: Chooses for each convolution that several algorithms could compute.
    """
    return {
        **GATES,
        "relax.nn.conv2d": CudaConv2d(target, algorithm),
        "relax.matmul": _legalize_matmul,
        "relax.take": legalize_take,
    }


class CudaConv2d:
    """Legalises ``relax.nn.conv2d`` on NHWC data with constant weights.

    Weights that several functions share (one per batch bucket) are packed once.
    """

    def __init__(self, target: Target, algorithm: Algorithm) -> None:
        """Takes the target, whose precision says which algorithms there are, and who chooses."""
        self._precision = target.precision
        self._algorithm = algorithm
        self._packed: dict[tuple[str, str], Any] = {}

    def __call__(self, builder: relax.BlockBuilder, call: Any) -> Any:
        """Returns the legalised call; TVM's own where there is no packed form."""
        attrs, (data, weight) = call.attrs, call.args
        plain = str(data.ty.dtype) == "float32" and attrs.data_layout == "NHWC"
        if not plain or not is_constant(weight):
            return legalize_as_usual(builder, call)
        channels, filters, groups = static_shape(data)[3], static_shape(weight)[0], attrs.groups
        if int(groups) == channels == filters:
            return self._depthwise(builder, call)
        if int(groups) > 1:
            return legalize_as_usual(builder, call)
        return self._dense(builder, call)

    def _dense(self, builder: relax.BlockBuilder, call: Any) -> Any:
        data, weight = call.args
        geometry = _geometry(call.attrs)
        filters, kernel_h, kernel_w, depth = static_shape(weight)
        shape = (filters, kernel_h, kernel_w, depth)
        digest = hashlib.sha256(constant_array(weight).tobytes()).hexdigest()
        pixels = math.prod(static_shape(call)[:3])
        # One row of sums would leave 15 of a tensor core's 16 idle: its tiles need more than one.
        chosen: AlgorithmName = "direct"
        if pixels > 1:
            chosen = self._choose(static_shape(data), shape, geometry, digest)
        kernel = self._constant(
            digest,
            chosen,
            weight,
            lambda array: pack_matrix(array.reshape(array.shape[0], -1).T, FACTORS[chosen]),
        )

        def compute(picture: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return implicit_gemm(picture, packed, shape, chosen, **geometry)

        return builder.call_te(
            compute,
            data,
            kernel,
            primfunc_name_hint="conv2d" if chosen == "direct" else f"{chosen}_conv2d",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )

    def _choose(
        self,
        shape: tuple[int, ...],
        weight: tuple[int, int, int, int],
        geometry: dict[str, Any],
        digest: str,
    ) -> AlgorithmName:
        if self._precision not in ("fp16", "tf32"):
            return "direct"
        rounded: AlgorithmName = "fp16" if self._precision == "fp16" else "tf32"
        layer = ConvLayer(
            anchor=dense_anchor(shape, weight, "float32", **geometry),
            weights_sha256=digest,
            possible=("direct", rounded),
            algorithms=(rounded, "direct"),
            fine=(rounded, "direct"),
            exact=("direct",),
        )
        return self._algorithm(layer)

    def _depthwise(self, builder: relax.BlockBuilder, call: Any) -> Any:
        digest = hashlib.sha256(constant_array(call.args[1]).tobytes()).hexdigest()
        kernel = self._constant(
            digest, "depthwise", call.args[1], lambda array: array[..., 0].transpose(1, 2, 0)
        )

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return depthwise_conv2d(data, packed, **_geometry(call.attrs))

        return builder.call_te(
            compute,
            call.args[0],
            kernel,
            primfunc_name_hint="depthwise_conv2d",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )

    def _constant(self, digest: str, kind: str, weight: Any, pack: Any) -> Any:
        array = constant_array(weight)
        key = (f"{digest} {array.shape}", kind)
        if key not in self._packed:
            self._packed[key] = relax.const(np.ascontiguousarray(pack(array)))
        return self._packed[key]


def _legalize_matmul(builder: relax.BlockBuilder, call: Any) -> Any:
    left, right = (static_shape(arg) for arg in call.args)
    plain = len(left) >= 2 and left[:-2] == right[:-2]
    if not plain or any(str(arg.ty.dtype) != "float32" for arg in call.args):
        return legalize_as_usual(builder, call)
    return builder.call_te(
        lambda a, b: batch_product(a, b, "direct"),
        *call.args,
        primfunc_name_hint="batch_matmul",
        primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
    )


def _geometry(attrs: Any) -> dict[str, Any]:
    return {
        "strides": tuple(int(v) for v in attrs.strides),
        "padding": tuple(int(v) for v in attrs.padding),
        "dilation": tuple(int(v) for v in attrs.dilation),
        "groups": int(attrs.groups),
    }
