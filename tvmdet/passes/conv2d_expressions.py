"""Direct convolutions on NHWC data with packed weights, as tensor expressions.

The width of the computed domain is given some slack, so that every tile is full: only the stores
are cut to size. Each main block carries what it computes as an annotation.
"""

from __future__ import annotations

from typing import Any

from tvm import te, topi

__all__ = [
    "WIDTH_SLACK",
    "cut_to_shape",
    "dense_anchor",
    "dense_conv2d",
    "depthwise_anchor",
    "depthwise_conv2d",
    "out_size",
    "pad_picture",
]

# No template's tile is wider than this and one.
WIDTH_SLACK = 31


def dense_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    filters: int,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    """Returns the tensor expression of a dense or grouped convolution.

    Args:
        data: ``[N, H, W, C]``.
        packed: ``[ceil(OC/v), KH, KW, C/groups, v]``.
        filters: OC.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: Groups of channels; OC/groups is a multiple of v when there are several.
    """
    batch, height, width, _ = (int(d) for d in data.shape)
    blocks, kernel_h, kernel_w, depth, lanes = (int(d) for d in packed.shape)
    out_h, out_w = out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    padded = pad_picture(data, padding, strides)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    ic = te.reduce_axis((0, depth), name="ic")
    per_group = filters // groups

    def product(n: Any, h: Any, w: Any, c: Any) -> Any:
        channel = ic if groups == 1 else c // per_group * depth + ic
        picture = padded[
            n, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], channel
        ]
        return te.sum(picture * packed[c // lanes, kh, kw, ic, c % lanes], axis=[kh, kw, ic])

    anchor = dense_anchor(
        (batch, height, width, int(data.shape[3])),
        (filters, kernel_h, kernel_w, depth),
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    flop = 2 * batch * out_h * out_w * filters * kernel_h * kernel_w * depth
    conv = te.compute(
        (batch, out_h, out_w + WIDTH_SLACK, blocks * lanes),
        product,
        name="conv2d",
        attrs={"tvmdet.conv2d": anchor, "tvmdet.flop": flop, "tvmdet.lanes": lanes},
    )
    return cut_to_shape(conv, (batch, out_h, out_w, filters))


def dense_anchor(
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    dtype: str,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> str:
    """Returns a convolution of NHWC data with OHWI weights as one line of text."""
    batch, height, width, channels = shape
    return (
        f"conv2d n{batch} h{height} w{width} c{channels} oc{weight[0]} "
        f"k{weight[1]}x{weight[2]} s{strides[0]}x{strides[1]} p{'.'.join(map(str, padding))} "
        f"d{dilation[0]}x{dilation[1]} g{groups} {dtype}"
    )


def depthwise_conv2d(
    data: te.Tensor,
    packed: te.Tensor,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> te.Tensor:
    """Returns the tensor expression of a depthwise convolution with one filter per channel.

    Args:
        data: ``[N, H, W, C]``.
        packed: ``[KH, KW, C]``.
        strides: Vertical and horizontal.
        padding: Top, left, bottom, right.
        dilation: Vertical and horizontal.
        groups: C.
    """
    batch, height, width, channels = (int(d) for d in data.shape)
    kernel_h, kernel_w, _ = (int(d) for d in packed.shape)
    out_h, out_w = out_size((height, width), (kernel_h, kernel_w), strides, padding, dilation)
    padded = pad_picture(data, padding, strides)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")

    def product(n: Any, h: Any, w: Any, c: Any) -> Any:
        picture = padded[n, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], c]
        return te.sum(picture * packed[kh, kw, c], axis=[kh, kw])

    anchor = depthwise_anchor(
        (batch, height, width, channels),
        (kernel_h, kernel_w),
        str(data.dtype),
        strides=strides,
        padding=padding,
        dilation=dilation,
    )
    flop = 2 * batch * out_h * out_w * channels * kernel_h * kernel_w
    conv = te.compute(
        (batch, out_h, out_w + WIDTH_SLACK, channels),
        product,
        name="depthwise_conv2d",
        attrs={"tvmdet.depthwise_conv2d": anchor, "tvmdet.flop": flop},
    )
    return cut_to_shape(conv, (batch, out_h, out_w, groups))


def depthwise_anchor(
    shape: tuple[int, ...],
    kernel: tuple[int, int],
    dtype: str,
    *,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> str:
    """Returns a depthwise convolution of NHWC data as one line of text."""
    batch, height, width, channels = shape
    return (
        f"depthwise_conv2d n{batch} h{height} w{width} c{channels} k{kernel[0]}x{kernel[1]} "
        f"s{strides[0]}x{strides[1]} p{'.'.join(map(str, padding))} d{dilation[0]}x{dilation[1]} "
        f"{dtype}"
    )


def out_size(
    size: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """Returns height and width of the result."""
    top, left, bottom, right = padding
    height = size[0] + top + bottom - (kernel[0] - 1) * dilation[0] - 1
    width = size[1] + left + right - (kernel[1] - 1) * dilation[1] - 1
    return height // strides[0] + 1, width // strides[1] + 1


def pad_picture(
    data: te.Tensor, padding: tuple[int, int, int, int], strides: tuple[int, int]
) -> te.Tensor:
    """Returns a picture with its zeros around it, and the slack of its width."""
    top, left, bottom, right = padding
    slack = WIDTH_SLACK * strides[1]
    return topi.nn.pad(data, (0, top, left, 0), (0, bottom, right + slack, 0), name="pad")


def cut_to_shape(conv: te.Tensor, shape: tuple[int, ...]) -> te.Tensor:
    """Returns a result without the slack of its width and the padding of its channels."""
    return te.compute(shape, lambda *i: conv(*i), name="cut")
