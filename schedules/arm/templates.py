"""The templates of ARM CPUs: what is common to CPUs, with products by lane, and float16."""

from __future__ import annotations

from typing import ClassVar, Final

from tvmdet.schedules.arm.by_lane import ByLane
from tvmdet.schedules.arm.fp16 import ArmFp16Conv2dNhwc, ArmFp16DepthwiseConv2dNhwc
from tvmdet.schedules.base import Template
from tvmdet.schedules.common.attention import Attention
from tvmdet.schedules.common.batch_matmul import BatchMatmul
from tvmdet.schedules.common.conv2d_nhwc import Conv2dNhwc
from tvmdet.schedules.common.depthwise_conv2d_nhwc import DepthwiseConv2dNhwc
from tvmdet.schedules.common.depthwise_pointwise_nhwc import DepthwisePointwiseNhwc
from tvmdet.schedules.common.winograd_conv2d_nhwc import WinogradConv2dNhwc

__all__ = ["ARM_TEMPLATES"]


class ArmConv2dNhwc(ByLane, Conv2dNhwc):
    """Direct convolution with products by lane; 3 input channels are broadcast."""

    name: ClassVar[str] = "arm.conv2d_nhwc"


class ArmWinogradConv2dNhwc(ByLane, WinogradConv2dNhwc):
    """Fused Winograd convolution whose matrix products go by lane."""

    name: ClassVar[str] = "arm.winograd_conv2d_nhwc"


class ArmDepthwiseConv2dNhwc(DepthwiseConv2dNhwc):
    """Depthwise convolution: vectors times vectors, which NEON does as x86."""

    name: ClassVar[str] = "arm.depthwise_conv2d_nhwc"


class ArmDepthwisePointwiseNhwc(DepthwisePointwiseNhwc):
    """Depthwise and pointwise convolution in one kernel, the second by lane."""

    name: ClassVar[str] = "arm.depthwise_pointwise_nhwc"
    pointwise: ClassVar[tuple[Conv2dNhwc, ...]] = (ArmConv2dNhwc(),)


class ArmBatchMatmul(ByLane, BatchMatmul):
    """Products of two matrices, many at a time, by lane."""

    name: ClassVar[str] = "arm.batch_matmul"


class ArmAttention(ByLane, Attention):
    """Attention in one kernel, its products by lane."""

    name: ClassVar[str] = "arm.attention"


ARM_TEMPLATES: Final[tuple[Template, ...]] = (
    ArmConv2dNhwc(),
    ArmWinogradConv2dNhwc(),
    ArmFp16Conv2dNhwc(),
    ArmFp16DepthwiseConv2dNhwc(),
    ArmDepthwiseConv2dNhwc(),
    ArmDepthwisePointwiseNhwc(),
    ArmBatchMatmul(),
    ArmAttention(),
)
"""In the order in which they are asked."""
