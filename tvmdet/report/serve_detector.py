"""tvmdet from the image file to the boxes; run by ``rivals/serve.py`` in a process of its own."""

from __future__ import annotations

import time
from typing import Any

import tvmdet

__all__ = ["CALLS", "detect", "open_detector"]

_opened: list[Any] = []


def open_detector(artifact: str, target: str, threads: int) -> str:
    """Loads a detector; returns its version."""
    _opened[:] = [tvmdet.load(artifact, threads=threads, target=target)]
    return f"tvmdet {tvmdet.__version__}"


def detect(picture: str, untimed: int) -> dict[str, Any]:
    """Detects in a picture; returns what it found, and the seconds of all and of each stage."""
    (detector,) = _opened
    for _ in range(untimed):
        detector.detect(picture)
    start = time.perf_counter()
    found, seconds = detector.detect_timed(picture)
    wall = time.perf_counter() - start
    return {
        "boxes_xyxy": found.boxes_xyxy.tolist(),
        "scores": found.scores.tolist(),
        "class_ids": found.class_ids.tolist(),
        "stages": seconds,
        "seconds": wall,
    }


CALLS = {"open": open_detector, "detect": detect}
