"""Target files of a user's own: where they lie, and what is refused in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tvmdet.targets import get_target, list_targets

from tvmdet.errors import TargetError
from tvmdet.passes.lower import tvm_target

FOLDER = Path(__file__).parents[2] / "targets"
BOARD = (FOLDER / "cortex-a76.toml").read_text(encoding="utf-8")
GPU = (FOLDER / "sm_90.toml").read_text(encoding="utf-8")


def write(folder: Path, text: str, name: str = "my-board.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_a_target(tmp_path: Path) -> None:
    path = write(tmp_path, BOARD.replace("rank = 33", 'rank = 34\nrecords = "cortex-a76"'))
    board = get_target(str(path))
    assert (board.name, board.records, board.rank) == ("my-board", "cortex-a76", 34)
    assert tvm_target(board).kind.name == "llvm"
    assert board.fp16["mattr"] == ["+fullfp16"]
    assert board.at_precision("fp16").tvm["mattr"][-1] == "+fullfp16"
    with pytest.raises(TargetError, match="cannot compute in 'bf16'; it can in fp32 and fp16"):
        board.at_precision("bf16")


def test_a_folder_of_targets_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, BOARD)
    monkeypatch.setenv("TVMDET_TARGETS", str(tmp_path))
    assert get_target("my-board").description == get_target("cortex-a76").description
    assert "my-board" in {target.name for target in list_targets()}
    monkeypatch.delenv("TVMDET_TARGETS")
    with pytest.raises(TargetError, match="unknown target 'my-board'"):
        get_target("my-board")


@pytest.mark.parametrize("name", ["cortex-a76.toml", "host.toml"])
def test_a_name_that_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, BOARD, name)
    monkeypatch.setenv("TVMDET_TARGETS", str(tmp_path))
    with pytest.raises(TargetError, match="bears the name of another target"):
        list_targets()


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMDET_TARGETS", str(tmp_path / "nowhere"))
    with pytest.raises(TargetError, match="nowhere', which is no folder; name a folder"):
        get_target("x86-64-v3")


REFUSED = {
    "empty": ("", "the file lacks description, kind, arch, rank, tvm, cpu"),
    "no TOML": ("not toml [", "cannot be read"),
    "key spelt wrong": (
        BOARD.replace("vector_lanes_f32", "vector_lane_f32"),
        "unknown key 'vector_lane_f32' in [cpu]; did you mean vector_lanes_f32",
    ),
    "table spelt wrong": (
        BOARD.replace("[int8_dot]", "[int8dot]"),
        "unknown key 'int8dot' in the file; did you mean int8_dot",
    ),
    "key of nothing": (
        BOARD.replace("[int8_dot]", "[int8_dot]\nzzz = 1"),
        "unknown key 'zzz' in [int8_dot]; allowed: ",
    ),
    "missing key": (
        re.sub(r"l2_bytes = \d+\n", "", BOARD),
        "[cpu] lacks l2_bytes",
    ),
    "missing precision key": (
        BOARD.replace('mattr = ["+fullfp16"]\n', ""),
        "[fp16] lacks mattr",
    ),
    "host in a precision that it has not": (
        'host_at = ["bf16"]\n' + BOARD,
        "host_at names 'bf16'; the target computes in fp32, fp16",
    ),
    "text for a number": (
        BOARD.replace("vector_lanes_f32 = 4", 'vector_lanes_f32 = "4"'),
        "vector_lanes_f32 in [cpu] is '4'; it must be a whole number",
    ),
    "true for a number": (BOARD.replace("rank = 33", "rank = true"), "rank in the file is True"),
    "nothing for a number": (
        BOARD.replace("l1d_bytes = 65536", "l1d_bytes = 0"),
        "l1d_bytes in [cpu] is 0; it must be at least 1",
    ),
    "three lanes": (
        BOARD.replace("vector_lanes_f32 = 4", "vector_lanes_f32 = 3"),
        "vector_lanes_f32 in [cpu] is 3; it must be a power of two",
    ),
    "features that are numbers": (
        re.sub(r"required_features = \[\"fp\".*", "required_features = [1]", BOARD),
        "required_features in [cpu] is [1]; it must be a list of texts",
    ),
    "another word that is no text": (
        BOARD.replace('"rpi5"', "5"),
        "Raspberry Pi 5 in [also_called] is [5, ",
    ),
    "other words that are no list": (
        BOARD.replace('RK3588 = ["rk3588s"', 'RK3588 = "rk3588"  # ["rk3588s"'),
        "RK3588 in [also_called] is 'rk3588'; it must be a list of texts",
    ),
    "another kind": (BOARD.replace('kind = "cpu"', 'kind = "npu"'), "kind is 'npu'; allowed: cpu"),
    "TVM's kind": (
        BOARD.replace('kind = "llvm"', 'kind = "c"'),
        "kind in [tvm] is 'c'; it must be 'llvm'",
    ),
    "GPU without its table": (GPU[: GPU.index("[gpu]")], "the file lacks gpu"),
    "GPU key spelt wrong": (
        GPU.replace("compute_capability", "compute_capabilty"),
        "unknown key 'compute_capabilty' in [gpu]; did you mean compute_capability",
    ),
    "CPU key of a GPU": (
        GPU.replace("[gpu]", "l1d_bytes = 1\n[gpu]"),
        "unknown key 'l1d_bytes' in [cpu]; allowed: required_features",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TargetError, match=re.escape(message)) as caught:
        get_target(str(path))
    assert str(caught.value).startswith("target file my-board.toml cannot be read: ")


def test_refused_names_and_places(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"No such file or directory"):
        get_target(str(tmp_path / "gone.toml"))
    with pytest.raises(TargetError, match="use lower-case letters, digits"):
        get_target(str(write(tmp_path, BOARD, "My Board.toml")))
