"""`bench`: small networks, compiled and measured for real, mostly against ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx_models
import pytest

import tvmdet
from tvmdet.errors import InputError
from tvmdet.report import Result, load_result
from tvmdet.report.environments import find_python
from tvmdet.report.rivals import RIVALS, Rival


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An ONNX detector, the file compiled from it, and the one of the network alone."""
    folder = tmp_path_factory.mktemp("bench")
    onnx = onnx_models.save(onnx_models.yolov8(batch="n"), folder / "m.onnx")
    for name, raw in (("detector", False), ("network", True)):
        tvmdet.compile(
            tvmdet.import_onnx(onnx, raw=raw),
            batch_sizes=(1, 2),
            output=folder / f"{name}.tvmdet",
            threads=1,
        )
    return onnx, folder / "detector.tvmdet", folder / "network.tvmdet"


def check_entry(entry: dict[str, Any], rounds: int) -> None:
    assert entry["problem"] == ""
    assert entry["latency"]["count"] == len(entry["rounds_us"]) == rounds
    assert 0 < entry["latency"]["min_ms"] <= entry["latency"]["median_ms"]
    assert entry["latency"]["median_ms"] <= entry["latency"]["p90_ms"] <= entry["latency"]["p99_ms"]


def check_result(result: Result, artifact: Path, onnx: Path) -> None:
    """A result says what was measured, on what, and how to do it again."""
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert (result.artifact.sha256, result.artifact.bytes) == (digest, artifact.stat().st_size)
    assert result.model.sha256 == hashlib.sha256(onnx.read_bytes()).hexdigest()
    assert result.setup is not None
    assert (result.setup.onnx, result.setup.rounds) == (str(onnx), 7)
    assert result.setup.against == ("onnxruntime",)
    assert [member.state for member in result.members] == ["measured"]
    assert result.versions["apache-tvm"]
    assert result.parity is not None
    assert result.created.endswith("+00:00")
    for table in result.tables:
        assert table.noise is not None
        assert len(table.noise.rounds_us) == 7
        assert table.noise.floor > 0.01
        assert len(table.disturbance.yardstick_us) == 7
        for entry in table.entries:
            assert len(entry.warm_up_us) == 3
            assert entry.memory_peak_bytes is not None
            assert entry.memory_peak_bytes > 20e6
        ratio = table.entries[1].tvmdet_over_this
        assert ratio is not None
        assert (ratio.could_see or 0) > 0.01


def test_a_network_against_onnx_runtime(
    run: Callable, built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    onnx, _, network = built
    result = tmp_path / "result.json"
    words = ["--onnx", onnx, "--against", "onnxruntime", "--batch", "1,2", "--rounds", "7"]
    done = run("bench", network, *words, "--threads", "1", "--per-layer", "--json", result)
    assert done.code == 0, done.err
    found = json.loads(result.read_text())
    check_result(load_result(result), network, onnx)
    assert [table["batch_size"] for table in found["tables"]] == [1, 2]
    for table in found["tables"]:
        ours, theirs = table["entries"]
        for entry in (ours, theirs):
            check_entry(entry, 7)
            assert entry["agreement"]["ok"]
            assert entry["gflops"] > 0
        low, high = theirs["tvmdet_over_this"]["interval_95"]
        assert low <= theirs["tvmdet_over_this"]["ratio"] <= high
        assert theirs["tvmdet_over_this"]["verdict"] in done.out
        assert theirs["version"].startswith("onnxruntime ")
    assert found["peak"]["f32_gflops"] > 0
    assert found["machine"]["cpu"] in done.out
    for profile in found["layers"]:
        assert 0 < profile["closure"] < 1.5
        convolutions = [k for k in profile["layers"] if k["anchor"].startswith("conv2d")]
        assert convolutions
        for kernel in convolutions:
            assert kernel["flop"] > 0
            assert kernel["template"] in done.out
    assert "sum of kernels" in done.out


def test_a_detector_alone_is_timed_from_file_to_boxes(
    run: Callable, built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, detector, _ = built
    # Large, so that two clocks beside each other differ by little of what is between them.
    picture = tmp_path / "large.png"
    pixels = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    assert cv2.imwrite(str(picture), pixels)
    done = run(
        *("bench", detector, "--picture", picture, "--rounds", "6", "--threads", "1"),
        *("--json", "-"),
    )
    assert done.code == 0, done.err
    (table,) = json.loads(done.out)["tables"]
    assert table["what"] == "end to end"
    (entry,) = table["entries"]
    check_entry(entry, 6)
    for index, wall_us in enumerate(entry["rounds_us"]):
        stages_us = sum(stage["rounds_us"][index] for stage in entry["stages"])
        # Within 2 %, and what the clock itself takes.
        assert stages_us == pytest.approx(wall_us, rel=0.02, abs=20)
    assert [s["name"] for s in entry["stages"]] == ["decode", "resize", "queue", "network", "map"]


def test_a_detector_against_onnx_runtime_agrees_on_boxes(
    run: Callable, built: tuple[Path, Path, Path]
) -> None:
    onnx, detector, _ = built
    words = ["--onnx", onnx, "--against", "onnxruntime", "--rounds", "6", "--threads", "1"]
    done = run("bench", detector, *words, "--json", "-")
    assert done.code == 0, done.err
    network, whole = json.loads(done.out)["tables"]
    assert (network["what"], whole["what"]) == ("network", "end to end")
    for entry in (*network["entries"], *whole["entries"]):
        check_entry(entry, 6)
    assert whole["entries"][1]["agreement"]["ok"]


def test_a_rival_that_failed_is_in_both_tables(
    run: Callable, built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    onnx, detector, _ = built
    words = ["--onnx", onnx, "--against", "onnxruntime", "--precision", "fp32,bf16"]
    done = run(
        "bench",
        detector,
        *words,
        "--rounds",
        "6",
        "--threads",
        "1",
        f"--json={tmp_path / 'r.json'}",
    )
    assert done.code == 0, done.err
    whole = done.out[done.out.index("end to end: image file in") :]
    assert "onnxruntime bf16: does not compute in bf16" in whole
    assert re.search(r"^onnxruntime bf16 .*not ranked", whole, re.MULTILINE)
    tables = json.loads((tmp_path / "r.json").read_text())["tables"]
    problems = [table["entries"][2]["problem"] for table in tables]
    assert problems[0] and problems == problems[:1] * 2
    assert load_result(tmp_path / "r.json").tables[1].entries[2].rounds_us == ()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "give a compiled FILE.tvmdet"),
        (["{network}", "--against", "onnxruntime"], 1, "give --onnx with --against"),
        (["{network}", "--batch", "3"], 1, "has no code for batch 3, it has 1, 2"),
        (["{detector}", "--batch", "2"], 1, "give --onnx to time the network at batch 2"),
        (["{detector}", "--batch", "1,2"], 1, "give --onnx to time the network at batch 2"),
        (["{network}", "--json", "no/where/r.json"], 1, "cannot write no/where/r.json: No such"),
        (
            ["{network}", "--onnx", "{onnx}", "--against", "onnxruntime", "--precision", "fp8"],
            1,
            "no rival computes in 'fp8'",
        ),
        (["{network}", "--picture", "nowhere.jpg"], 1, "there is no file nowhere.jpg"),
        (["{network}", "--threads", "1024"], 1, "they would be timed waiting for each other"),
        (["{network}", "--price", "cheap"], 2, "'cheap' is no price"),
        (["{network}", "--price", "-1 EUR"], 2, "'-1 EUR' is no price"),
        (["{network}", "--eval", "{onnx}"], 1, "give --eval a file that `tvmdet eval"),
        (["{network}", "--eval", "nowhere.json"], 1, "cannot read nowhere.json"),
        (["{network}", "--duration", "soon"], 2, "'soon' is no time"),
        (["{network}", "--against", "a,,b"], 2, "is no list of names"),
        (["--install", "tensorrt"], 1, "no rival is called 'tensorrt'"),
        (
            ["{network}", "--onnx", "{onnx}", "--against", "tensorrt"],
            1,
            "no rival is called 'tensorrt'",
        ),
    ],
)
def test_what_is_refused(
    run: Callable, built: tuple[Path, Path, Path], words: list[str], code: int, says: str
) -> None:
    onnx, detector, network = built
    places = {"onnx": onnx, "detector": detector, "network": network}
    done = run("bench", *(word.format(**places) for word in words))
    assert done.code == code
    assert says in done.error


def test_wrong_answers_of_tvmdet_fail(run: Callable, built: tuple[Path, Path, Path]) -> None:
    onnx, _, network = built
    words = ["--onnx", onnx, "--tolerance", "0", "--rounds", "6", "--threads", "1", "--json", "-"]
    done = run("bench", network, *words)
    assert done.code == 1
    assert "tvmdet is not timed: network, batch 1: wrong: max error" in done.error
    (table,) = json.loads(done.out)["tables"]
    assert table["entries"][0]["rounds_us"] == []


def test_another_onnx_file_is_refused(
    run: Callable, built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    other = onnx_models.save(onnx_models.yolov8(classes=5), tmp_path / "other.onnx")
    done = run("bench", built[2], "--onnx", other, "--against", "onnxruntime")
    assert done.code == 1
    assert "was not compiled from" in done.error


@pytest.mark.slow
@pytest.mark.parametrize("rival", RIVALS[1:], ids=lambda rival: rival.name)
def test_every_rival_answers_right(run: Callable, tmp_path: Path, rival: Rival) -> None:
    try:
        find_python(rival)
    except InputError as error:
        pytest.skip(str(error))
    onnx = onnx_models.save(onnx_models.picodet(), tmp_path / "m.onnx")
    network = tmp_path / "m.tvmdet"
    model = tvmdet.import_onnx(onnx, raw=True)
    tvmdet.compile(model, batch_sizes=(1, 2), output=network, threads=2)
    words = ["--onnx", onnx, "--against", rival.name, "--batch", "1,2", "--rounds", "6"]
    done = run("bench", network, *words, "--json", "-")
    assert done.code == 0, done.err
    for table in json.loads(done.out)["tables"]:
        check_entry(table["entries"][1], 6)
        assert table["entries"][1]["agreement"]["ok"]
