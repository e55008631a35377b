"""Videos, frame by frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

import cv2

from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.runtime.images import Image, as_bgr

__all__ = ["VideoSource", "iterate_video"]

VideoSource: TypeAlias = str | os.PathLike[str] | cv2.VideoCapture


def iterate_video(
    video: VideoSource, detect: Callable[[Image], Detections]
) -> Iterator[tuple[Image, Detections]]:
    """Opens a video now and returns an iterator that decodes each frame when asked for it.

    Args:
        video: A path, or an opened ``cv2.VideoCapture``, which is not released.
        detect: Called on every frame.

    Raises:
        InputError: The video cannot be opened; from the iterator, no frame of a path's video
            can be decoded.
    """
    if isinstance(video, cv2.VideoCapture):
        if not video.isOpened():
            raise InputError("the video capture is not opened; open it, or give a path")
        return _frames(video, detect)
    if not isinstance(video, str | os.PathLike):
        raise InputError(
            f"video is a {type(video).__name__}; allowed: a path or a cv2.VideoCapture"
        )
    path = os.fspath(video)
    if "://" not in path and not os.path.isfile(path):
        raise InputError(f"video {path} is not a file; give the path of a video")
    capture = cv2.VideoCapture(path)
    if not capture.isOpened():
        raise InputError(
            f"video {path} cannot be decoded; allowed: what OpenCV reads, such as MP4, AVI, MKV"
        )
    return _frames(capture, detect, path=path)


def _frames(
    capture: cv2.VideoCapture,
    detect: Callable[[Image], Detections],
    *,
    path: str | None = None,
) -> Iterator[tuple[Image, Detections]]:
    """Reads to the end; a capture of a path was opened here, and is released here."""
    frames = 0
    try:
        while True:
            more, frame = capture.read()
            if not more:
                break
            frames += 1
            image = as_bgr(frame)
            yield image, detect(image)
    finally:
        if path is not None:
            capture.release()
    # A file whose header is whole opens, whatever follows it.
    if path is not None and not frames:
        raise InputError(
            f"video {path} has no frame that can be decoded; copy it again or convert it"
        )
