"""A target file of a user's own, from `compile` to `bench`, also where the file is not at hand."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx_models
import pytest
from tvmdet.targets import get_target, resolve_target

import tvmdet
from tvmdet import tuning
from tvmdet.artifact import Artifact, write_artifact
from tvmdet.errors import ArtifactError, TargetError
from tvmdet.report.file_target import target_of

FOLDER = Path(__file__).parents[2] / "targets"

needs_v3 = pytest.mark.skipif(
    bool(get_target("x86-64-v3").missing_features()), reason="this machine is not x86-64-v3"
)


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small detector beside ``boards/my-box.toml``, with the folder as the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("boards").mkdir()
    text = (FOLDER / "x86-64-v3.toml").read_text(encoding="utf-8")
    Path("boards/my-box.toml").write_text(text, encoding="utf-8")
    cv2.imwrite("x.png", np.zeros((64, 64, 3), np.uint8))
    return onnx_models.save(onnx_models.yolov8(batch="n"), Path("x.onnx"))


@needs_v3
def test_a_file_of_an_own_target_is_made_and_used_without_the_target_file(
    run: Callable, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "boards/my-box.toml"
    done = run("compile", network, "--target", own, "--logs", "no-logs", "-o", "x.tvmdet")
    assert done.code == 0, done.err
    assert f"tvmdet tune x.onnx --target {own}, and compile again" in done.err
    Path(own).unlink()
    assert run("inspect", "x.tvmdet", "--here").out.count("my-box") == 2
    assert run("detect", "x.tvmdet", "x.png").code == 0
    words = ["--onnx", network, "--rounds", "3", "--threads", "1"]
    done = run("bench", "x.tvmdet", *words, "--json", "result.json")
    assert done.code == 0, done.err
    result = json.loads(Path("result.json").read_text(encoding="utf-8"))
    assert result["target"]["name"] == "my-box"
    assert result["peak"]["f32_gflops"] > 0


def test_tuning_for_it_names_its_file_again(
    run: Callable, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Report:
        interrupted = too_short = False

        def to_dict(self) -> dict[str, Any]:
            return {}

    def tuned(_model: Any, *, target: str, **_options: Any) -> Report:
        report = Report()
        report.target = resolve_target(target).name  # type: ignore[attr-defined]
        return report

    monkeypatch.setattr(tuning, "tune", tuned)
    monkeypatch.setattr("tvmdet.cli.tune._print", lambda _report: None)
    for given in ("boards/my-box.toml", "x86-64-v3"):
        done = run("tune", network, "--target", given)
        assert f"next: tvmdet compile x.onnx --target {given} -o x.tvmdet" in done.out, done.err
    assert "--target boards/my-box.toml" in run("targets", "boards/my-box.toml").out
    monkeypatch.setenv("TVMDET_TARGETS", str(Path("boards").absolute()))
    assert "--target my-box" in run("targets", "my-box").out


def _file(path: Path, described: dict[str, Any]) -> Artifact:
    manifest = {
        "format": 3,
        **dict.fromkeys(("tvmdet", "tvm"), "0"),
        **{"model": {}, "spec": {}, "recognition": [], "batch_sizes": [1], "raw": None},
        "parity": None,
        "targets": [
            {
                **{"name": "my-board", "arch": "aarch64", "rank": 1, "required_features": []},
                **{"library": "lib/a.so", "planned_bytes": {}, "weights": [], **described},
            }
        ],
    }
    write_artifact(path, manifest, {"lib/a.so": [b"code"]})
    return Artifact.open(path)


@pytest.mark.parametrize("name", ["cortex-a76", "sm_90", "sapphirerapids"])
def test_the_target_in_a_file_is_the_one_that_it_was_made_for(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    precision = target.precisions[-1]
    described = json.loads(json.dumps(dataclasses.asdict(target)))
    artifact = _file(tmp_path / "x.tvmdet", {"described": described, "precision": precision})
    assert target_of(artifact, "my-board") == target.at_precision(precision)


def test_what_is_no_description_of_a_target_is_refused(tmp_path: Path) -> None:
    artifact = _file(tmp_path / "x.tvmdet", {"described": {"name": 5}})
    with pytest.raises(ArtifactError, match=re.escape("cannot be used: name is 5, not a text")):
        target_of(artifact, "my-board")
    with pytest.raises(TargetError, match="unknown target 'my-board'"):
        target_of(_file(tmp_path / "old.tvmdet", {}), "my-board")


def test_a_target_that_requires_too_little_is_refused_by_every_verb(
    run: Callable, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be loaded where its code is an illegal instruction."""
    text = (FOLDER / "sapphirerapids.toml").read_text(encoding="utf-8")
    text = re.sub(r"required_features = \[\"cx16.*", 'required_features = ["fpu"]', text)
    Path("boards/bad.toml").write_text(text, encoding="utf-8")
    for verb in (["compile", network, "--target"], ["tune", network, "--target"], ["targets"]):
        done = run(*verb, "boards/bad.toml")
        assert done.code == 1
        assert "target file boards/bad.toml cannot be compiled for" in done.error
        assert "required_features in [cpu] lacks what LLVM may use" in done.error
    assert not Path("x.tvmdet").exists()
    with pytest.raises(TargetError, match=r"required_features in .cpu. lacks what LLVM"):
        tvmdet.compile(tvmdet.import_onnx(network), target="boards/bad.toml", output="x.tvmdet")
    monkeypatch.setenv("TVMDET_TARGETS", str(Path("boards").absolute()))
    done = run("targets")
    assert done.code == 0
    assert "my-box" in done.out
    assert "boards/bad.toml cannot be compiled for" in done.err
    assert "bad" not in done.out
