"""`bench` of an ARM member on a machine that is none: counts by kernel, and no latency anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_models
import pytest

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.board.count_plugin import why_no_counts
from tvmdet.board.kernel_places import kernel_places
from tvmdet.board.pipeline_model import why_no_model
from tvmdet.cli import main
from tvmdet.errors import ArtifactError
from tvmdet.report import load_result
from tvmdet.report.pages import ReportOptions, write_report

pytestmark = pytest.mark.arm


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector for an ARM core, whose parity nobody has checked."""
    if missing := why_no_counts() or why_no_model():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("counted")
    model = tvmdet.import_onnx(onnx_models.save(onnx_models.yolov8(), folder / "small.onnx"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "tvmdet.compiler.check_on_arm_emulator.why_no_emulator", lambda: "not in this test"
        )
        path = folder / "small.tvmdet"
        tvmdet.compile(model, target="cortex-a76", output=path, logs=folder / "no logs")
    return path


@pytest.fixture(scope="module")
def result(compiled: Path) -> Path:
    path = compiled.with_suffix(".json")
    assert main(["bench", str(compiled), "--target", "cortex-a76", "--json", str(path)]) == 0
    return path


def test_every_kernel_is_counted(compiled: Path, result: Path) -> None:
    found = load_result(result)
    assert found.tables == found.layers == ()
    (member,) = found.members
    assert (member.state, member.target) == ("emulated", "cortex-a76")
    (counts,) = member.emulation
    assert counts.emulator.startswith("qemu-aarch64 version 7.") or counts.emulator
    assert counts.instructions == sum(kernel.instructions["all"] for kernel in counts.kernels)
    (entry,) = Artifact.open(compiled).manifest["targets"]
    named = {kernel.name for kernel in counts.kernels}
    assert named == set(entry["kernels"]), "each kernel, and nothing between them"
    assert all(kernel.calls >= 1 for kernel in counts.kernels)
    lanes = 4
    for kernel in counts.kernels:
        if kernel.anchor.startswith("conv2d"):
            assert kernel.flop is not None and kernel.least_cycles is not None
            # Filters of a number that no vector holds are padded, and activations multiply too.
            assert kernel.instructions["fma_f32"] >= kernel.flop / 2 / lanes
            assert kernel.predicted_cycles is not None
            assert kernel.predicted_cycles > kernel.least_cycles
            assert kernel.source == "default"
    cycles = [kernel.predicted_cycles or 0.0 for kernel in counts.kernels]
    assert cycles == sorted(cycles, reverse=True)
    assert counts.predicted_cycles == pytest.approx(sum(cycles))


def test_nothing_that_was_emulated_is_a_time(result: Path) -> None:
    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for one in value.values() for key in keys(one)}
        return {key for one in value for key in keys(one)} if isinstance(value, list) else set()

    (member,) = json.loads(result.read_text())["members"]
    assert not [key for key in keys(member) if key.endswith(("_ms", "_us", "_s", "ms"))]


def test_the_same_again(compiled: Path, result: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    assert main(["bench", str(compiled), "--target", "cortex-a76", "--json", str(again)]) == 0
    first, second = load_result(result), load_result(again)
    ours = {kernel.name: kernel for kernel in first.members[0].emulation[0].kernels}
    for kernel in second.members[0].emulation[0].kernels:
        assert kernel.instructions == ours[kernel.name].instructions


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_a_report_shows_it_as_what_it_is(result: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"report.{form}"
    write_report([result], path, ReportOptions())
    text = path.read_text()
    assert "cortex-a76" in text
    assert "emulated" in text
    assert "predicted" in text


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--per-layer"], "--per-layer"),
        (["--price", "1"], "--price"),
        (["--against", "onnxruntime"], "--against"),
    ],
)
def test_what_only_hardware_can_tell_is_refused(
    compiled: Path, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    assert main(["bench", str(compiled), "--target", "cortex-a76", *words]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"leave out {name}, or measure on the board" in said


def test_places_of_kernels(tmp_path: Path, compiled: Path) -> None:
    tool: Callable[[str], str | None] = shutil.which
    if (reader := tool("aarch64-linux-gnu-objdump")) is None:
        pytest.skip("no objdump for aarch64")
    artifact = Artifact.open(compiled)
    library = tmp_path / "k.so"
    with library.open("wb") as file:
        artifact.copy_member(artifact.targets[0].library, file)
    places = kernel_places(library.read_bytes())
    said = subprocess.run(
        [reader, "-dF", str(library)], check=True, capture_output=True, text=True
    ).stdout
    for name, place in places.items():
        assert f"<__tvm_ffi_{name}> (File Offset: {place:#x}):" in said
    for damaged in (b"", b"MZ" + bytes(200), library.read_bytes()[:300]):
        with pytest.raises(ArtifactError, match="compile the file again"):
            kernel_places(damaged)
