"""Pictures and annotations for the toy detector, which finds three boxes by colour."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import toy_modules

HEIGHT, WIDTH = toy_modules.SIZE_HW
# What the toy detector reports, as annotations say it; the first is cut at the picture's edge.
BLUE, GREEN, RED = ((0, 0, 24, 16), (12, 8, 24, 16), (20.5, 10.25, 26.5, 21.25))
COLORS_BGR = ((200, 150, 100), (190, 170, 110))
"""Of the two pictures; the toy detector's scores are these values over 255."""


def thing(image_id: int, category_id: int, bbox: Sequence[float], **more: Any) -> dict[str, Any]:
    """One annotation."""
    return {"image_id": image_id, "category_id": category_id, "bbox": list(bbox), **more}


def write(
    folder: Path,
    annotations: Sequence[Any],
    *,
    names: Sequence[str] = ("blue", "green", "red"),
    **changes: Any,
) -> Path:
    """Writes two pictures and their annotations, category ids from 1; returns the JSON file."""
    folder.mkdir(exist_ok=True)
    images = []
    for index, color in enumerate(COLORS_BGR):
        picture = np.full((HEIGHT, WIDTH, 3), color, np.uint8)
        assert cv2.imwrite(str(folder / f"{index}.png"), picture)
        images.append(
            {"id": index + 1, "file_name": f"{index}.png", "height": HEIGHT, "width": WIDTH}
        )
    data = {
        "images": images,
        "annotations": list(annotations),
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(names)],
    } | changes
    path = folder / "instances.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
