"""Annotated pictures and videos, each under a name of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tvmdet.cli.files import make_folder, written_whole
from tvmdet.counted import counted
from tvmdet.errors import InputError
from tvmdet.sizes import size_text
from tvmdet.suffixes import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tvmdet.cli.sources import Found
    from tvmdet.detections import Detections

__all__ = ["Picture", "PictureFolder", "VideoFile"]

# Formats that OpenCV reads; boxes in colour are written in others.
_AS_PNG = frozenset({".avif", ".gif", ".jp2", ".pgm", ".pnm", ".ppm"})
_OPTION = "--save"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An annotated picture, ready to be written.

    Attributes:
        source: What it shows.
        suffix: Of its file's name.
        encoded: Its file's contents.
    """

    source: Found
    suffix: str
    encoded: bytes


class PictureFolder:
    """A folder of annotated pictures and videos that mirrors where the sources lie."""

    def __init__(self, folder: Path, sources: Iterable[Found]) -> None:
        """Makes the folder.

        Args:
            folder: Where to write.
            sources: None of these is ever written over.

        Raises:
            InputError: The folder cannot be made.
        """
        self.folder = folder
        self.count = 0
        self._taken = {os.path.realpath(source.path) for source in sources}
        make_folder(folder, _OPTION)

    def draw(self, source: Found, found: Detections) -> Picture:
        """Draws the detections on the image.

        Raises:
            InputError: The image cannot be read any more, or the picture not be encoded: of
                this source nothing can be saved, of others it can.
        """
        import cv2

        from tvmdet.runtime.images import load_image

        suffix = source.path.suffix.lower()
        if suffix not in IMAGE_SUFFIXES - _AS_PNG:
            suffix = ".png"
        drawn = found.draw(load_image(source.path))
        try:
            encoded, data = cv2.imencode(suffix, drawn)
        except cv2.error:
            encoded, data = False, None
        if not encoded or data is None:
            height, width = drawn.shape[:2]
            raise InputError(
                f"image {source.path}, {size_text((height, width))}, cannot be saved as {suffix}: "
                "it is too large for that format; convert it to PNG, or use --json alone"
            )
        return Picture(source=source, suffix=suffix, encoded=data.tobytes())

    def save(self, picture: Picture) -> Path:
        """Writes a picture; returns where.

        Raises:
            InputError: The folder cannot be written.
        """
        path = self._claim(picture.source, picture.suffix)
        with written_whole(path, _OPTION) as temporary:
            temporary.write_bytes(picture.encoded)
        self.count += 1
        return path

    @contextmanager
    def video(self, source: Found) -> Iterator[VideoFile]:
        """Yields a video to add annotated frames to; it appears when the block ends well.

        Raises:
            InputError: The video cannot be written.
        """
        path = self._claim(source, ".mp4")
        with written_whole(path, _OPTION) as temporary:
            video = VideoFile(temporary, frames_per_s=_frame_rate(source.path))
            try:
                yield video
            finally:
                video.close()
            video.check(path)
        self.count += 1

    def _claim(self, source: Found, suffix: str) -> Path:
        """Returns a path in the folder that nothing else of this run has."""
        # A relative part such as ".." would lead out of the folder.
        parts = [part for part in source.relative.parts if part not in ("..", "/")]
        wanted = self.folder.joinpath(*parts).with_suffix(suffix)
        path, number = wanted, 1
        while os.path.realpath(path) in self._taken:
            number += 1
            path = wanted.with_name(f"{wanted.stem}-{number}{suffix}")
        self._taken.add(os.path.realpath(path))
        make_folder(path.parent, _OPTION)
        return path


class VideoFile:
    """An MP4 file, opened when its first frame says how large it is."""

    def __init__(self, path: Path, *, frames_per_s: float) -> None:
        """Takes where to write."""
        self._path = path
        self._frames_per_s = frames_per_s
        self._writer: object | None = None
        self._frames = 0

    def add(self, frame: npt.NDArray[np.uint8]) -> None:
        """Adds one BGR frame.

        Raises:
            InputError: OpenCV cannot write MP4 here.
        """
        import cv2

        if self._writer is None:
            height, width = frame.shape[:2]
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(
                str(self._path), codec, self._frames_per_s, (width, height)
            )
            if not self._writer.isOpened():
                raise InputError(
                    f"cannot write a video of {size_text((height, width))} in "
                    f"{self._path.parent}; "
                    f"choose another place with {_OPTION}, or use --json"
                )
        assert isinstance(self._writer, cv2.VideoWriter)
        self._writer.write(frame)
        self._frames += 1

    def close(self) -> None:
        """Finishes the file."""
        import cv2

        if isinstance(self._writer, cv2.VideoWriter):
            self._writer.release()

    def check(self, path: Path) -> None:
        """Makes sure that all frames arrived: OpenCV does not say when the disk is full.

        Raises:
            InputError: The video is incomplete.
        """
        import cv2

        written = cv2.VideoCapture(str(self._path))
        count = max(int(written.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        written.release()
        if count != self._frames:
            raise InputError(
                f"cannot write {path}: {count} of {counted(self._frames, 'frame')} arrived; "
                f"free some space or choose another place with {_OPTION}"
            )


def _frame_rate(path: Path) -> float:
    import cv2

    capture = cv2.VideoCapture(str(path))
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    capture.release()
    return rate if 1.0 <= rate <= 240.0 else 25.0
