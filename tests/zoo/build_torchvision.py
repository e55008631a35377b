"""torchvision's own detectors, whole: normalisation, resizing, anchors, suppression and all.

The classes are torchvision's, with narrow backbones to keep the files small; nothing in them is
changed for the export.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from built import SEED, Arrays, Built, Candidates
from drawn import PICTURES, draw
from seeded import bias_for_count, randomise, scale_outputs
from torch import Tensor, nn
from torchvision_beside_torch import import_torchvision

torchvision = import_torchvision()
from torchvision.models.detection import (  # noqa: E402
    FCOS,
    FasterRCNN,
    MaskRCNN,
    RetinaNet,
    ssd300_vgg16,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection._utils import BoxCoder  # noqa: E402
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator  # noqa: E402
from torchvision.models.detection.backbone_utils import BackboneWithFPN  # noqa: E402
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead  # noqa: E402
from torchvision.models.detection.image_list import ImageList  # noqa: E402
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor  # noqa: E402
from torchvision.models.detection.ssd import SSD  # noqa: E402
from torchvision.models.resnet import BasicBlock  # noqa: E402
from torchvision.ops.boxes import clip_boxes_to_image  # noqa: E402
from torchvision.ops.feature_pyramid_network import (  # noqa: E402
    ExtraFPNBlock,
    LastLevelMaxPool,
    LastLevelP6P7,
)

__all__ = ["NETWORKS"]

CLASSES = 7
RAW_OUTPUTS = ("cls_logits", "bbox_regression", "bbox_ctrness")


@dataclass(frozen=True, kw_only=True)
class _Last:
    """The last layers of a detector.

    Attributes:
        scores: Those whose outputs are scores.
        moves: Those whose outputs move boxes.
        biases: The parts of the classifiers' biases that let more detections pass.
    """

    scores: Sequence[nn.Module]
    moves: Sequence[nn.Module]
    biases: Sequence[Tensor]


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A torchvision detector.

    Attributes:
        make: Makes it, without weights.
        size_hw: Of the picture, in pixels.
        last: Finds its last layers.
        outputs: Names of its outputs, in the order of its dict.
    """

    make: Callable[[], nn.Module]
    size_hw: tuple[int, int]
    last: Callable[[nn.Module], _Last]
    outputs: tuple[str, ...]


class _NarrowResNet(nn.Module):
    """torchvision's residual blocks in the order of ResNet-18, with a quarter of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(16, 16), BasicBlock(16, 16))
        self.layer2 = _stage(16, 32)
        self.layer3 = _stage(32, 64)
        self.layer4 = _stage(64, 128)


def _stage(channels: int, width: int) -> nn.Module:
    smaller = nn.Sequential(nn.Conv2d(channels, width, 1, 2, bias=False), nn.BatchNorm2d(width))
    return nn.Sequential(
        BasicBlock(channels, width, stride=2, downsample=smaller), BasicBlock(width, width)
    )


def _pyramid(first: int, extra: ExtraFPNBlock, channels: int = 32) -> nn.Module:
    """The narrow ResNet from its layer ``first`` to the fourth, with a feature pyramid."""
    layers = {f"layer{number}": str(number - first) for number in range(first, 5)}
    widths = [16 * 2 ** (number - 1) for number in range(first, 5)]
    return BackboneWithFPN(_NarrowResNet(), layers, widths, channels, extra)


class _SmallSsdBackbone(nn.Module):
    """Six maps of strides 8 to 300 for pictures of 300 pixels, as VGG gives them to SSD."""

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 64, 96, 128, 64, 64, 64, 64)
        # The kernel, stride and padding of each step: 300, 150, 75, 38, 19, 10, 5, 3, 1.
        steps = ((3, 2, 1),) * 7 + ((3, 1, 0), (1, 1, 0))
        channels = 3
        self.steps = nn.ModuleList()
        for width, (kernel, stride, padding) in zip(widths, steps, strict=True):
            conv = nn.Conv2d(channels, width, kernel, stride, padding)
            self.steps.append(nn.Sequential(conv, nn.ReLU()))
            channels = width

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Returns the maps of 38, 19, 10, 5, 3 and 1 cells."""
        maps = []
        for step in self.steps:
            images = step(images)
            maps.append(images)
        return OrderedDict((str(index), maps[index + 2]) for index in range(6))


def _small_ssd() -> nn.Module:
    anchors = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    return SSD(_SmallSsdBackbone(), anchors, (300, 300), CLASSES, score_thresh=0.05)


def _two_stage(kind: type[FasterRCNN], **parts: nn.Module) -> nn.Module:
    return kind(
        _pyramid(1, LastLevelMaxPool()),
        min_size=160,
        max_size=320,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=100,
        box_detections_per_img=60,
        box_head=TwoMLPHead(32 * 7 * 7, 128),
        box_predictor=FastRCNNPredictor(128, CLASSES),
        **parts,
    )


def _mask_rcnn() -> nn.Module:
    return _two_stage(
        MaskRCNN,
        mask_head=MaskRCNNHeads(32, (32, 32), 1),
        mask_predictor=MaskRCNNPredictor(32, 32, CLASSES),
    )


class CascadeHeads(nn.Module):
    """Three box heads in a row, each on the boxes of the one before (Cai and Vasconcelos 2018).

    As MMDetection's CascadeRoIHead does it: boxes without classes, the scores of the stages
    averaged. torchvision has no such detector; pooling, coding and suppression are its own.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.heads = nn.ModuleList(TwoMLPHead(32 * 7 * 7, 64) for _ in range(3))
        self.scores = nn.ModuleList(nn.Linear(64, CLASSES) for _ in range(3))
        self.moves = nn.ModuleList(nn.Linear(64, 4) for _ in range(3))
        self.coders = [BoxCoder((10.0 * n, 10.0 * n, 5.0 * n, 5.0 * n)) for n in (1, 2, 3)]
        inner.box_coder = self.coders[-1]

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        shapes: list[tuple[int, int]],
        targets: None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        boxes, found = proposals[0], []
        for head, score, move, coder in zip(
            self.heads, self.scores, self.moves, self.coders, strict=True
        ):
            hidden = head(self.inner.box_roi_pool(features, [boxes], shapes))
            found.append(score(hidden).softmax(-1))
            last, deltas = boxes, move(hidden)
            boxes = clip_boxes_to_image(coder.decode_single(deltas, last), shapes[0])
        mean = torch.stack(found).mean(0).log()
        boxes, scores, labels = self.inner.postprocess_detections(
            mean, deltas.repeat(1, CLASSES), [last], shapes
        )
        return [{"boxes": boxes[0], "labels": labels[0], "scores": scores[0]}], {}


def _cascade_rcnn() -> nn.Module:
    model = _two_stage(FasterRCNN)
    model.roi_heads = CascadeHeads(model.roi_heads)
    return model


def _cascade_last(model: nn.Module) -> _Last:
    proposals, heads = model.rpn.head, model.roi_heads
    return _Last(
        scores=[proposals.cls_logits, *heads.scores],
        moves=[proposals.bbox_pred, *heads.moves],
        biases=[layer.bias[1:] for layer in heads.scores],
    )


def _dense_last(model: nn.Module) -> _Last:
    classifier = model.head.classification_head.cls_logits
    box_head = model.head.regression_head
    return _Last(scores=[classifier], moves=[box_head.bbox_reg], biases=[classifier.bias])


def _ssd_last(model: nn.Module) -> _Last:
    """SSD has layers per level; the first class of each anchor is the background."""
    heads = (model.head.classification_head, model.head.regression_head)
    scores, moves = (
        [level if isinstance(level, nn.Conv2d) else level[-1] for level in head.module_list]
        for head in heads
    )
    return _Last(
        scores=scores, moves=moves, biases=[x.bias.view(-1, CLASSES)[:, 1:] for x in scores]
    )


def _two_stage_last(model: nn.Module) -> _Last:
    proposals, boxes = model.rpn.head, model.roi_heads.box_predictor
    return _Last(
        scores=[proposals.cls_logits, boxes.cls_score],
        moves=[proposals.bbox_pred, boxes.bbox_pred],
        biases=[boxes.cls_score.bias[1:]],
    )


_DENSE = ("boxes", "scores", "labels")
_TWO_STAGE = ("boxes", "labels", "scores")

TORCHVISION = {
    "retinanet": Whole(
        make=lambda: RetinaNet(
            _pyramid(2, LastLevelP6P7(32, 32)), CLASSES, min_size=160, max_size=320
        ),
        size_hw=(160, 192),
        last=_dense_last,
        outputs=_DENSE,
    ),
    "fcos": Whole(
        make=lambda: FCOS(_pyramid(2, LastLevelP6P7(32, 32)), CLASSES, min_size=160, max_size=320),
        size_hw=(160, 192),
        last=_dense_last,
        outputs=_DENSE,
    ),
    "ssd": Whole(make=_small_ssd, size_hw=(300, 300), last=_ssd_last, outputs=_DENSE),
    "ssd300": Whole(
        make=lambda: ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES),
        size_hw=(300, 300),
        last=_ssd_last,
        outputs=_DENSE,
    ),
    "ssdlite": Whole(
        make=lambda: ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=CLASSES
        ),
        size_hw=(320, 320),
        last=_ssd_last,
        outputs=_DENSE,
    ),
    "faster_rcnn": Whole(
        make=lambda: _two_stage(FasterRCNN),
        size_hw=(160, 192),
        last=_two_stage_last,
        outputs=_TWO_STAGE,
    ),
    "cascade_rcnn": Whole(
        make=_cascade_rcnn,
        size_hw=(160, 192),
        last=_cascade_last,
        outputs=_TWO_STAGE,
    ),
    "mask_rcnn": Whole(
        make=_mask_rcnn,
        size_hw=(160, 192),
        last=_two_stage_last,
        outputs=(*_TWO_STAGE, "masks"),
    ),
}


def _batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """torchvision's batched_nms; for torch.export without its branch on the number of boxes.

    That branch depends on data, which torch.export cannot trace; both sides of it give the same.
    """
    if not torch.compiler.is_exporting():
        return _BRANCHING_NMS(boxes, scores, labels, iou_threshold)
    apart = labels.to(boxes) * (boxes.max() + 1)
    return torch.ops.torchvision.nms(boxes + apart[:, None], scores, iou_threshold)


_BRANCHING_NMS = torchvision.ops.boxes.batched_nms
torchvision.ops.boxes.batched_nms = _batched_nms


class RawHeads(nn.Module):
    """Backbone and head, without what torchvision does before and after."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns logits ``[1, anchors, classes]``, box deltas, and what else the head gives."""
        found = self.head(list(self.backbone(images).values()))
        return tuple(found[name] for name in RAW_OUTPUTS if name in found)


def _picture(whole: Whole, number: int) -> Tensor:
    """Returns a drawn picture as torchvision wants it, float32 ``[3, h, w]`` from 0 to 1."""
    return torch.from_numpy(draw(*whole.size_hw, number)).permute(2, 0, 1).float() / 255


def _drawn(name: str) -> tuple[Whole, nn.Module]:
    """Makes a detector with weights that find 20 to 40 objects in a picture."""
    whole = TORCHVISION[name]
    torch.manual_seed(SEED)
    model = whole.make().eval()
    images = [_picture(whole, number) for number in range(PICTURES)]
    last = whole.last(model)
    randomise(model, lambda: model(images))
    scale_outputs(last.scores, 2.0, lambda: model(images))
    scale_outputs(last.moves, 0.5, lambda: model(images))

    def count() -> int:
        return sum(len(found["scores"]) for found in model(images)) // len(images)

    bias_for_count(last.biases, count, aim=range(20, 41))
    return whole, model


def _whole(name: str) -> Callable[[], Built]:
    def decode(outputs: Arrays) -> Candidates:
        return Candidates.chosen(outputs["boxes"], outputs["scores"], outputs["labels"], CLASSES)

    def build() -> Built:
        whole, model = _drawn(name)
        return Built(
            model=model,
            arguments=([_picture(whole, 0)],),
            inputs=("image",),
            outputs=whole.outputs,
            size_hw=whole.size_hw,
            classes=CLASSES,
            decode=decode,
            feed=lambda pixels: {"image": pixels},
        )

    return build


def _raw(name: str, kind: str) -> Callable[[], Built]:
    """Builds a head alone, read by the detector's own code (``postprocess_detections``)."""

    def build() -> Built:
        whole, model = _drawn(name)
        raw = RawHeads(model).eval()
        image = _picture(whole, 0)[None]
        with torch.no_grad():
            maps = list(model.backbone(image).values())
            outputs = [key for key in RAW_OUTPUTS if key in model.head(maps)]
        (anchors,) = model.anchor_generator(ImageList(image, [whole.size_hw]), maps)

        def decode(found: Arrays) -> Candidates:
            logits, deltas, *quality = (torch.from_numpy(found[key])[0] for key in outputs)
            if kind == "fcos":
                boxes = model.box_coder.decode(deltas, anchors)
                scores = torch.sqrt(logits.sigmoid() * quality[0].sigmoid())
            else:
                boxes = model.box_coder.decode_single(deltas, anchors)
                scores = logits.softmax(-1)[:, 1:] if kind == "ssd" else logits.sigmoid()
            return Candidates(boxes=boxes.numpy(), scores=scores.numpy())

        mean, std = (
            tuple(255 * value for value in values)
            for values in (model.transform.image_mean, model.transform.image_std)
        )
        return Built(
            model=raw,
            arguments=(image,),
            outputs=tuple(outputs),
            size_hw=whole.size_hw,
            classes=CLASSES - (kind == "ssd"),
            decode=decode,
            mean=mean,
            std=std,
        )

    return build


NETWORKS = {
    **{f"torchvision_{name}": _whole(name) for name in TORCHVISION},
    "torchvision_retinanet_raw": _raw("retinanet", "retinanet"),
    "torchvision_fcos_raw": _raw("fcos", "fcos"),
    "torchvision_ssd_raw": _raw("ssd", "ssd"),
    "torchvision_ssdlite_raw": _raw("ssdlite", "ssd"),
}
