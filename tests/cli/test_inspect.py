"""`tvmdet inspect`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import toy_modules

PARITY = {
    "toy": {
        "reference": "onnxruntime 1.0",
        "images": ["one", "two"],
        "batch_sizes": [1, 2],
        "boxes": 17,
        "rank_swaps": 3,
        "worst_iou": 0.9991,
        "worst_score_drift": 2e-6,
        "tolerance": {"iou": 0.99, "score": 0.001},
    },
    "far": {"skipped": "this machine lacks z80"},
}


def write(path: Path, **changes: object) -> Path:
    targets = [toy_modules.toy_target(), toy_modules.toy_target("far", arch="z80", rank=90)]
    return toy_modules.write_toy(path, b"code", targets=targets, **changes)


def test_tables(run: Callable, tmp_path: Path) -> None:
    done = run("inspect", write(tmp_path / "toy.tvmdet", parity=PARITY))
    assert done.code == 0
    for text in (
        "3: blue, green, red",
        "32x48 (height x width)",
        "runs here, used",
        "needs z80, this machine is",
        "batch 2: 0.0 MB",
        "1 default",
        "17 boxes in 2 images at batch 1, 2, 3 others by rounding",
        "IoU 0.9991 (allowed 0.99)",
        "this machine lacks z80",
        "lib/toy.so",
        "next: tvmdet detect",
    ):
        assert text in done.out


def test_masks_are_shown(run: Callable, tmp_path: Path) -> None:
    checked = {
        **PARITY["toy"],
        "masks": 16,
        "worst_mask_iou": 0.9987,
        "mask_pixels": 1000,
        "mask_pixels_at_threshold": 1,
        "tolerance": {"iou": 0.99, "score": 0.001, "mask_iou": 0.98},
    }
    spec = toy_modules.toy_spec(masks={"frame": "image"}).to_dict()
    path = write(tmp_path / "toy.tvmdet", spec=spec, parity={"toy": checked})
    done = run("inspect", path)
    # Lines are broken to the width of the terminal.
    said = " ".join(done.out.split())
    for text in ("masks frame image, threshold 0.5", "16 masks, 17 boxes", "mask IoU 0.9987"):
        assert text in said
    plain = run("inspect", write(tmp_path / "b.tvmdet", parity=PARITY)).out
    assert "masks," not in plain and "frame" not in plain
    found = json.loads(run("inspect", path, "--json").out)
    assert found["spec"]["masks"] == {
        "frame": "image",
        "threshold": 0.5,
        "cut_to_box": True,
        "interpolate": "values",
    }
    assert found["parity"]["toy"]["worst_mask_iou"] == 0.9987


def test_json_is_the_manifest_and_what_runs_here(run: Callable, tmp_path: Path) -> None:
    path = write(tmp_path / "toy.tvmdet")
    found = json.loads(run("inspect", path, "--json").out)
    assert found["here"]["target"] == "toy"
    assert found["bytes"] == path.stat().st_size
    assert found["spec"]["labels"] == ["blue", "green", "red"]
    assert found["members"]["lib/toy.so"]["bytes"] == 4


def test_file_for_another_machine_is_described(run: Callable, tmp_path: Path) -> None:
    targets = [toy_modules.toy_target("far", arch="z80")]
    path = toy_modules.write_toy(tmp_path / "far.tvmdet", b"code", targets=targets)
    done = run("inspect", path)
    assert done.code == 0
    assert "nothing in this file runs on this machine" in done.out
    assert json.loads(run("inspect", path, "--json").out)["here"]["target"] is None


def test_raw_network_shows_its_tensors(run: Callable, tmp_path: Path) -> None:
    spec = toy_modules.toy_spec(family="raw", labels=()).to_dict()
    done = run("inspect", write(tmp_path / "raw.tvmdet", raw=toy_modules.RAW, spec=spec))
    assert "rowsum [n, 3] float32" in done.out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"spec": {}}, "a spec that cannot be used: the spec has no 'family'", id="spec"
        ),
        pytest.param({"raw": {}}, "cannot be used: no 'inputs'", id="raw"),
    ],
)
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_malformed_manifest(
    run: Callable, tmp_path: Path, changes: dict[str, object], message: str, words: tuple[str, ...]
) -> None:
    done = run("inspect", write(tmp_path / "toy.tvmdet", **changes), *words)
    assert (done.code, done.out) == (1, "")
    assert message in done.error
    assert "compile it again" in done.error


def test_damaged_file(run: Callable, tmp_path: Path) -> None:
    path = write(tmp_path / "toy.tvmdet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))
    done = run("inspect", path)
    assert (done.code, done.out) == (1, "")
    assert "is damaged" in done.error
