"""Exports with suppression inside, each with the nodes that its exporter writes.

The network before it is always the same head; what differs is what follows. Nodes that ONNX
Runtime does not have are appended after its part was run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
from blocks import draw_weights, images_like, prefer_short
from build_yolo import CLASSES, SIZE_HW, UltralyticsHead, ultralytics_metadata
from built import SEED, Arrays, Built, Candidates
from torch import Tensor, nn
from torchvision_beside_torch import import_torchvision

__all__ = ["NETWORKS"]

import_torchvision()
IOU, SCORE, MOST = 0.5, 0.1, 40


class Corners(nn.Module):
    """Boxes ``[N, A, 4]`` as corners and scores ``[N, A, C]``, as every suppression wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = UltralyticsHead()
        self.scores, self.moves = self.head.scores, self.head.moves

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.head(images).permute(0, 2, 1)
        center, size, scores = rows.split((2, 2, CLASSES), 2)
        return torch.cat((center - size / 2, center + size / 2), 2), scores


def greedy(
    boxes: np.ndarray, scores: np.ndarray, iou: float, score: float, most: int
) -> np.ndarray:
    """Suppresses class by class; returns class and box, ``[n, 2]``, best first in each class."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    chosen = []
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        order = order[scores[order, label] > score]
        count = 0
        while len(order) and count < most:
            best, order = order[0], order[1:]
            chosen.append((label, best))
            count += 1
            low = np.maximum(boxes[best, :2], boxes[order, :2])
            high = np.minimum(boxes[best, 2:], boxes[order, 2:])
            shared = (high - low).clip(min=0).prod(axis=1)
            order = order[shared / (areas[best] + areas[order] - shared) <= iou]
    return np.asarray(chosen, np.int64).reshape(-1, 2)


class OnnxSuppression(torch.autograd.Function):
    """ONNX's NonMaxSuppression, as MMDeploy, YOLOv7 and others register it for the exporter."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: object, boxes: Tensor, scores: Tensor, most: Tensor, iou: Tensor, score: Tensor
    ) -> Tensor:
        rows = greedy(boxes[0].numpy(), scores[0].numpy().T, float(iou), float(score), int(most))
        return torch.from_numpy(np.concatenate([np.zeros((len(rows), 1), np.int64), rows], axis=1))

    @staticmethod
    def symbolic(g, boxes, scores, most, iou, score):  # type: ignore[no-untyped-def]
        return g.op("NonMaxSuppression", boxes, scores, most, iou, score)


def _suppress(boxes: Tensor, scores: Tensor) -> Tensor:
    return OnnxSuppression.apply(
        boxes,
        scores.permute(0, 2, 1),
        torch.tensor([MOST]),
        torch.tensor([IOU]),
        torch.tensor([SCORE]),
    )


class UltralyticsNms(nn.Module):
    """``[N, K, 6]``, corners, score, class, zeros below (ultralytics export, nms=True)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corners()
        self.scores, self.moves = self.inner.scores, self.inner.moves

    def forward(self, images: Tensor) -> Tensor:
        boxes, scores = self.inner(images)
        best, classes = scores.max(dim=-1)
        found = torch.zeros(boxes.shape[0], MOST, 6)
        for number in range(boxes.shape[0]):
            passed = best[number] > SCORE
            box, score, label = boxes[number][passed], best[number][passed], classes[number][passed]
            label = label.to(box.dtype)
            # Classes are moved apart, so that one suppression does for all.
            factor = 1 / CLASSES
            moved = factor * (box / torch.tensor(images.shape[2:], dtype=box.dtype).max())
            moved = moved + label.view(-1, 1).expand(-1, 4) * 2 * factor
            keep = torch.ops.torchvision.nms(moved, score, IOU)[:MOST]
            rows = torch.cat([box[keep], score[keep].view(-1, 1), label[keep].view(-1, 1)], dim=-1)
            found[number] = nn.functional.pad(rows, (0, 0, 0, MOST - rows.shape[0]))
        return found


class MmdeployNms(nn.Module):
    """dets ``[N, n, 5]`` and labels ``[N, n]`` (mmdeploy mmcv/ops/nms.py, select_nms_index)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corners()
        self.scores, self.moves = self.inner.scores, self.inner.moves

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        boxes, scores = self.inner(images)
        batch = boxes.shape[0]
        batches, classes, rows = _suppress(boxes, scores).unbind(1)
        values = scores.permute(0, 2, 1)[batches, classes, rows].unsqueeze(1)
        dets = torch.cat([boxes[batches, rows, ...], values], dim=1).unsqueeze(0)
        dets = dets.repeat(batch, 1, 1)
        own = batches == torch.arange(0, batch).unsqueeze(1)
        dets = dets.where(own.unsqueeze(-1), dets.new_zeros(1))
        labels = classes.unsqueeze(0).repeat(batch, 1)
        labels = labels.where(own, labels.new_ones(1) * -1)
        dets = torch.cat((dets, dets.new_zeros((batch, 1, 5))), 1)
        labels = torch.cat((labels, labels.new_zeros((batch, 1)) - 1), 1)
        _, order = dets[:, :, -1].sort(dim=1, descending=True)
        order = order[:, :MOST]
        first = torch.arange(batch).view(-1, 1)
        return dets[first, order, ...], labels[first, order, ...]


class Yolov7EndToEnd(nn.Module):
    """Rows ``[n, 7]``, picture, corners, class, score (WongKinYiu/yolov7 export.py --end2end)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corners()
        self.scores, self.moves = self.inner.scores, self.inner.moves

    def forward(self, images: Tensor) -> Tensor:
        boxes, scores = self.inner(images)
        best, classes = scores.max(2, keepdim=True)
        moved = boxes + classes.float() * 640
        rows = _suppress(moved, best)
        batches, picked = rows[:, 0], rows[:, 2]
        return torch.cat(
            [
                batches.unsqueeze(1).float(),
                boxes[batches, picked, :],
                classes[batches, picked, :].float(),
                best[batches, picked, :],
            ],
            1,
        )


class PaddleNms(nn.Module):
    """Rows ``[n, 6]``, class, score, corners, and their number (Paddle2ONNX, multiclass_nms3)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Corners()
        self.scores, self.moves = self.inner.scores, self.inner.moves

    def forward(self, images: Tensor, scale_factor: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if scale_factor is None:
            scale_factor = torch.ones(1, 2)
        boxes, scores = self.inner(images)
        turned = torch.cat([scale_factor.flip(1), scale_factor.flip(1)], dim=1).unsqueeze(1)
        boxes = boxes / turned
        _, classes, rows = _suppress(boxes, scores).unbind(1)
        values = scores[0].permute(1, 0)[classes, rows]
        order = torch.topk(values, torch.min(torch.tensor(MOST), torch.tensor(values.shape[0])))[1]
        found = torch.cat(
            [
                classes[order].float().unsqueeze(1),
                values[order].unsqueeze(1),
                boxes[0][rows[order]],
            ],
            1,
        )
        return found, torch.tensor([found.shape[0]], dtype=torch.int32)


def _plugin(
    operator: str,
    domain: str,
    outputs: dict[str, tuple[int, list[int]]],
    **attributes: object,
) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """Returns what appends a plugin's node to boxes and scores, which it takes as its inputs."""

    def append(model: onnx.ModelProto) -> onnx.ModelProto:
        node = onnx.helper.make_node(
            operator, ["boxes", "scores"], list(outputs), name=operator, domain=domain, **attributes
        )
        model.graph.node.append(node)
        del model.graph.output[:]
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, kind, shape)
            for name, (kind, shape) in outputs.items()
        )
        if domain:
            model.opset_import.append(onnx.helper.make_opsetid(domain, 1))
        return model

    return append


def _six_columns(score: int, label: int, first: int) -> Callable[[Arrays], Candidates]:
    def decode(outputs: Arrays) -> Candidates:
        rows = next(iter(outputs.values()))
        rows = rows.reshape(-1, rows.shape[-1])
        rows = rows[rows[:, score] > 0]
        return Candidates.chosen(
            rows[:, first : first + 4], rows[:, score], rows[:, label], CLASSES
        )

    return decode


def _dets_and_labels(outputs: Arrays) -> Candidates:
    dets, labels = outputs["dets"][0], outputs["labels"][0]
    real = labels >= 0
    return Candidates.chosen(dets[real, :4], dets[real, 4], labels[real], CLASSES)


def _as_plugin_does(outputs: Arrays) -> Candidates:
    """What the plugins' documentation says they give: suppressed by class, the best of all."""
    boxes, scores = outputs["boxes"][0], outputs["scores"][0]
    rows = greedy(boxes, scores, IOU, SCORE, len(boxes))
    values = scores[rows[:, 1], rows[:, 0]]
    best = np.argsort(-values, kind="stable")[:MOST]
    return Candidates.chosen(boxes[rows[best, 1]], values[best], rows[best, 0], CLASSES)


def _build(
    make: Callable[[], nn.Module],
    decode: Callable[[Arrays], Candidates],
    outputs: tuple[str, ...],
    **more: object,
) -> Callable[[], Built]:
    def build() -> Built:
        torch.manual_seed(SEED)
        model = make()
        images = images_like(SIZE_HW)
        inner = getattr(model, "inner", model)
        draw_weights(inner, images, scores=[*inner.scores], moves=[*inner.moves])
        for layer in inner.moves:
            prefer_short(layer, inner.head.bins)
        model.eval()
        return Built(
            model=model,
            arguments=(images[:1], *more.pop("further", ())),
            outputs=outputs,
            size_hw=SIZE_HW,
            classes=CLASSES,
            decode=decode,
            **more,
        )

    return build


_INT32, _FLOAT = onnx.TensorProto.INT32, onnx.TensorProto.FLOAT

NETWORKS = {
    "ultralytics_nms": _build(
        UltralyticsNms, _six_columns(4, 5, 0), ("output0",), metadata=ultralytics_metadata()
    ),
    "mmdeploy_nms": _build(MmdeployNms, _dets_and_labels, ("dets", "labels")),
    "yolov7_end_to_end": _build(Yolov7EndToEnd, _six_columns(6, 5, 1), ("output",)),
    "paddle_nms": _build(
        PaddleNms,
        _six_columns(1, 0, 2),
        ("multiclass_nms3_0.tmp_0", "multiclass_nms3_0.tmp_2"),
        inputs=("image", "scale_factor"),
        further=(torch.ones(1, 2),),
        feed=lambda pixels: {"image": pixels[None], "scale_factor": np.ones((1, 2), np.float32)},
    ),
    "efficient_nms_trt": _build(
        Corners,
        _as_plugin_does,
        ("boxes", "scores"),
        finish=_plugin(
            "EfficientNMS_TRT",
            "TRT",
            {
                "num_dets": (_INT32, [1, 1]),
                "det_boxes": (_FLOAT, [1, MOST, 4]),
                "det_scores": (_FLOAT, [1, MOST]),
                "det_classes": (_INT32, [1, MOST]),
            },
            plugin_version="1",
            background_class=-1,
            max_output_boxes=MOST,
            score_threshold=SCORE,
            iou_threshold=IOU,
            score_activation=0,
            box_coding=0,
        ),
    ),
    "mmdeploy_trt": _build(
        Corners,
        _as_plugin_does,
        ("boxes", "scores"),
        finish=_plugin(
            "TRTBatchedNMS",
            "mmdeploy",
            {"dets": (_FLOAT, [1, MOST, 5]), "labels": (_INT32, [1, MOST])},
            background_label_id=-1,
            clip_boxes=0,
            iou_threshold=IOU,
            is_normalized=0,
            keep_topk=MOST,
            num_classes=CLASSES,
            return_index=0,
            score_threshold=SCORE,
            share_location=1,
            topk=1000,
        ),
    ),
}
