from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tvmdet.errors import InputError
from tvmdet.runtime import Detector, load

COLORS = [(250, 20, 20), (20, 250, 20), (20, 20, 250)]


@pytest.fixture(scope="module")
def detector(toy_path: Path) -> Iterator[Detector]:
    with load(toy_path) as detector:
        yield detector


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "colors.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    assert writer.isOpened()
    for color in COLORS:
        writer.write(np.full((64, 96, 3), color, np.uint8))
    writer.release()
    return path


def test_every_frame_in_order(detector: Detector, video: Path) -> None:
    labels = []
    for frame, found in detector.detect_video(video, score=0.5):
        assert frame.shape == (64, 96, 3)
        assert found.image_size_hw == (64, 96)
        labels.append(found.labels)
    assert labels == [("blue",), ("green",), ("red",)]


def test_a_capture_stays_the_callers_and_is_read_lazily(detector: Detector, video: Path) -> None:
    capture = cv2.VideoCapture(str(video))
    frames = detector.detect_video(capture)
    next(frames)
    assert capture.get(cv2.CAP_PROP_POS_FRAMES) == 1
    frames.close()  # type: ignore[attr-defined]
    assert capture.isOpened()
    assert len(list(detector.detect_video(capture))) == 2
    capture.release()
    with pytest.raises(InputError, match="capture is not opened"):
        detector.detect_video(capture)


def test_a_video_without_a_frame_is_refused_when_read(
    detector: Detector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Blank:
        """A video whose header is whole and whose frames are not."""

        released = False

        def __init__(self, path: str) -> None:
            assert path == str(tmp_path / "x.avi")

        def isOpened(self) -> bool:
            return True

        def read(self) -> tuple[bool, None]:
            return False, None

        def release(self) -> None:
            Blank.released = True

    (tmp_path / "x.avi").touch()
    monkeypatch.setattr(cv2, "VideoCapture", Blank)
    frames = detector.detect_video(tmp_path / "x.avi")
    with pytest.raises(InputError, match=r"x\.avi has no frame that can be decoded"):
        list(frames)
    assert Blank.released


def test_refuses_at_once_what_is_no_video(detector: Detector, tmp_path: Path) -> None:
    text = tmp_path / "x.mp4"
    text.write_text("no video")
    with pytest.raises(InputError, match=r"x\.mp4 cannot be decoded"):
        detector.detect_video(text)
    with pytest.raises(InputError, match="is not a file"):
        detector.detect_video(tmp_path / "missing.mp4")
    with pytest.raises(InputError, match="video is a int"):
        detector.detect_video(0)  # type: ignore[arg-type]
