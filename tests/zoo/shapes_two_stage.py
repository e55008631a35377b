"""A small Mask R-CNN of torchvision, exported whole: proposals, suppression and pasted masks.

The detector is torchvision's own class around the backbone of the one-stage network, which is
trained first and stays as it is. torchvision's operators come with a C++ library that may not fit
the torch that is installed: training uses plain ones from here, the export those that torchvision
writes as ONNX operators.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from shapes import LABELS
from shapes_data import SIZE, Batch
from shapes_one_stage import Pyramid, TrainedPyramid
from torch import Tensor, nn
from torchvision_beside_torch import import_torchvision

torchvision = import_torchvision()
from torchvision.models.detection import MaskRCNN  # noqa: E402
from torchvision.models.detection.anchor_utils import AnchorGenerator  # noqa: E402
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead  # noqa: E402
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor  # noqa: E402
from torchvision.models.detection.rpn import RPNHead  # noqa: E402
from torchvision.ops import MultiScaleRoIAlign  # noqa: E402

OUTPUTS = ("boxes", "labels", "scores", "masks")
_CLASSES = len(LABELS) + 1  # the first is the background
_WIDTH, _HIDDEN, _MASK_WIDTH = 32, 64, 24
_LEVELS = ("0", "1")
_SIZES = ((14, 24), (40, 60))
_RATIOS = ((0.75, 1.33),) * len(_SIZES)


class Backbone(nn.Module):
    """Maps of strides 8 and 16 of the one-stage network as it was trained, made narrower."""

    out_channels = _WIDTH

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.pyramid = TrainedPyramid(folder)
        self.narrow = nn.ModuleList(nn.Conv2d(n, _WIDTH, 1) for n in Pyramid.channels[:2])

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        maps = self.pyramid(images)[:2]
        return OrderedDict(
            (level, narrow(features))
            for level, narrow, features in zip(_LEVELS, self.narrow, maps, strict=True)
        )


def build(folder: Path) -> nn.Module:
    """Returns the network; its backbone is that of the one-stage network in the same folder."""
    anchors = AnchorGenerator(_SIZES, _RATIOS)
    return MaskRCNN(
        Backbone(folder),
        min_size=SIZE,
        max_size=SIZE,
        # The backbone has seen pictures from 0 to 1.
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(_WIDTH, anchors.num_anchors_per_location()[0]),
        rpn_pre_nms_top_n_train=80,
        rpn_pre_nms_top_n_test=80,
        rpn_post_nms_top_n_train=64,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=64,
        box_roi_pool=MultiScaleRoIAlign(_LEVELS, 7, 2, canonical_scale=48, canonical_level=4),
        box_head=TwoMLPHead(_WIDTH * 7 * 7, _HIDDEN),
        box_predictor=FastRCNNPredictor(_HIDDEN, _CLASSES),
        box_batch_size_per_image=32,
        box_positive_fraction=0.4,
        box_detections_per_img=20,
        mask_roi_pool=MultiScaleRoIAlign(_LEVELS, 14, 2, canonical_scale=48, canonical_level=4),
        mask_head=MaskRCNNHeads(_WIDTH, (_MASK_WIDTH, _MASK_WIDTH), 1),
        mask_predictor=MaskRCNNPredictor(_MASK_WIDTH, _MASK_WIDTH, _CLASSES),
    )


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Returns the training loss of a batch."""
    targets = [
        {"boxes": boxes, "labels": classes + 1, "masks": masks.to(torch.uint8)}
        for boxes, classes, masks in zip(batch.boxes, batch.classes, batch.masks, strict=True)
    ]
    with _plain_operators():
        losses = model(list(batch.images), targets)
    return sum(losses.values())


def run(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """Returns the outputs of one picture ``[3, SIZE, SIZE]``, as they are exported."""
    (found,) = model([image])
    return tuple(found[name] for name in OUTPUTS)


def export(model: nn.Module, path: Path) -> None:
    """Writes the network as torchvision's users do: one picture without a batch dimension."""
    from shapes_data import Pool

    # Traced on a picture with objects: the loop over pasted masks is recorded with one at least.
    example = Pool(4).batch(1).images[0]
    torch.onnx.export(
        model,
        ([example],),
        path,
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=list(OUTPUTS),
    )


@contextmanager
def _plain_operators() -> Iterator[None]:
    """Lets torchvision compute with operators that have gradients and need no library."""
    with (
        mock.patch("torchvision.ops.boxes.nms", _suppress),
        mock.patch("torchvision.ops.poolers.roi_align", _pool),
        mock.patch("torchvision.models.detection.roi_heads.roi_align", _pool),
    ):
        yield


def _suppress(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression on a table of overlaps, best score first."""
    order = scores.argsort(descending=True, stable=True)
    corners = boxes[order].detach().numpy()
    low = np.maximum(corners[:, None, :2], corners[None, :, :2])
    high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    areas = np.diagonal(shared)
    overlaps = shared / (areas[:, None] + areas[None, :] - shared) > iou_threshold
    alive, kept = np.ones(len(order), bool), []
    for index in range(len(order)):
        if alive[index]:
            kept.append(index)
            alive &= ~overlaps[index]
    return order[torch.tensor(kept, dtype=torch.int64)]


def _pool(
    features: Tensor,
    boxes: Tensor,
    output_size: tuple[int, int] | int,
    spatial_scale: float = 1.0,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign (He et al. 2017, section 3) of ``[K, 5]`` regions, by bilinear sampling of rows."""
    height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
    ratio = max(sampling_ratio, 2)
    shift = 0.5 if aligned else 0.0
    low = boxes[:, 1:3] * spatial_scale - shift
    sides = boxes[:, 3:5] * spatial_scale - shift - low
    sides = sides if aligned else sides.clamp(min=1.0)
    x, y = (
        low[:, axis, None]
        + sides[:, axis, None] * (torch.arange(count * ratio) + 0.5) / (count * ratio)
        for axis, count in ((0, width), (1, height))
    )
    image = boxes[:, 0].long()[:, None, None]
    channels_last = features.permute(0, 2, 3, 1)
    total = 0
    for rows, row_share in _neighbours(y, features.shape[2]):
        for columns, column_share in _neighbours(x, features.shape[3]):
            share = row_share[:, :, None] * column_share[:, None, :]
            picked = channels_last[image, rows[:, :, None], columns[:, None, :]]
            total = total + picked * share[..., None]
    return nn.functional.avg_pool2d(total.permute(0, 3, 1, 2), ratio)


def _neighbours(position: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Returns the pixels below and above each position, with their shares."""
    inside = ((position >= -1) & (position <= count)).float()
    position = position.clamp(0, count - 1)
    below = position.floor()
    share = position - below
    above = (below + 1).clamp(max=count - 1)
    return [(below.long(), (1 - share) * inside), (above.long(), share * inside)]
