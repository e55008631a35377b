"""The dot product instruction of AVX-512 BF16, ``VDPBF16PS``, as a TVM tensor intrinsic.

Sixteen float32 sums take two products each: one pair of neighbouring channels of a pixel, the same
for all, times a pair of weights for each sum. The instruction is called from a small LLVM function,
which the code generator links in and inlines: TVM has no type for its operands.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, VDPBF16PS.
"""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

# Annotations are not put off: what they name is known where a function is made, and nowhere else.

import functools
from collections.abc import Callable
from typing import Any

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

__all__ = ["BF16_DOT_LLVM", "bf16_dot", "bf16_dot_of_pairs"]

# linkonce_odr: every kernel of a library brings the function along.
BF16_DOT_LLVM = """
define linkonce_odr <16 x float> @tvmdet_bf16_dot(<16 x float> %sum, <16 x i32> %a, <16 x i32> %b)
#0 {
  %x = bitcast <16 x i32> %a to <32 x bfloat>
  %y = bitcast <16 x i32> %b to <32 x bfloat>
  %r = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
    <16 x float> %sum, <32 x bfloat> %x, <32 x bfloat> %y)
  ret <16 x float> %r
}
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)
attributes #0 = { alwaysinline nounwind "target-cpu"="x86-64-v4" "target-features"="+avx512bf16" }
"""


@functools.cache
def bf16_dot() -> str:
    """Registers the intrinsic with TVM, once per process.

    Its weights are ``[16, 2]``, uint16.

    Returns:
        Its name, for ``Schedule.tensorize``. The function around the loop must carry
        :data:`BF16_DOT_LLVM` as a ``pragma_import_llvm`` annotation.
    """
    return _registered(
        "tvmdet.x86.bf16_dot",
        ((16, 2), "uint16", "uint16x32"),
        lambda b: b[0:16, 0:2],
        lambda b, lane, half: T.shift_left(T.cast(b[lane, half], "uint32"), T.uint32(16)),
    )


@functools.cache
def bf16_dot_of_pairs() -> str:
    """Registers the same for weights ``[16]``, uint32, a pair each; see :func:`bf16_dot`."""
    return _registered(
        "tvmdet.x86.bf16_dot_of_pairs",
        ((16,), "uint32", "uint32x16"),
        lambda b: b[0:16],
        lambda b, lane, half: T.Select(
            half == 0,
            T.shift_left(b[lane], T.uint32(16)),
            T.shift_left(T.shift_right(b[lane], T.uint32(16)), T.uint32(16)),
        ),
    )


def _registered(
    name: str,
    weights: tuple[tuple[int, ...], str, str],
    whole: Callable[[Any], Any],
    bits: Callable[[Any, Any, Any], Any],
) -> str:
    """Registers an intrinsic and returns its name.

    Args:
        name: For TVM.
        weights: Their shape, their dtype, and that of all of them as one vector.
        whole: Returns all weights of a buffer.
        bits: Returns one half of one lane's weights as the bits of a float32.
    """
    shape, dtype, vector = weights
    origin = [0] * len(shape)

    # fmt: off
    @T.prim_func(s_tir=True, private=True)
    def described(
        a: T.Buffer((2,), "uint16", offset_factor=1),
        b: T.Buffer(shape, dtype, offset_factor=1),
        c: T.Buffer((16,), "float32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:2], whole(b))
            T.writes(c[0:16])
            for lane in T.serial(0, 16):
                for half in T.serial(0, 2):
                    with T.sblock("dot"):
                        vl, vh = T.axis.remap("SR", [lane, half])
                        c[vl] = c[vl] + T.reinterpret(
                            T.shift_left(T.cast(a[vh], "uint32"), T.uint32(16)), dtype="float32"
                        ) * T.reinterpret(bits(b, vl, vh), dtype="float32")

    @T.prim_func(s_tir=True, private=True)
    def implemented(
        a: T.Buffer((2,), "uint16", offset_factor=1),
        b: T.Buffer(shape, dtype, offset_factor=1),
        c: T.Buffer((16,), "float32", offset_factor=1, scope="local"),
    ) -> None:
        with T.sblock("root"):
            T.reads(c[0:16], a[0:2], whole(b))
            T.writes(c[0:16])
            pair = T.reinterpret(a.vload([0], "uint16x2"), dtype="int32")
            pairs = T.reinterpret(b.vload(origin, dtype=vector), dtype="int32x16")
            c[T.ramp(T.int32(0), 1, 16)] = T.call_pure_extern(
                "tvmdet_bf16_dot",
                c.vload([0], dtype="float32x16"),
                T.broadcast(pair, 16),
                pairs,
                dtype="float32x16",
            )
    # fmt: on

    TensorIntrin.register(name, described, implemented)
    return name
