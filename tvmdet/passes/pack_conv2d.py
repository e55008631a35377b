"""Convolutions in the form that the templates schedule: constant weights packed, one TIR function.

Dense and grouped weights become ``[OC/v, KH, KW, IC, v]`` for a vector of v lanes, so that the
innermost loop of a kernel reads one aligned vector of output channels; depthwise weights become
``[KH, KW, C]``. Output channels are padded with zeros to whole vectors, and the width of the
computed domain is given some slack, so that every tile is full: only the stores are cut to size.

Each function's main block is annotated with what it computes (``tvmdet.conv2d``), which is how a
template recognises it after fusion.

A convolution may be computed in several ways, its algorithms: directly or by Winograd's algorithm,
and with the factors of every product rounded to bfloat16 or float16, where the target's precision
allows it; in bfloat16 as products of matrix tiles where the target has them, else by Winograd's
algorithm too. Pictures are
float32 between kernels whichever is chosen, so the choice is each layer's own;
:mod:`~tvmdet.passes.store_rounded` then finds those that need not be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, te

from tvmdet.passes.amx_conv2d import amx_conv2d, pack_amx_weights
from tvmdet.passes.bf16_conv2d import bf16_conv2d, pack_bf16_weights
from tvmdet.passes.conv2d_expressions import (
    dense_anchor,
    dense_conv2d,
    depthwise_anchor,
    depthwise_conv2d,
    out_size,
)
from tvmdet.passes.conv_algorithms import (
    ALGORITHMS,
    COARSE,
    ROUNDED,
    WINOGRAD,
    WINOGRAD_BYTES_AT_MOST,
    Algorithm,
    AlgorithmName,
    ConvLayer,
    promising_algorithms,
    usual_algorithm,
)
from tvmdet.passes.fp16_conv2d import (
    MOST_PRODUCTS,
    fits_fp16,
    fp16_conv2d,
    fp16_depthwise_conv2d,
    pack_fp16_depthwise,
    pack_fp16_weights,
)
from tvmdet.passes.relax_tools import (
    constant_array,
    is_constant,
    legalize_as_usual,
    static_shape,
)
from tvmdet.passes.winograd import (
    join_phases,
    pack_plain_weights,
    pack_weights,
    split_phases,
    winograd_conv2d,
)
from tvmdet.passes.winograd_variants import WinogradVariant
from tvmdet.targets import Target

__all__ = ["Conv2dPacker"]

_OUT_ELEMENTWISE_FUSABLE = 4  # tvm::relax::OpPatternKind::kOutEWiseFusable


class Conv2dPacker:
    """Legalises ``relax.nn.conv2d`` on NHWC data with constant weights.

    Weights that several functions share (one per batch bucket) are packed once.
    """

    def __init__(self, target: Target, algorithm: Algorithm = usual_algorithm) -> None:
        """Packs for the vectors of ``target``.

        Args:
            target: Whose vectors the weights are packed for.
            algorithm: Asked for each convolution that several algorithms could compute.
        """
        self._lanes = target.vector_lanes_f32
        self._precision = target.precision
        self._has_amx = target.has_amx
        self._algorithm = algorithm
        self._packed: dict[tuple[str, str, int], Any] = {}

    def __call__(self, builder: relax.BlockBuilder, call: Any) -> Any:
        """Returns the legalised call; TVM's own where there is no packed form."""
        attrs = call.attrs
        data, weight = call.args
        if attrs.data_layout != "NHWC" or not is_constant(weight):
            return legalize_as_usual(builder, call)
        channels, filters = static_shape(data)[3], static_shape(weight)[0]
        groups = int(attrs.groups)
        if groups == channels and filters == channels:
            return self._depthwise(builder, call)
        lanes = self._lanes
        if groups > 1:
            while (filters // groups) % lanes:
                lanes //= 2
        layer = self._layer(call)
        if len(layer.possible) > 1:
            chosen = self._algorithm(layer)
            if chosen in WINOGRAD:
                anchor = ALGORITHMS[chosen] + layer.anchor
                return self._winograd(builder, call, anchor, WINOGRAD[chosen])
            if chosen == "amx":
                return self._amx(builder, call)
            if chosen == "bf16":
                return self._bf16(builder, call)
            if chosen == "fp16":
                return self._fp16(builder, call)
        return self._dense(builder, call, lanes)

    def _layer(self, call: Any) -> ConvLayer:
        data, weight = call.args
        shape, dtype = static_shape(data), str(data.ty.dtype)
        filters, kernel_h, kernel_w, depth = static_shape(weight)
        geometry = _geometry(call.attrs)
        possible: list[AlgorithmName] = ["direct"]
        in_bf16 = self._bf16_fits(call)
        if self._winograd_fits(call):
            rounds = in_bf16 and not self._has_amx
            possible += [name for name in WINOGRAD if rounds or not WINOGRAD[name].bf16]
        if in_bf16:
            possible.append("amx" if self._has_amx else "bf16")
        if self._fp16_fits(call):
            possible.append("fp16")

        def promising(names: Sequence[AlgorithmName]) -> tuple[AlgorithmName, ...]:
            return promising_algorithms(
                out_size(
                    (shape[1], shape[2]),
                    (kernel_h, kernel_w),
                    geometry["strides"],
                    geometry["padding"],
                    geometry["dilation"],
                ),
                (depth, filters),
                self._lanes,
                dilation=geometry["dilation"],
                taps=kernel_h * kernel_w,
                batch=shape[0],
                possible=names,
            )

        return ConvLayer(
            anchor=dense_anchor(shape, static_shape(weight), dtype, **geometry),
            weights_sha256=hashlib.sha256(constant_array(weight).tobytes()).hexdigest(),
            possible=tuple(possible),
            algorithms=promising(possible),
            fine=promising([name for name in possible if name not in COARSE]),
            exact=promising([name for name in possible if name not in ROUNDED]),
        )

    def _bf16_fits(self, call: Any) -> bool:
        depth = static_shape(call.args[1])[3]
        return (
            self._precision == "bf16"
            and int(call.attrs.groups) == 1
            and depth > 1
            and str(call.args[0].ty.dtype) == "float32"
        )

    def _bf16(self, builder: relax.BlockBuilder, call: Any) -> Any:
        lanes = self._lanes
        kernel = self._constant(
            "bf16", lanes, call.args[1], lambda array: pack_bf16_weights(array, lanes)
        )
        filters = static_shape(call.args[1])[0]

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return bf16_conv2d(data, packed, filters, **_geometry(call.attrs))

        return _fusable(builder, call, kernel, compute, "bf16_conv2d")

    def _amx(self, builder: relax.BlockBuilder, call: Any) -> Any:
        geometry = _geometry(call.attrs)
        dilation = geometry["dilation"]
        kernel = self._constant(
            f"amx {dilation[1]}",
            1,
            call.args[1],
            lambda array: pack_amx_weights(array, dilation),
        )
        filters, *size, _ = static_shape(call.args[1])

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return amx_conv2d(data, packed, filters, (size[0], size[1]), **geometry)

        return _fusable(builder, call, kernel, compute, "amx_conv2d")

    def _fp16_fits(self, call: Any) -> bool:
        groups, channels = int(call.attrs.groups), static_shape(call.args[0])[3]
        _, kernel_h, kernel_w, _ = static_shape(call.args[1])
        return (
            self._precision == "fp16"
            and (groups == 1 or (groups == channels and kernel_h * kernel_w <= MOST_PRODUCTS))
            and str(call.args[0].ty.dtype) == "float32"
            and fits_fp16(constant_array(call.args[1]))
        )

    def _fp16(self, builder: relax.BlockBuilder, call: Any) -> Any:
        lanes = 2 * self._lanes
        kernel = self._constant(
            "fp16", lanes, call.args[1], lambda array: pack_fp16_weights(array, lanes)
        )
        filters = static_shape(call.args[1])[0]

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return fp16_conv2d(data, packed, filters, **_geometry(call.attrs))

        return _fusable(builder, call, kernel, compute, "fp16_conv2d")

    def _winograd_fits(self, call: Any) -> bool:
        filters, kernel_h, kernel_w, depth = static_shape(call.args[1])
        plain = _geometry(call.attrs)
        return (
            (kernel_h, kernel_w) == (3, 3)
            and plain["strides"] == (1, 1)
            and plain["groups"] == 1
            and depth % self._lanes == 0
            and filters * 2 >= self._lanes
            and str(call.args[0].ty.dtype) == "float32"
        )

    def _winograd(
        self,
        builder: relax.BlockBuilder,
        call: Any,
        anchor: str,
        variant: WinogradVariant,
    ) -> Any:
        kernel = self._winograd_weights(call.args[1], variant)
        geometry, filters = _geometry(call.attrs), static_shape(call.args[1])[0]
        dilation, padding = geometry["dilation"], geometry["padding"]
        data = call.args[0]
        if dilation != (1, 1):
            phases = builder.call_te(
                split_phases, data, padding, dilation, primfunc_name_hint="split_phases"
            )
            data, padding = builder.emit(phases), (0, 0, 0, 0)
        result = builder.call_te(
            lambda data, packed: winograd_conv2d(data, packed, filters, padding, anchor, variant),
            data,
            kernel,
            primfunc_name_hint="bf16_winograd_conv2d" if variant.bf16 else "winograd_conv2d",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )
        if dilation == (1, 1):
            return result
        return builder.call_te(
            join_phases,
            builder.emit(result),
            static_shape(call),
            dilation,
            primfunc_name_hint="join_phases",
        )

    def _winograd_weights(self, weight: Any, variant: WinogradVariant) -> Any:
        filters, _, _, depth = static_shape(weight)
        if (2 if variant.bf16 else 4) * variant.edge**2 * filters * depth > WINOGRAD_BYTES_AT_MOST:
            return self._constant(
                "winograd",
                self._lanes,
                weight,
                lambda array: pack_plain_weights(array, self._lanes),
            )
        return self._constant(
            f"{'bf16 ' * variant.bf16}winograd{variant.side}",
            self._lanes,
            weight,
            lambda array: pack_weights(array, self._lanes, variant),
        )

    def _constant(self, kind: str, lanes: int, weight: Any, pack: Any) -> Any:
        array = constant_array(weight)
        digest = hashlib.sha256(array.tobytes() + repr(array.shape).encode()).hexdigest()
        key = (digest, kind, lanes)
        if key not in self._packed:
            self._packed[key] = relax.const(np.ascontiguousarray(pack(array)))
        return self._packed[key]

    def _dense(self, builder: relax.BlockBuilder, call: Any, lanes: int) -> Any:
        def pack(array: np.ndarray) -> np.ndarray:
            blocks = -(-array.shape[0] // lanes)
            padded = np.zeros((blocks * lanes, *array.shape[1:]), array.dtype)
            padded[: array.shape[0]] = array
            return padded.reshape(blocks, lanes, *array.shape[1:]).transpose(0, 2, 3, 4, 1)

        filters = static_shape(call.args[1])[0]
        kernel = self._constant("dense", lanes, call.args[1], pack)

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return dense_conv2d(data, packed, filters, **_geometry(call.attrs))

        return _fusable(builder, call, kernel, compute, "conv2d")

    def _depthwise(self, builder: relax.BlockBuilder, call: Any) -> Any:
        if self._fp16_fits(call) and self._algorithm(self._depthwise_layer(call)) == "fp16":
            return self._fp16_depthwise(builder, call)

        def pack(array: np.ndarray) -> np.ndarray:
            return array[..., 0].transpose(1, 2, 0)

        kernel = self._constant("depthwise", 1, call.args[1], pack)

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return depthwise_conv2d(data, packed, **_geometry(call.attrs))

        return _fusable(builder, call, kernel, compute, "depthwise_conv2d")

    def _depthwise_layer(self, call: Any) -> ConvLayer:
        """Returns a depthwise convolution that float16 can compute: half the vectors."""
        data, weight = call.args
        _, kernel_h, kernel_w, _ = static_shape(weight)
        geometry = {key: value for key, value in _geometry(call.attrs).items() if key != "groups"}
        shape, dtype = static_shape(data), str(data.ty.dtype)
        return ConvLayer(
            anchor=depthwise_anchor(shape, (kernel_h, kernel_w), dtype, **geometry),
            weights_sha256=hashlib.sha256(constant_array(weight).tobytes()).hexdigest(),
            possible=("direct", "fp16"),
            algorithms=("fp16", "direct"),
            fine=("fp16", "direct"),
            exact=("direct",),
        )

    def _fp16_depthwise(self, builder: relax.BlockBuilder, call: Any) -> Any:
        kernel = self._constant("fp16 depthwise", 1, call.args[1], pack_fp16_depthwise)

        def compute(data: te.Tensor, packed: te.Tensor) -> te.Tensor:
            return fp16_depthwise_conv2d(data, packed, **_geometry(call.attrs))

        return _fusable(builder, call, kernel, compute, "fp16_depthwise_conv2d")


def _fusable(builder: relax.BlockBuilder, call: Any, kernel: Any, compute: Any, name: str) -> Any:
    """Returns a call of a kernel that what follows can be fused into."""
    return builder.call_te(
        compute,
        call.args[0],
        kernel,
        primfunc_name_hint=name,
        primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
    )


def _geometry(attrs: Any) -> dict[str, Any]:
    return {
        "strides": tuple(int(v) for v in attrs.strides),
        "padding": tuple(int(v) for v in attrs.padding),
        "dilation": tuple(int(v) for v in attrs.dilation),
        "groups": int(attrs.groups),
    }
