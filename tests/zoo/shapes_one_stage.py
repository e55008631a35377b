"""A small one-stage detector, built and exported like YOLOv8: anchor-free, boxes as distributions.

Its one output is ``[N, 4 + C, A]`` with decoded boxes, and its metadata are those that Ultralytics
writes. Cells are assigned to objects as in TOOD (Feng et al. 2021, section 3.2), boxes are learned
as in generalized focal loss (Li et al. 2020, section 3.2).
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import onnx
import torch
from shapes import LABELS
from shapes_data import SIZE, Batch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
BINS = 8  # a side of a box is up to BINS - 1 strides from its cell
_CHANNELS = (16, 32, 48, 64, 64)
_WIDTH = 32
_ASSIGNED = 7  # cells per object
_SCORE_POWER, _IOU_POWER = 1.0, 6.0


class ConvUnit(nn.Sequential):
    """Convolution, batch normalisation, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
        )


class Bottleneck(nn.Module):
    """Half of the channels through a 3x3 convolution, joined with the whole."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.reduce = ConvUnit(inputs, outputs // 2, 1)
        self.inner = ConvUnit(outputs // 2, outputs // 2)
        self.join = ConvUnit(outputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.reduce(features)
        return self.join(torch.cat([reduced, reduced + self.inner(reduced)], dim=1))


class Pyramid(nn.Module):
    """Backbone and top-down pathway: maps of strides 8, 16 and 32."""

    channels = _CHANNELS[2:]

    def __init__(self) -> None:
        super().__init__()
        stem, c2, c3, c4, c5 = _CHANNELS
        self.stem = nn.Sequential(ConvUnit(3, stem, 3, 2), ConvUnit(stem, c2, 3, 2))
        self.down3 = nn.Sequential(Bottleneck(c2, c2), ConvUnit(c2, c3, 3, 2), Bottleneck(c3, c3))
        self.down4 = nn.Sequential(ConvUnit(c3, c4, 3, 2), Bottleneck(c4, c4))
        self.down5 = nn.Sequential(ConvUnit(c4, c5, 3, 2), Bottleneck(c5, c5))
        self.up4, self.up3 = Bottleneck(c5 + c4, c4), Bottleneck(c4 + c3, c3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p3 = self.down3(self.stem(images))
        p4 = self.down4(p3)
        p5 = self.down5(p4)
        p4 = self.up4(torch.cat([F.interpolate(p5, scale_factor=2.0), p4], dim=1))
        p3 = self.up3(torch.cat([F.interpolate(p4, scale_factor=2.0), p3], dim=1))
        return p3, p4, p5


class OneStage(nn.Module):
    """The pyramid, and per level a branch for boxes and one for classes."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = Pyramid()
        self.boxes, self.classes = nn.ModuleList(), nn.ModuleList()
        for channels in Pyramid.channels:
            self.boxes.append(
                nn.Sequential(ConvUnit(channels, _WIDTH), nn.Conv2d(_WIDTH, 4 * BINS, 1))
            )
            self.classes.append(
                nn.Sequential(ConvUnit(channels, _WIDTH), nn.Conv2d(_WIDTH, len(LABELS), 1))
            )
            nn.init.constant_(self.classes[-1][-1].bias, -4.0)
        sides = [SIZE // stride for stride in STRIDES]
        cells = [
            torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="xy"), -1)
            for n in sides
        ]
        centers = torch.cat([grid.reshape(-1, 2) + 0.5 for grid in cells])
        strides = torch.cat(
            [torch.full((n * n, 1), s) for n, s in zip(sides, STRIDES, strict=True)]
        )
        self.register_buffer("centers", centers.float(), persistent=False)
        self.register_buffer("strides", strides.float(), persistent=False)
        self.register_buffer("bins", torch.arange(BINS).float(), persistent=False)

    def raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits of box sides ``[N, A, 4, BINS]`` and of classes ``[N, A, C]``."""
        levels = self.pyramid(images)
        sides = [head(x).flatten(2) for head, x in zip(self.boxes, levels, strict=True)]
        logits = [head(x).flatten(2) for head, x in zip(self.classes, levels, strict=True)]
        sides = torch.cat(sides, dim=2).transpose(1, 2)
        return sides.unflatten(2, (4, BINS)), torch.cat(logits, dim=2).transpose(1, 2)

    def corners(self, sides: Tensor) -> Tensor:
        """Returns boxes ``[N, A, 4]``, x1 y1 x2 y2 in pixels."""
        distances = sides.softmax(dim=-1) @ self.bins
        low, high = distances.split(2, dim=2)
        return torch.cat([self.centers - low, self.centers + high], dim=2) * self.strides

    def forward(self, images: Tensor) -> Tensor:
        sides, logits = self.raw(images)
        low, high = self.corners(sides).split(2, dim=2)
        rows = torch.cat([(low + high) / 2, high - low, logits.sigmoid()], dim=2)
        return rows.transpose(1, 2)


def build(_folder: Path) -> OneStage:
    """Returns the network, untrained."""
    return OneStage()


class TrainedPyramid(nn.Module):
    """The pyramid of the trained network in a folder, which further training does not change."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        trained = OneStage()
        trained.load_state_dict(torch.load(folder / "shapes_one_stage.pt"))
        self.pyramid = trained.pyramid.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # The statistics of its normalisation stay as they are too.
        self.pyramid.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.pyramid(images)


def loss(model: OneStage, batch: Batch) -> Tensor:
    """Returns the training loss of a batch."""
    sides, logits = model.raw(batch.images)
    corners = model.corners(sides)
    objects = max(1, max(len(boxes) for boxes in batch.boxes))
    boxes = torch.zeros(len(batch.boxes), objects, 4)
    classes = torch.zeros(len(batch.boxes), objects, dtype=torch.int64)
    real = torch.zeros(len(batch.boxes), objects, dtype=torch.bool)
    for row, (corner, ids) in enumerate(zip(batch.boxes, batch.classes, strict=True)):
        boxes[row, : len(ids)], classes[row, : len(ids)], real[row, : len(ids)] = corner, ids, True
    owner, quality = _assign(model, corners.detach(), logits.detach(), boxes, classes, real)
    total = quality.sum().clamp(min=1)
    wanted = F.one_hot(classes.gather(1, owner.clamp(min=0)), len(LABELS)) * quality[..., None]
    class_loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    chosen = owner >= 0
    target = boxes.gather(1, owner.clamp(min=0)[..., None].expand(-1, -1, 4))[chosen]
    weight = quality[chosen]
    overlap = ((1 - _generalized_iou(corners[chosen], target)) * weight).sum()
    cell = chosen.nonzero()[:, 1]
    scaled = target / model.strides[cell]
    center = model.centers[cell]
    distance = torch.cat([center - scaled[:, :2], scaled[:, 2:] - center], dim=1)
    distance = distance.clamp(0, BINS - 1.01)
    spread = (_distribution_loss(sides[chosen], distance) * weight).sum()
    return (0.5 * class_loss + 7.5 * overlap + 1.5 * spread) / total


def run(model: OneStage, image: Tensor) -> tuple[Tensor, ...]:
    """Returns the outputs of one picture ``[3, SIZE, SIZE]``, as they are exported."""
    return (model(image[None]),)


def export(model: OneStage, path: Path) -> None:
    """Writes the network as Ultralytics would."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIZE, SIZE),),
        path,
        opset_version=17,
        dynamo=False,
        input_names=["images"],
        output_names=["output0"],
    )
    written = onnx.load(path)
    metadata = {
        "task": "detect",
        "stride": str(STRIDES[-1]),
        "batch": "1",
        "imgsz": str([SIZE, SIZE]),
        "names": str(dict(enumerate(LABELS))),
    }
    onnx.helper.set_model_props(written, metadata)
    onnx.save(written, path)


def _assign(
    model: OneStage, corners: Tensor, logits: Tensor, boxes: Tensor, classes: Tensor, real: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the object of each cell ``[N, A]``, -1 for none, and the score to learn there."""
    overlap = _iou(boxes[:, :, None], corners[:, None])
    index = classes[:, :, None].expand(-1, -1, logits.shape[1])
    score = logits.sigmoid().transpose(1, 2).gather(1, index)
    center = (model.centers * model.strides)[None, None]
    offsets = torch.cat([center - boxes[:, :, None, :2], boxes[:, :, None, 2:] - center], -1)
    inside = (offsets.amin(dim=-1) > 0) & real[:, :, None]
    metric = score**_SCORE_POWER * overlap.clamp(min=0) ** _IOU_POWER * inside
    top = metric.topk(_ASSIGNED, dim=2)
    picked = torch.zeros_like(inside).scatter(2, top.indices, True) & inside
    best = torch.where(picked, overlap, -1.0).max(dim=1)
    owner = torch.where(best.values > 0, best.indices, -1)
    owned = F.one_hot(owner.clamp(min=0), boxes.shape[1]).transpose(1, 2).bool() & picked
    metric = metric * owned
    highest = metric.amax(dim=2, keepdim=True).clamp(min=1e-20)
    reach = (overlap * owned).amax(dim=2, keepdim=True)
    return owner, (metric / highest * reach).amax(dim=1) * (owner >= 0)


def _iou(a: Tensor, b: Tensor) -> Tensor:
    return _overlap(a, b)[0]


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Returns intersection over union, and the union."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1) for box in (a, b)]
    union = areas[0] + areas[1] - shared
    return shared / union.clamp(min=1e-6), union


def _generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Rezatofighi et al. 2019, algorithm 1."""
    overlap, union = _overlap(a, b)
    low, high = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    hull = (high - low).prod(dim=-1).clamp(min=1e-6)
    return overlap - (hull - union) / hull


def _distribution_loss(sides: Tensor, distance: Tensor) -> Tensor:
    low = distance.long()
    share = distance - low
    logs = sides.log_softmax(dim=-1)
    near = logs.gather(2, low[..., None])[..., 0] * (1 - share)
    far = logs.gather(2, low[..., None] + 1)[..., 0] * share
    return -(near + far).mean(dim=1)
