"""One command from ONNX to a file for several machines: the same detections on each."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from assertions import assert_close, assert_detections_close
from tvmdet.targets import get_target

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.board.detector import load_on_board
from tvmdet.board.emulator import Emulator, why_no_emulator
from tvmdet.board.session import BoardAddress
from tvmdet.cli import main
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.errors import ParityError

compiling: Any = importlib.import_module("tvmdet.compiler.compile")  # not the function

ZOO = Path(__file__).parents[1] / "zoo"
sys.path.append(str(ZOO))
import shapes  # noqa: E402

pytestmark = pytest.mark.arm

CORES = ("cortex-a72", "cortex-a76")

SPECS = {
    "shapes_one_stage": "",
    "shapes_queries": f"labels = {json.dumps(shapes.LABELS)}\n",
}


@pytest.mark.parametrize(
    "network",
    ["shapes_one_stage", pytest.param("shapes_queries", marks=pytest.mark.slow)],
)
def test_the_same_detections_on_every_machine(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing := why_no_emulator():
        pytest.skip(missing)
    spec, output = tmp_path / "spec.toml", tmp_path / "all.tvmdet"
    spec.write_text(SPECS[network], encoding="utf-8")
    words = ["compile", ZOO / "models" / f"{network}.onnx", "--target", ",".join(("host", *CORES))]
    words += ["--spec", spec, "-o", output, "--logs", tmp_path / "no logs", "--json"]
    assert main([*map(str, words)]) == 0
    parity = json.loads(capsys.readouterr().out)["parity"]
    for name in CORES:
        certificate = parity[name]
        assert certificate["emulated"] == f"qemu-aarch64 -cpu {name}"
        assert certificate["boxes"] > 0
        assert certificate["worst_iou"] >= 0.99 and certificate["worst_score_drift"] <= 1e-3

    picture = shapes.draw(5).pixels
    with tvmdet.load(output) as here:
        assert here.target == get_target("host").name
        expected = here.detect(picture, score=0.1)
    assert len(expected) > 0
    for name in CORES:
        with Emulator(name) as board:
            address = BoardAddress(host="127.0.0.1", port=board.port)
            with load_on_board(output, address, name) as there:
                found = there.detect(picture, score=0.1)
            with pytest.raises(tvmdet.TargetError, match=f"no target 'z80'; it holds: .*{name}"):
                load_on_board(output, address, "z80")
        assert_detections_close(found, expected, score_threshold=0.1)


@pytest.mark.parametrize("refused", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_float16_is_within_its_tolerance(
    refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first attempts are not, layers are taken back to float32."""
    if missing := why_no_emulator():
        pytest.skip(missing)
    attempts: list[Any] = []
    check = compiling._Build._check

    def check_later(*arguments: Any) -> Any:
        attempts.append(arguments)
        if len(attempts) <= refused:
            raise ParityError("too far")
        return check(*arguments)

    monkeypatch.setattr(compiling._Build, "_check", check_later)
    source = onnx_models.save(onnx_models.yolov8(batch="n"), tmp_path / "small.onnx")
    report = tvmdet.compile(
        tvmdet.import_onnx(source),
        target="cortex-a76",
        output=tmp_path / "small.tvmdet",
        logs=tmp_path / "no logs",
        precision="fp16",
    )
    certificate, allowed = report.parity["cortex-a76"], Tolerance.at_precision("fp16")
    assert certificate["emulated"] == "qemu-aarch64 -cpu cortex-a76"
    assert certificate["boxes"] > 0
    assert certificate["worst_iou"] >= allowed.iou
    assert certificate["worst_score_drift"] <= allowed.score
    (entry,) = Artifact.open(report.output).manifest["targets"]
    assert set(entry["required_features"]) >= {"fphp", "asimdhp"}
    anchors = [one["anchor"] for one in entry["kernels"].values()]
    plain = [anchor for anchor in anchors if anchor.startswith("conv2d ")]
    assert any(anchor.startswith("fp16_conv2d ") for anchor in anchors)
    assert bool(plain) == bool(refused)
    assert len(attempts) == refused + 1


def test_the_same_rows_in_batches(tmp_path: Path) -> None:
    """A seeded network, whose boxes may be lines: row by row, in a batch that is padded."""
    if missing := why_no_emulator():
        pytest.skip(missing)
    source = onnx_models.save(onnx_models.yolov8(batch="n"), tmp_path / "small.onnx")
    report = tvmdet.compile(
        tvmdet.import_onnx(source),
        target=["host", "neoverse-n1"],
        batch_sizes=(1, 2),
        output=tmp_path / "small.tvmdet",
        logs=tmp_path / "no logs",
    )
    assert report.parity["neoverse-n1"]["batch_sizes"] == [1, 2]
    pictures = [*np.random.default_rng(0).integers(0, 256, (3, 70, 90, 3), np.uint8)]
    with tvmdet.load(report.output) as here:
        expected = here.detect(pictures, score=0.05)
    with Emulator("neoverse-n1") as board:
        address = BoardAddress(host="127.0.0.1", port=board.port)
        with load_on_board(report.output, address, "neoverse-n1") as there:
            found = there.detect(pictures, score=0.05)
    for mine, other in zip(found, expected, strict=True):
        assert len(mine) == len(other) > 0
        assert_close(mine.scores, other.scores, atol=1e-3)
        assert_close(mine.boxes_xyxy, other.boxes_xyxy, atol=0.05)


def test_a_batch_on_large_maps_is_computed_by_picture(tmp_path: Path) -> None:
    if missing := why_no_emulator():
        pytest.skip(missing)
    graph = onnx_models.Graph()
    first = graph.node("Relu", graph.conv("picture", (3, 16), 3, pads=[1, 1, 1, 1]))
    second = graph.node("Add", graph.conv(first, (16, 16), 1), first)
    proto = graph.model({"picture": ["n", 3, 96, 96]}, {second: None})
    model = tvmdet.import_onnx(onnx_models.save(proto, tmp_path / "net.onnx"), raw=True)
    output = tmp_path / "net.tvmdet"
    report = tvmdet.compile(model, target="cortex-a76", batch_sizes=3, output=output)
    certificate = report.parity["cortex-a76"]
    assert certificate["batch_sizes"] == [3]
    assert certificate["emulated"] == "qemu-aarch64 -cpu cortex-a76"
    (member,) = Artifact.open(output).manifest["targets"]
    anchors = [kernel["anchor"] for kernel in member["kernels"].values()]
    assert [anchor.split()[1] for anchor in anchors if "conv2d" in anchor] == ["n1", "n1"]
