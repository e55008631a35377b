"""`tvmdet detect`, on a toy detector that is really compiled."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tvmdet.cpus import usable_cpu_count
from tvmdet.rle import decode_rle


def test_one_image_lists_its_boxes(run: Callable, toy_path: Path, images: Path) -> None:
    done = run("detect", toy_path, images / "a.png")
    assert (done.code, done.err) == (0, "")
    assert "a.png, 20x30 (height x width): 3 objects" in done.out
    assert "blue" in done.out
    assert f"next: tvmdet detect {toy_path} {images / 'a.png'} --save found" in done.out


def test_only_the_runtime_is_imported(toy_path: Path, images: Path) -> None:
    script = (
        "import sys; from tvmdet.cli import main\n"
        "code = main(['detect', *sys.argv[1:], '--json', '-'])\n"
        "print(code, *sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, str(toy_path), str(images / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *modules = done.stderr.split()
    assert code == "0"
    heavy = {"onnx", "onnxruntime", "torch", "tvm", "tvmdet.compiler", "tvmdet.frontend"}
    assert not heavy & set(modules)


def test_folder_counts_per_source_and_class(run: Callable, toy_path: Path, images: Path) -> None:
    done = run("detect", toy_path, images)
    assert done.code == 0
    assert "deep/a.png" in done.out
    assert "height x width" in done.out and "20x30" in done.out
    assert "9 objects in 3 sources: 3 blue, 3 green, 3 red" in done.out


def test_thresholds_reach_the_detector(run: Callable, toy_path: Path, images: Path) -> None:
    assert "2 objects" in run("detect", toy_path, images / "a.png", "--iou", "0.4").out
    assert "0 objects" in run("detect", toy_path, images / "a.png", "--score", "1").out


def test_more_threads_than_cpus_are_warned_of(run: Callable, toy_path: Path, images: Path) -> None:
    more = usable_cpu_count() + 1
    done = run("detect", toy_path, images / "a.png", "--threads", more)
    assert done.code == 0
    assert f"warning: {more} threads asked for, and this process may use" in done.err
    assert "threads" not in run("detect", toy_path, images / "a.png", "--threads", more - 1).err


def test_json_file(run: Callable, toy_path: Path, images: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "found.json"
    assert run("detect", toy_path, images, "--json", path).code == 0
    found = json.loads(path.read_text())
    assert found["target"] == "toy"
    assert [Path(entry["source"]).name for entry in found["images"]] == ["a.jpg", "a.png", "a.png"]
    first = found["images"][0]
    assert first["image_size_hw"] == [20, 30]
    assert set(first["detections"][0]) == {"label", "class_id", "score", "box_xyxy"}
    assert list(path.parent.iterdir()) == [path]


def test_masks_are_in_the_json_and_on_the_pictures(
    run: Callable, masks_path: Path, toy_path: Path, images: Path, tmp_path: Path
) -> None:
    path, out, plain = tmp_path / "found.json", tmp_path / "out", tmp_path / "plain"
    source = images / "a.png"
    cv2.imwrite(str(source), np.full((200, 300, 3), 255, np.uint8))
    assert run("detect", masks_path, source, "--json", path, "--save", out).code == 0
    entries = json.loads(path.read_text())["images"][0]["detections"]
    assert len(entries) == 3
    masks = [decode_rle(entry["mask_rle"]) for entry in entries]
    assert all(mask.shape == (200, 300) and mask.any() for mask in masks)
    assert run("detect", toy_path, source, "--save", plain).code == 0
    with_masks, without = (cv2.imread(str(folder / "a.png")) for folder in (out, plain))
    changed = (with_masks != without).any(axis=-1)
    assert changed.sum() > 1000


def test_json_on_stdout_is_nothing_but_json(run: Callable, toy_path: Path, images: Path) -> None:
    found = json.loads(run("detect", toy_path, images, "--json", "-").out)
    assert len(found["images"]) == 3


def test_bad_images_are_told_and_the_others_done(
    run: Callable, toy_path: Path, images: Path, tmp_path: Path
) -> None:
    (images / "b.png").write_bytes(b"no picture")
    path = tmp_path / "found.json"
    done = run("detect", toy_path, images, images / "missing.jpg", "--json", path)
    assert done.code == 1
    assert done.err.count("skipped: ") == 2
    assert "b.png cannot be decoded" in done.err
    assert "missing.jpg cannot be read" in done.err
    assert "2 of 5 sources failed, as said above" in done.error
    assert "9 objects in 3 sources" in done.out
    errors = [entry["error"] for entry in json.loads(path.read_text())["images"]]
    assert sum(error is not None for error in errors) == 2


def test_no_image_at_all(run: Callable, toy_path: Path, tmp_path: Path) -> None:
    done = run("detect", toy_path, tmp_path, "--save", tmp_path / "out")
    assert done.code == 1
    assert "names no image and no video" in done.error
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_one_stem_keep_apart(
    run: Callable, toy_path: Path, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [images, images / "deep" / "a.png", f"{images}/deep/*.png", "--save", out]
    (images / "deep" / "b.png").write_bytes((images / "a.png").read_bytes())
    other = tmp_path / "other" / "a.png"
    other.parent.mkdir()
    other.write_bytes((images / "a.png").read_bytes())
    assert run("detect", toy_path, *words, other).code == 0
    saved = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert saved == ["a-2.png", "a.jpg", "a.png", "deep/a.png", "deep/b.png"]
    assert cv2.imread(str(out / "a.png")).shape == (20, 30, 3)


def test_sources_are_never_written_over(run: Callable, toy_path: Path, images: Path) -> None:
    before = (images / "a.png").read_bytes()
    assert run("detect", toy_path, images / "a.png", "--save", images).code == 0
    assert (images / "a.png").read_bytes() == before
    assert (images / "a-2.png").exists()


def test_full_disk_leaves_nothing_half_written(
    run: Callable,
    toy_path: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            if ".part" not in self.name:  # the runtime's own files
                return file.write(data)
            file.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "out"
    done = run("detect", toy_path, images / "a.png", "--save", out, "--json", out / "found.json")
    assert done.code == 1
    assert "No space left on device; free some space" in done.error
    assert list(out.iterdir()) == []


def test_folder_that_cannot_be_made(
    run: Callable, toy_path: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run("detect", toy_path, images, "--save", tmp_path / "file" / "out")
    assert done.code == 1
    assert "choose another place with --save" in done.error


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (48, 32))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MP4")
    for _ in range(5):
        writer.write(np.full((32, 48, 3), 255, np.uint8))
    writer.release()
    return path


def test_video(run: Callable, toy_path: Path, video: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "found.json"
    done = run("detect", toy_path, video, "--save", out, "--json", path)
    assert done.code == 0
    assert "clip.mp4 (5 frames)" in done.out
    entries = json.loads(path.read_text())["images"]
    assert [entry["frame"] for entry in entries] == [0, 1, 2, 3, 4]
    written = cv2.VideoCapture(str(out / "clip.mp4"))
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert written.get(cv2.CAP_PROP_FPS) == 10
    assert [p.name for p in out.iterdir()] == ["clip.mp4"]


def test_video_that_cannot_be_decoded(
    run: Callable, toy_path: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    done = run("detect", toy_path, tmp_path / "bad.mp4", images / "a.png")
    assert done.code == 1
    assert "bad.mp4 cannot be decoded" in done.err
    assert "3 objects" in done.out


def test_video_without_a_frame_is_told_and_the_others_done(
    run: Callable, toy_path: Path, images: Path, video: Path, tmp_path: Path
) -> None:
    whole = video.read_bytes()
    start = whole.index(b"mdat") + 4
    end = whole.index(b"moov") - 4
    # The header is as it was, so that the file opens; what it points to is no picture.
    video.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened() or capture.read()[0]:
        pytest.skip("this OpenCV decodes a video without pictures, or does not open it")
    out, path = tmp_path / "out", tmp_path / "found.json"
    words = [video, images / "a.png"]
    for options in (["--json", path], ["--json", path, "--save", out]):
        done = run("detect", toy_path, *words, *options)
        assert done.code == 1
        assert done.err.count("skipped: ") == 1
        assert "clip.mp4 has no frame that can be decoded" in done.err
        assert "1 of 2 sources failed" in done.error
        entries = json.loads(path.read_text())["images"]
        assert [entry["error"] is None for entry in entries] == [False, True]
    assert [entry.name for entry in out.iterdir()] == ["a.png"]


def test_picture_that_cannot_be_encoded_is_told_and_the_others_done(
    run: Callable, toy_path: Path, images: Path, tmp_path: Path
) -> None:
    encoded = cv2.imencode(".png", np.full((2, 66000, 3), 255, np.uint8))[1]
    # A PNG by its contents; no JPEG is wider than 65535.
    (images / "a.jpg").write_bytes(encoded.tobytes())
    out, path = tmp_path / "out", tmp_path / "found.json"
    done = run("detect", toy_path, images, "--save", out, "--json", path)
    assert done.code == 1
    assert done.err.count("skipped: ") == 1
    assert "a.jpg, 2x66000 (height x width), cannot be saved as .jpg" in done.err
    assert "1 of 3 sources failed" in done.error
    assert len(json.loads(path.read_text())["images"]) == 3
    saved = sorted(str(entry.relative_to(out)) for entry in out.rglob("*.*"))
    assert saved == ["a.png", "deep/a.png"]


def test_raw_network_is_refused(run: Callable, raw_path: Path, images: Path) -> None:
    done = run("detect", raw_path, images / "a.png")
    assert done.code == 1
    assert "was compiled with --raw" in done.error
