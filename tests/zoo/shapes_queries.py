"""A small RT-DETR of transformers: queries instead of anchors, nothing to suppress.

Encoder, decoder and loss (matching, focal classes, denoising) are those of transformers, small. The
backbone is that of the one-stage network, which is trained first and stays as it is. Exported as
its users do, with the outputs ``logits`` and ``pred_boxes``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from shapes import LABELS
from shapes_data import SIZE, Batch
from shapes_one_stage import Pyramid, TrainedPyramid
from torch import Tensor, nn

# transformers imports torchvision where it is installed, and fails where its library does not fit.
sys.modules["torchvision"] = None  # type: ignore[assignment]
from transformers import (  # noqa: E402
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
)

OUTPUTS = ("logits", "pred_boxes")
_WIDTH = 40


class Outputs(nn.Module):
    """The last decoder layer's logits and boxes, as plain tensors."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        found = self.detector(images)
        return found.logits, found.pred_boxes


class Backbone(nn.Module):
    """Maps of strides 8, 16 and 32, as transformers passes them on, with masks that none reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.pyramid = TrainedPyramid(folder)

    def forward(self, pixel_values: Tensor, _pixel_mask: Tensor) -> list[tuple[Tensor, None]]:
        return [(features, None) for features in self.pyramid(pixel_values)]


def build(folder: Path) -> nn.Module:
    """Returns the network; its backbone is that of the one-stage network in the same folder."""
    channels = list(Pyramid.channels)
    # A backbone of these channels has to be asked for; it is replaced below.
    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, *channels],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=channels,
        encoder_hidden_dim=_WIDTH,
        encoder_ffn_dim=2 * _WIDTH,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        d_model=_WIDTH,
        decoder_in_channels=[_WIDTH] * 3,
        decoder_ffn_dim=2 * _WIDTH,
        decoder_layers=3,
        decoder_attention_heads=4,
        num_queries=30,
        num_denoising=60,
        num_labels=len(LABELS),
        anchor_image_size=None,
        attn_implementation="eager",
    )
    model = RTDetrForObjectDetection(config)
    model.model.backbone = Backbone(folder)
    return model


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
    return Outputs(model).eval()(image[None])


def export(model: nn.Module, path: Path) -> None:
    """Writes the network with the outputs of transformers."""
    torch.onnx.export(
        # The exporter puts every part back into the mode that the outermost one has.
        Outputs(model).eval(),
        (torch.zeros(1, 3, SIZE, SIZE),),
        path,
        opset_version=17,
        dynamo=False,
        input_names=["pixel_values"],
        output_names=list(OUTPUTS),
    )
