"""The templates of x86 CPUs: what is common to CPUs under x86 names, and bfloat16."""

from __future__ import annotations

from typing import ClassVar, Final

from tvmdet.schedules.base import Template
from tvmdet.schedules.common.attention import Attention
from tvmdet.schedules.common.batch_matmul import BatchMatmul
from tvmdet.schedules.common.conv2d_nhwc import Conv2dNhwc
from tvmdet.schedules.common.depthwise_conv2d_nhwc import DepthwiseConv2dNhwc
from tvmdet.schedules.common.depthwise_pointwise_nhwc import DepthwisePointwiseNhwc
from tvmdet.schedules.common.winograd_conv2d_nhwc import WinogradConv2dNhwc
from tvmdet.schedules.x86.amx_conv2d_nhwc import AmxConv2dNhwc
from tvmdet.schedules.x86.bf16_conv2d_nhwc import Bf16Conv2dNhwc
from tvmdet.schedules.x86.bf16_winograd_conv2d_nhwc import Bf16WinogradConv2dNhwc

__all__ = ["X86_TEMPLATES"]


class X86Conv2dNhwc(Conv2dNhwc):
    """Direct convolution: a pixel is broadcast by the load."""

    name: ClassVar[str] = "x86.conv2d_nhwc"


class X86WinogradConv2dNhwc(WinogradConv2dNhwc):
    """Fused Winograd convolution."""

    name: ClassVar[str] = "x86.winograd_conv2d_nhwc"


class X86DepthwiseConv2dNhwc(DepthwiseConv2dNhwc):
    """Depthwise convolution."""

    name: ClassVar[str] = "x86.depthwise_conv2d_nhwc"


class X86DepthwisePointwiseNhwc(DepthwisePointwiseNhwc):
    """Depthwise and pointwise convolution in one kernel."""

    name: ClassVar[str] = "x86.depthwise_pointwise_nhwc"
    pointwise: ClassVar[tuple[Conv2dNhwc, ...]] = (X86Conv2dNhwc(), Bf16Conv2dNhwc())


class X86BatchMatmul(BatchMatmul):
    """Products of two matrices, many at a time."""

    name: ClassVar[str] = "x86.batch_matmul"


class X86Attention(Attention):
    """Attention in one kernel."""

    name: ClassVar[str] = "x86.attention"


X86_TEMPLATES: Final[tuple[Template, ...]] = (
    X86Conv2dNhwc(),
    X86WinogradConv2dNhwc(),
    Bf16Conv2dNhwc(),
    Bf16WinogradConv2dNhwc(),
    AmxConv2dNhwc(),
    X86DepthwiseConv2dNhwc(),
    X86DepthwisePointwiseNhwc(),
    X86BatchMatmul(),
    X86Attention(),
)
"""In the order in which they are asked."""
