"""A file opened by tvmdet itself on aarch64, under QEMU: the same detections as on x86.

Needs a tree that ``scripts/arm-python FOLDER`` makes, named by ``TVMDET_ARM_PYTHON``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from assertions import assert_close

import tvmdet
from tvmdet.compiler.images import draw_images

ROOT = Path(__file__).parents[2]
ZOO = ROOT / "tests" / "zoo"
TREE = os.environ.get("TVMDET_ARM_PYTHON", "")
CORE = "cortex-a76"

pytestmark = [
    pytest.mark.arm,
    pytest.mark.slow,
    pytest.mark.skipif(not TREE, reason="TVMDET_ARM_PYTHON names no tree of scripts/arm-python"),
]

DETECT = """
import json, platform, sys
import tvmdet
detector = tvmdet.load(sys.argv[1])
found = detector.detect(sys.argv[3:], score=0.05)
told = {"machine": platform.machine(), "target": detector.target}
told["found"] = [one.to_dict()["detections"] for one in found]
open(sys.argv[2], "w").write(json.dumps(told))
"""


def test_the_same_file_finds_the_same_on_arm(tmp_path: Path) -> None:
    output, told = tmp_path / "all.tvmdet", tmp_path / "told.json"
    model = tvmdet.import_onnx(ZOO / "models" / "shapes_one_stage.onnx")
    tvmdet.compile(model, target=("host", CORE), output=output, logs=tmp_path / "no logs")
    height, width = model.spec.input.size_hw
    pictures = []
    for scale in (1.0, 1.6, 2.0, 3.3):  # KleidiCV's way to resize differs for some
        drawn = draw_images((round(height * scale), round(width * scale)))[4:6]
        for image in drawn:
            pictures.append(tmp_path / f"{image.name} {scale}.png")
            cv2.imwrite(str(pictures[-1]), image.pixels)
    qemu = shutil.which("qemu-aarch64")
    assert qemu is not None, "install qemu-user"
    python = Path(TREE, "usr/bin/python3")
    words = [qemu, "-cpu", CORE, "-L", TREE, python, "-c", DETECT, output, told, *pictures]
    site = Path(TREE, "usr/lib/python3/site")
    environment = {"PYTHONPATH": f"{site}:{_package(tmp_path)}", "PYTHONDONTWRITEBYTECODE": "1"}
    where = {
        "cwd": tmp_path,
        "env": environment,
    }  # from the checkout it would be imported as it lies
    subprocess.run(list(map(str, words)), **where, check=True, timeout=600)
    there = json.loads(told.read_text())
    assert (there["machine"], there["target"]) == ("aarch64", CORE)
    with tvmdet.load(output) as detector:
        here = detector.detect(pictures, score=0.05)
    assert sum(len(one) for one in here) > 20
    for mine, theirs in zip(here, there["found"], strict=True):
        assert list(mine.class_ids) == [one["class_id"] for one in theirs]
        boxes = np.array([one["box_xyxy"] for one in theirs]).reshape(-1, 4)
        assert_close(mine.boxes_xyxy, boxes, atol=0.01)
        assert_close(mine.scores, np.array([one["score"] for one in theirs]), atol=1e-4)


def _package(folder: Path) -> Path:
    """Makes a folder to import tvmdet from, as it is installed."""
    package = folder / "package" / "tvmdet"
    package.mkdir(parents=True)
    parts = [*(ROOT / "tvmdet").iterdir()]
    for part in (*parts, *(ROOT / name for name in ("schedules", "targets", "tuning_logs"))):
        (package / part.name).symlink_to(part)
    return package.parent
