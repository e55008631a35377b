"""Pictures that users really pass, through a real detector and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pictures
import pytest

import tvmdet
from tvmdet.errors import ArtifactError, InputError, TargetError
from tvmdet.runtime.loader import Host, load


def _cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from tvmdet.cli import main; sys.exit(main(sys.argv[1:]))",
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _same(a: Any, b: Any) -> None:
    np.testing.assert_array_equal(a.boxes_xyxy, b.boxes_xyxy)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.class_ids, b.class_ids)


def test_no_pictures(nudenet: Any) -> None:
    assert nudenet.detector.detect([]) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (1, 700, 3), (700, 1, 3), (2, 3, 1)], ids=str)
def test_the_smallest_pictures(nudenet: Any, shape: tuple[int, ...]) -> None:
    image = np.full(shape, 200, np.uint8)
    found = nudenet.detector.detect(image, score=0.0)
    assert found.error is None and found.image_size_hw == shape[:2]
    assert np.all(found.boxes_xyxy >= 0)
    assert np.all(found.boxes_xyxy <= [shape[1], shape[0], shape[1], shape[0]])


def test_a_picture_of_12000_by_9000(nudenet: Any) -> None:
    small = pictures.read("astronaut.png")
    image = cv2.resize(small, (12000, 9000), interpolation=cv2.INTER_NEAREST)
    found = nudenet.detector.detect([image, small])
    assert [one.image_size_hw for one in found] == [(9000, 12000), (512, 512)]
    assert "FACE_FEMALE" in found[0].labels
    face = found[0].boxes_xyxy[found[0].labels.index("FACE_FEMALE")]
    # The same face, 12000 / 512 times as wide and 9000 / 512 times as high.
    assert np.all(np.abs(face / np.array([12000, 9000] * 2) * 512 - [174, 62, 273, 186]) < 40)


def test_grey_is_grey_in_three_channels(nudenet: Any) -> None:
    grey = cv2.cvtColor(pictures.read("astronaut.png"), cv2.COLOR_BGR2GRAY)
    expected = nudenet.detector.detect(np.dstack([grey] * 3), score=0.05)
    assert len(expected) > 0
    _same(nudenet.detector.detect(grey, score=0.05), expected)
    _same(nudenet.detector.detect(grey[..., None], score=0.05), expected)


def test_transparency_is_dropped(nudenet: Any) -> None:
    image = pictures.read("astronaut.png")
    alpha = np.random.default_rng(0).integers(0, 256, image.shape[:2], np.uint8)
    expected = nudenet.detector.detect(image, score=0.05)
    _same(nudenet.detector.detect(np.dstack([image, alpha]), score=0.05), expected)


def test_16_bit_files_and_arrays(nudenet: Any, tmp_path: Path) -> None:
    image = pictures.read("astronaut.png")
    deep = image.astype(np.uint16) * 256 + 77
    path = tmp_path / "deep.png"
    assert cv2.imwrite(str(path), deep)
    expected = nudenet.detector.detect(image, score=0.05)
    _same(nudenet.detector.detect(deep, score=0.05), expected)
    _same(nudenet.detector.detect(path, score=0.05), expected)


def test_a_bad_picture_in_a_batch_is_reported_and_the_others_are_done(
    nudenet: Any, tmp_path: Path
) -> None:
    good = pictures.read("astronaut.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((pictures.folder() / "coffee.png").read_bytes()[:3000])
    text = tmp_path / "text.jpg"
    text.write_text("not a picture", encoding="utf-8")
    sources = [good, text, tmp_path / "none.png", good.astype(np.float32), good, cut]
    found = nudenet.detector.detect(sources)
    assert [one.error is None for one in found[:5]] == [True, False, False, False, True]
    alone = nudenet.detector.detect(good)
    assert len(alone) > 0
    for index in (0, 4):
        # Another batch size may round otherwise.
        np.testing.assert_allclose(found[index].scores, alone.scores, atol=1e-4)
        assert found[index].labels == alone.labels
    assert "cannot be decoded" in found[1].error and str(text) in found[1].error
    assert "cannot be read" in found[2].error
    assert "dtype float32" in found[3].error
    assert all(len(found[index]) == 0 for index in (1, 2, 3))


@pytest.mark.parametrize("score", [-0.1, 1.5, float("nan"), "high", True])
def test_thresholds_out_of_range(nudenet: Any, score: object) -> None:
    with pytest.raises(InputError, match=r"score is .*allowed: .*0 to 1"):
        nudenet.detector.detect(pictures.read("text.png"), score=score)


def test_an_artifact_for_another_cpu(nudenet: Any) -> None:
    with pytest.raises(TargetError, match=r"cannot run on this machine.*--target host"):
        load(nudenet.artifact, host=Host(arch="x86_64", features=frozenset({"sse4_2"})))


def test_a_flipped_bit_in_the_library(nudenet: Any, tmp_path: Path) -> None:
    data = bytearray(nudenet.artifact.read_bytes())
    data[len(data) // 2] ^= 0x10
    path = tmp_path / "flipped.tvmdet"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"is damaged.*compile it again or copy it again"):
        tvmdet.load(path)


def test_the_command_line_reports_a_bad_picture_and_does_the_others(
    nudenet: Any, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff nothing")
    output = tmp_path / "found.json"
    good = pictures.folder() / "astronaut.png"
    done = _cli("detect", nudenet.artifact, good, bad, "--json", output)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "bad.jpg" in done.stdout + done.stderr
    written = json.loads(output.read_text(encoding="utf-8"))
    assert "FACE_FEMALE" in json.dumps(written) and "cannot be decoded" in json.dumps(written)


@pytest.mark.parametrize("damage", ["truncated", "not a zip", "missing"])
def test_the_command_line_refuses_damaged_files_without_a_traceback(
    nudenet: Any, damage: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.tvmdet"
    if damage == "truncated":
        path.write_bytes(nudenet.artifact.read_bytes()[:-1000])
    elif damage == "not a zip":
        path.write_text("hello", encoding="utf-8")
    done = _cli("detect", path, pictures.folder() / "astronaut.png")
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "model.tvmdet" in said
