"""What to do in the exporter about a node that blocks, framework by framework."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tvmdet.frontend.operators import INTEGER_OPERATORS, Block

__all__ = ["advised"]

# What every exporter of a framework can do against a group of operators.
_SUPPRESSION = {
    "Ultralytics": "model.export(format='onnx', nms=False)",
    "MMDetection": "MMDeploy with the config detection_onnxruntime_static.py",
    "PaddleDetection": "export_model.py with -o export.nms=False",
    "torchvision": "torch.onnx.export(model.eval(), image, dynamo=False, opset_version=17)",
}
_STATIC = {
    "torch": "model.eval(), no dynamic_axes but the batch, fixed picture size",
    "Ultralytics": "model.export(format='onnx', dynamic=False, imgsz=640)",
    "MMDetection": "MMDeploy with the config detection_onnxruntime_static.py",
    "PaddleDetection": "export_model.py with TestReader.inputs_def.image_shape=[3,640,640]",
    "Hugging Face": "optimum-cli export onnx --no-dynamic-axes",
}
_FLOAT = {
    "Ultralytics": "model.export(format='onnx', int8=False)",
    "PaddleDetection": "export without the slim config",
    "Hugging Face": "export the checkpoint before quantisation",
    "torch": "export the model before quantisation",
}
_CUSTOM = {
    "MMDetection": "MMDeploy with a config for ONNX Runtime, not for TensorRT",
    "torch": "opset 17 or later, without custom_opsets and ONNX_FALLTHROUGH",
    "PaddleDetection": "paddle2onnx with --deploy_backend onnxruntime",
}
_GROUPS: tuple[tuple[tuple[str, ...], Mapping[str, str]], ...] = (
    (("NonMaxSuppression", "EfficientNMS_TRT", "TRTBatchedNMS", "BatchedNMS_TRT"), _SUPPRESSION),
    (("NonZero", "Compress", "Unique"), {**_SUPPRESSION, **_STATIC}),
    (("If", "Loop", "Scan", "TopK", "Resize", "Upsample"), _STATIC),
    (INTEGER_OPERATORS, _FLOAT),
)
# How exporters sign the files that they make (``producer_name``).
_PRODUCERS = {
    "pytorch": ("Ultralytics", "MMDetection", "torchvision", "torch", "Hugging Face"),
    "paddle": ("PaddleDetection",),
    "p2o": ("PaddleDetection",),
}


def advised(block: Block, producer: str) -> Block:
    """Returns a block whose fix also says what to do in each framework.

    Args:
        block: A node that cannot be imported.
        producer: The ``producer_name`` of the file; frameworks that do not export through it
            are left out.
    """
    operator = block.operator.rsplit(".", 1)[-1]
    ways = next((ways for names, ways in _GROUPS if operator in names), {})
    if not ways and "." in block.operator:
        ways = _CUSTOM
    known = next((names for key, names in _PRODUCERS.items() if key in producer.lower()), None)
    lines = [f"{name}: {way}" for name, way in ways.items() if known is None or name in known]
    if not lines:
        return block
    return dataclasses.replace(block, fix=f"{block.fix} ({'; '.join(lines)})")
