"""Further inputs of exports that say how large the picture is, by the names exporters give them.

``orig_target_sizes`` and its like (RT-DETR, D-FINE ``tools/export_onnx.py``) are width and height;
the others height and width (PaddleDetection ``deploy``, Hugging Face, the ONNX zoo's YOLOv3).
"""

from __future__ import annotations

__all__ = ["HEIGHT_WIDTH", "KERAS_YOLO", "SCALES_CORNERS", "WIDTH_HEIGHT"]

WIDTH_HEIGHT = ("orig_target_sizes", "orig_target_size", "orig_sizes")
HEIGHT_WIDTH = ("im_shape", "image_shape", "image_size", "target_sizes")

# Those that the exporters multiply boxes x1 y1 x2 y2 by: with the network's own size, pixels.
SCALES_CORNERS = (*WIDTH_HEIGHT, "im_shape", "target_sizes")

# The one of keras-yolo3 (``yolo_correct_boxes``: y1 x1 y2 x2), and of the model zoo's YOLOv3.
KERAS_YOLO = "image_shape"
