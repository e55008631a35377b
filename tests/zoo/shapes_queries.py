"""A small RT-DETR of transformers: queries instead of anchors, nothing to suppress.

The detector and its loss (matching, focal classes, denoising) are those of transformers; only the
sizes are small. Exported as its users do, with the outputs ``logits`` and ``pred_boxes``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from shapes import LABELS
from shapes_data import SIZE, Batch
from torch import Tensor, nn

# transformers imports torchvision where it is installed, and fails where its library does not fit.
sys.modules["torchvision"] = None  # type: ignore[assignment]
from transformers import (  # noqa: E402
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
)

OUTPUTS = ("logits", "pred_boxes")
_WIDTH = 48
_STAGES = [16, 32, 48, 64]


class Outputs(nn.Module):
    """The last decoder layer's logits and boxes, as plain tensors."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.detector(images)
        return found.logits, found.pred_boxes


def build(_folder: Path) -> nn.Module:
    """Returns the network, untrained."""
    backbone = RTDetrResNetConfig(
        embedding_size=_STAGES[0],
        hidden_sizes=_STAGES,
        depths=[1, 1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=_STAGES[1:],
        encoder_hidden_dim=_WIDTH,
        encoder_ffn_dim=2 * _WIDTH,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=_WIDTH,
        decoder_in_channels=[_WIDTH] * 3,
        decoder_ffn_dim=2 * _WIDTH,
        decoder_layers=2,
        decoder_attention_heads=4,
        num_queries=30,
        num_denoising=30,
        num_labels=len(LABELS),
        anchor_image_size=None,
        attn_implementation="eager",
    )
    return RTDetrForObjectDetection(config)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Returns the training loss of a batch."""
    targets = []
    for boxes, classes in zip(batch.boxes, batch.classes, strict=True):
        low, high = boxes.split(2, dim=1)
        center = torch.cat([(low + high) / 2, high - low], dim=1) / SIZE
        targets.append({"boxes": center, "class_labels": classes})
    return model(batch.images, labels=targets).loss


def run(model: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """Returns the outputs of one picture ``[3, SIZE, SIZE]``, as they are exported."""
    return Outputs(model)(image[None])


def export(model: nn.Module, path: Path) -> None:
    """Writes the network with the outputs of transformers."""
    torch.onnx.export(
        Outputs(model),
        (torch.zeros(1, 3, SIZE, SIZE),),
        path,
        opset_version=17,
        dynamo=False,
        input_names=["pixel_values"],
        output_names=list(OUTPUTS),
    )
