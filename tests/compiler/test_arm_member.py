"""Files with a member for another architecture: what is written, what is refused."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_models
import pytest

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.board import emulator, linker
from tvmdet.cli import main
from tvmdet.errors import TargetError

compiling = importlib.import_module("tvmdet.compiler.compile")


def _has_linker() -> bool:
    try:
        linker.find_linker("aarch64")
    except TargetError:
        return False
    return True


needs_linker = pytest.mark.skipif(not _has_linker(), reason="no linker for aarch64")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    return tvmdet.import_onnx(onnx_models.save(onnx_models.yolov8(batch="n"), path))


@pytest.fixture(scope="module")
def arm_file(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with an ARM member alone, made where nothing can emulate it."""
    folder = tmp_path_factory.mktemp("arm")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "tvmdet.compiler.check_on_arm_emulator.why_no_emulator", lambda: "QEMU is missing"
        )
        tvmdet.compile(
            model, target="cortex-a76", output=folder / "arm.tvmdet", logs=folder / "no logs"
        )
    return folder / "arm.tvmdet"


@needs_linker
def test_an_unchecked_member_is_never_run(arm_file: Path) -> None:
    artifact = Artifact.open(arm_file)
    (entry,) = artifact.targets
    assert (entry.arch, entry.name) == ("aarch64", "cortex-a76")
    assert "asimddp" in entry.required_features
    assert artifact.manifest["parity"]["cortex-a76"] == {
        "skipped": "never run: this machine lacks aarch64, and QEMU is missing"
    }


@needs_linker
def test_the_library_is_for_that_machine(arm_file: Path, tmp_path: Path) -> None:
    artifact = Artifact.open(arm_file)
    with (tmp_path / "lib.so").open("wb") as file:
        artifact.copy_member(artifact.targets[0].library, file)
    header = (tmp_path / "lib.so").read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183, "EM_AARCH64"


@needs_linker
def test_a_file_with_nothing_for_this_machine(
    arm_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TargetError, match=r"It holds cortex-a76: needs aarch64, this machine is "):
        tvmdet.load(arm_file)
    assert main(["inspect", str(arm_file), "--here"]) == 1
    shown = capsys.readouterr().out
    assert "nothing" in shown and "needs aarch64" in shown


def test_a_missing_linker_is_told_first(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: object, **_more: object) -> None:
        pytest.fail("the network was lowered before the linker was looked for")

    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(compiling, "lower", never)
    with pytest.raises(TargetError, match="no linker for aarch64 is installed"):
        tvmdet.compile(model, target="cortex-a76", output=tmp_path / "never.tvmdet")
    assert not (tmp_path / "never.tvmdet").exists()


@pytest.mark.parametrize(
    ("program", "told"),
    [("qemu-aarch64", "apt install qemu-user"), ("", "python -m tvmdet.board")],
)
def test_what_an_emulator_needs(
    program: str, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TVMDET_BOARD_KIT", str(tmp_path))
    monkeypatch.setattr(emulator, "_LIBC", tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "ld-linux-aarch64.so.1").touch()
    which: Callable[[str], str | None] = lambda name: None if name == program else name  # noqa: E731
    monkeypatch.setattr(shutil, "which", which)
    assert told in emulator.why_no_emulator()
    with pytest.raises(TargetError, match="no ARM board can be emulated: "):
        emulator.Emulator("cortex-a76")
