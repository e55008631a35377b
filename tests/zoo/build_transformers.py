"""DETR-like detectors of transformers, from their configurations, with random weights.

Built small: what they are is the code of transformers. Their outputs are read as the image
processors' ``post_process_object_detection`` reads them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from blocks import images_like
from built import Arrays, Built, Candidates, centered, sigmoid, softmax
from seeded import randomise, scale_outputs
from torch import Tensor, nn

# transformers imports torchvision where it is installed, and fails where its library does not fit.
sys.modules["torchvision"] = None  # type: ignore[assignment]
import transformers  # noqa: E402

__all__ = ["NETWORKS"]

CLASSES = 5
SIZE_HW = (128, 160)
# RT-DETR's image processor only divides by 255 (do_normalize is false), and so does D-FINE's.
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
SMALL = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 20,
    "num_labels": CLASSES,
}
REAL_TIME = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [24, 32, 48],
    "decoder_in_channels": [32, 32, 32],
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_layers": 2,
    "num_queries": 30,
    "num_labels": CLASSES,
    "hidden_expansion": 0.5,
    "anchor_image_size": list(SIZE_HW),
}


class Queries(nn.Module):
    """The two outputs that a user exports: logits and boxes of the last layer."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        found = self.detector(pixel_values)
        return found.logits, found.pred_boxes


def _resnet(*stages: str) -> object:
    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(stages),
    )


def _real_time_resnet() -> object:
    return transformers.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
        out_features=["stage2", "stage3", "stage4"],
    )


def _detr() -> nn.Module:
    config = transformers.DetrConfig(backbone_config=_resnet("stage4"), backbone=None, **SMALL)
    return transformers.DetrForObjectDetection(config)


def _conditional_detr() -> nn.Module:
    config = transformers.ConditionalDetrConfig(
        backbone_config=_resnet("stage4"), backbone=None, **SMALL
    )
    return transformers.ConditionalDetrForObjectDetection(config)


def _deformable_detr() -> nn.Module:
    config = transformers.DeformableDetrConfig(
        backbone_config=_resnet("stage2", "stage3", "stage4"),
        backbone=None,
        encoder_n_points=2,
        decoder_n_points=2,
        num_feature_levels=4,
        **SMALL,
    )
    return transformers.DeformableDetrForObjectDetection(config)


def _rtdetr() -> nn.Module:
    config = transformers.RTDetrConfig(backbone_config=_real_time_resnet(), **REAL_TIME)
    return transformers.RTDetrForObjectDetection(config)


def _rtdetr_v2() -> nn.Module:
    config = transformers.RTDetrV2Config(backbone_config=_real_time_resnet(), **REAL_TIME)
    return transformers.RTDetrV2ForObjectDetection(config)


def _dfine() -> nn.Module:
    backbone = transformers.HGNetV2Config(
        hidden_sizes=[16, 24, 32, 48],
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 24, 32],
        stage_mid_channels=[8, 8, 12, 16],
        stage_out_channels=[16, 24, 32, 48],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[2, 2, 2, 2],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.DFineConfig(
        backbone_config=backbone, decoder_n_points=[2, 2, 2], **REAL_TIME
    )
    return transformers.DFineForObjectDetection(config)


def _rf_detr() -> nn.Module:
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=128,
        patch_size=16,
        num_windows=2,
        out_features=["stage2", "stage4"],
    )
    config = transformers.RfDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_ffn_dim=48,
        decoder_layers=2,
        num_queries=30,
        num_labels=CLASSES,
        hidden_expansion=0.5,
        decoder_self_attention_heads=4,
        decoder_cross_attention_heads=4,
        group_detr=1,
    )
    return transformers.RfDetrForObjectDetection(config)


def _lw_detr() -> nn.Module:
    backbone = transformers.LwDetrViTConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=128,
        pretrain_image_size=128,
        patch_size=16,
        window_block_indices=[0, 2],
        num_windows=4,
        out_indices=[2, 4],
    )
    config = transformers.LwDetrConfig(
        backbone_config=backbone,
        d_model=32,
        decoder_ffn_dim=48,
        decoder_layers=2,
        projector_scale_factors=[1.0],
        num_queries=30,
        num_labels=CLASSES,
        decoder_self_attention_heads=4,
        decoder_cross_attention_heads=4,
        group_detr=1,
    )
    return transformers.LwDetrForObjectDetection(config)


def _yolos() -> nn.Module:
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=list(SIZE_HW),
        patch_size=16,
        num_detection_tokens=20,
        num_labels=CLASSES,
    )
    return transformers.YolosForObjectDetection(config)


def _pixels(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    return centered(boxes[0]) * np.asarray([width, height, width, height], np.float32)


def _build(
    make: Callable[[], nn.Module],
    kind: str,
    size_hw: tuple[int, int] = SIZE_HW,
    pixels: dict[str, tuple[float, float, float]] = IMAGENET,
) -> Callable[[], Built]:
    """Builds one.

    Args:
        make: Makes the detector.
        kind: softmax, with a column for no object that is left out, or sigmoid.
        size_hw: Of its pictures.
        pixels: Mean and deviation that its image processor normalises by.
    """

    def decode(outputs: Arrays) -> Candidates:
        logits = outputs["logits"][0]
        scores = softmax(logits)[:, :-1] if kind == "softmax" else sigmoid(logits)
        return Candidates(boxes=_pixels(outputs["pred_boxes"], size_hw), scores=scores)

    def build() -> Built:
        detector = make()
        detector.set_attn_implementation("eager")
        model = Queries(detector).eval()
        images = images_like(size_hw)
        images = (images * 255 - torch.tensor(pixels["mean"]).view(3, 1, 1)) / torch.tensor(
            pixels["std"]
        ).view(3, 1, 1)
        for name, weight in model.named_parameters():
            # Tokens and positions that training moves away from zero.
            if "bias" not in name and not weight.any():
                nn.init.normal_(weight, std=0.5)
        randomise(model, lambda: model(images))
        for name, module in model.named_modules():
            # Attention between random keys would be the same for every query: sharpen it.
            if name.endswith(("q_proj", "k_proj", ".query", ".key")):
                module.weight.data *= 2
        for name, module in model.named_modules():
            # What moves boxes, and where attention samples, is small once trained. Large moves
            # between random features would turn rounding into other answers.
            last = name.endswith("layers.2") and "bbox" in name
            if isinstance(module, nn.Linear) and (last or name.endswith("sampling_offsets")):
                scale_outputs([module], 0.5, lambda: model(images))
        return Built(
            model=model,
            arguments=(images[:1],),
            inputs=("pixel_values",),
            outputs=("logits", "pred_boxes"),
            size_hw=size_hw,
            classes=CLASSES,
            decode=decode,
            feed=lambda picture: {"pixel_values": picture[None]},
            **pixels,
        )

    return build


NETWORKS = {
    "detr": _build(_detr, "softmax"),
    "conditional_detr": _build(_conditional_detr, "sigmoid"),
    "deformable_detr": _build(_deformable_detr, "sigmoid"),
    "rtdetr": _build(_rtdetr, "sigmoid", pixels=PLAIN),
    "rtdetr_v2": _build(_rtdetr_v2, "sigmoid", pixels=PLAIN),
    "dfine": _build(_dfine, "sigmoid", pixels=PLAIN),
    "rf_detr": _build(_rf_detr, "sigmoid", (128, 128)),
    "lw_detr": _build(_lw_detr, "sigmoid", (128, 128)),
    "yolos": _build(_yolos, "softmax"),
}
