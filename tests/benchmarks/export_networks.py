"""Exports detector networks with seeded random weights to ONNX, for benchmarks and parity checks.

Usage: export_networks.py FOLDER [NAME...]
where NAME is one of ssdlite, ssd300, retinanet, rtdetr; all of them by default.

Each file takes one image of batch 1 with static shapes and returns what the network's head
computes: no suppression, and no box decoding that the network does not do itself. The weights are
random but behave like trained ones: batch normalisation has statistics that matter, biases are not
zero and activations stay of order one. The same versions of the packages write the same numbers
every time. torch folds batch normalisation into the convolutions, except for the frozen kind in
RT-DETR's backbone, which stays behind as multiplications and additions.

Needs torch, torchvision (for the SSDs and RetinaNet), transformers (for RT-DETR) and onnx, none of
which tvmdet needs: ``pip install torch torchvision transformers onnx`` in an environment of its
own.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

OPSET = 17
SEED = 20


class RawHeads(nn.Module):
    """Backbone and head of a torchvision detector, without anchors, decoding and suppression."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits ``[1, anchors, classes]`` and box deltas ``[1, anchors, 4]``."""
        outputs = self.head(list(self.backbone(images).values()))
        return outputs["cls_logits"], outputs["bbox_regression"]


class Queries(nn.Module):
    """RT-DETR's last decoder layer: logits and boxes, as plain tensors."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits ``[1, queries, classes]`` and boxes ``[1, queries, 4]``, cx cy w h."""
        outputs = self.detector(images)
        return outputs.logits, outputs.pred_boxes


def torchvision_detector(name: str) -> nn.Module:
    """Builds a torchvision detector, also beside a torch that its C++ library does not fit."""
    if not hasattr(torch.ops.torchvision, "nms"):
        try:
            import torchvision
        except RuntimeError:
            # Importing fails where the C++ library that declares these is not loaded. Nothing
            # here calls them.
            for module in [key for key in sys.modules if key.split(".")[0] == "torchvision"]:
                del sys.modules[module]
            torch.library.define("torchvision::nms", "(Tensor a, Tensor b, float c) -> Tensor")
            torch.library.define("torchvision::qnms", "(Tensor a, Tensor b, float c) -> Tensor")
    import torchvision

    constructor = getattr(torchvision.models.detection, name)
    return RawHeads(constructor(weights=None, weights_backbone=None))


def rtdetr_r18() -> nn.Module:
    """Builds RT-DETR with the configuration of PekingU/rtdetr_r18vd."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        # transformers imports torchvision where it is installed, and fails where that fails.
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        downsample_in_first_stage=False,
        downsample_in_bottleneck=False,
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        encoder_hidden_dim=256,
        hidden_expansion=0.5,
        d_model=256,
        decoder_in_channels=[256, 256, 256],
        decoder_layers=3,
        num_queries=300,
        num_labels=80,
        anchor_image_size=[640, 640],
        attn_implementation="eager",
    )
    return Queries(RTDetrForObjectDetection(config))


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network to export: how it is built, its input size and the names of its outputs."""

    build: Callable[[], nn.Module]
    size_hw: tuple[int, int]
    outputs: tuple[str, str] = ("cls_logits", "bbox_regression")


NETWORKS = {
    "ssdlite": Network(
        build=lambda: torchvision_detector("ssdlite320_mobilenet_v3_large"), size_hw=(320, 320)
    ),
    "ssd300": Network(build=lambda: torchvision_detector("ssd300_vgg16"), size_hw=(300, 300)),
    "retinanet": Network(
        build=lambda: torchvision_detector("retinanet_resnet50_fpn"), size_hw=(512, 512)
    ),
    "rtdetr": Network(build=rtdetr_r18, size_hw=(640, 640), outputs=("logits", "pred_boxes")),
}


def randomise_weights(model: nn.Module) -> None:
    """Draws weights that keep the variance of what passes through, and biases.

    He et al., "Delving deep into rectifiers" (2015), section 2.2.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = "relu" if isinstance(module, nn.Conv2d) else "linear"
            nn.init.kaiming_normal_(module.weight, nonlinearity=gain)
            # What moves RT-DETR's boxes and where it samples is small once trained. Large moves
            # between random features would turn rounding into other answers.
            if name.endswith("sampling_offsets") or re.search(r"bbox\w*\..*layers\.2$", name):
                module.weight.data *= 0.1
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)


@torch.no_grad()
def randomise_normalisation(model: nn.Module, images: Tensor) -> None:
    """Draws batch normalisation near the statistics that ``images`` have there.

    Statistics drawn without looking would let activations grow with every residual sum.
    """

    def draw(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (data,) = inputs
        mean = data.mean((0, 2, 3))
        # A channel of a 1x1 map has no variance of its own.
        variance = (data.var((0, 2, 3), correction=0) + data.var()) / 2
        module.running_mean.copy_(mean + torch.randn_like(mean) * 0.2 * variance.sqrt())
        module.running_var.copy_(variance * torch.empty_like(mean).uniform_(0.7, 1.4))
        module.weight.uniform_(0.6, 1.4)
        module.bias.normal_(std=0.2)

    hooks = [
        module.register_forward_pre_hook(draw)
        for module in model.modules()
        if hasattr(module, "running_mean")
    ]
    model(images)
    for hook in hooks:
        hook.remove()


def export(name: str, folder: Path) -> Path:
    """Writes ``folder/name.onnx`` and returns its path.

    Raises:
        RuntimeError: An output is constant, not finite or too large to compare.
    """
    network = NETWORKS[name]
    torch.manual_seed(SEED)
    model = network.build().eval()
    randomise_weights(model)
    images = torch.rand(1, 3, *network.size_hw)
    randomise_normalisation(model, images)
    with torch.no_grad():
        outputs = model(images)
    for label, output in zip(network.outputs, outputs, strict=True):
        low, high, spread = output.min(), output.max(), output.std()
        print(f"{name} {label} {tuple(output.shape)}: {low:.3f} to {high:.3f}, std {spread:.3f}")
        # Written so that a NaN fails as well.
        if not (0.01 < spread < 100 and output.abs().max() < 1000):
            raise RuntimeError(f"{name}: {label} is constant, not finite or too large")
    path = folder / f"{name}.onnx"
    with warnings.catch_warnings():
        # The exporter warns of every Python branch on a shape; shapes are static here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (images,),
            path,
            opset_version=OPSET,
            dynamo=False,
            input_names=["images"],
            output_names=list(network.outputs),
        )
    return path


def main() -> None:
    """Exports what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NETWORKS))
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}; there are {', '.join(NETWORKS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or NETWORKS:
        print(f"wrote {export(name, arguments.folder)}", flush=True)


if __name__ == "__main__":
    main()
