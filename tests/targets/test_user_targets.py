"""Target files of a user's own: where they lie, and what is refused in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tvmdet.targets import get_target, list_targets

from tvmdet.errors import TargetError
from tvmdet.passes.check_target import check_target
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


def test_a_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, BOARD, "cortex-a76.toml")
    monkeypatch.setenv("TVMDET_TARGETS", str(tmp_path))
    with pytest.raises(TargetError, match="bears the name of another target"):
        get_target("cortex-a76")


@pytest.mark.parametrize("name", ["host.toml", "x86-64-v4.toml", "broken.toml", "Broken.toml"])
def test_a_file_that_cannot_be_used_is_no_hindrance_to_others(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(tmp_path, "rank = 5", name)
    write(tmp_path, BOARD)
    monkeypatch.setenv("TVMDET_TARGETS", str(tmp_path))
    assert get_target("my-board").rank == get_target("cortex-a76").rank
    assert len([target for target in list_targets() if target.file]) == 1
    (said,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / name) in said
    if name == "broken.toml":
        with pytest.raises(
            TargetError, match=r"target file broken.toml cannot be read: the file l"
        ):
            get_target("broken")


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
    "triple of another architecture": (
        BOARD.replace('arch = "aarch64"', 'arch = "riscv64"'),
        "mtriple in [tvm] is 'aarch64-linux-gnu', and arch is 'riscv64'; write mtriple = "
        '"riscv64-linux-gnu", or the arch that `uname -m` prints',
    ),
    "host's triple of another architecture": (
        GPU.replace('mcpu = "x86-64-v3"', 'mcpu = "x86-64-v3"\nmtriple = "aarch64-linux-gnu"'),
        "mtriple in [tvm.host] is 'aarch64-linux-gnu', and arch is 'x86_64'",
    ),
    "GPU of another generation": (
        GPU.replace("compute_capability = 90", "compute_capability = 80"),
        "arch in [tvm] is 'sm_90', and compute_capability in [gpu] is 80; write arch = \"sm_80\"",
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


V3 = (FOLDER / "x86-64-v3.toml").read_text(encoding="utf-8")
SPR = (FOLDER / "sapphirerapids.toml").read_text(encoding="utf-8")
NOT_COMPILED_FOR = {
    "CPU of nobody": (
        BOARD.replace('mcpu = "cortex-a76"', 'mcpu = "cortex-a99"'),
        "LLVM does not know mcpu = 'cortex-a99' in [tvm]; did you mean cortex-a",
    ),
    "CPU of a GPU's host": (
        GPU.replace('mcpu = "x86-64-v3"', 'mcpu = "cortex-a76"'),
        "LLVM does not know mcpu = 'cortex-a76' in [tvm.host]",
    ),
    "flag of nobody": (
        BOARD.replace('"-sha2"', '"-nosuchflag"'),
        "LLVM does not know '-nosuchflag' of mattr in [tvm]; write '+' or '-' and a name",
    ),
    "flag without a sign": (BOARD.replace('"-sha2"', '"sha2"'), "does not know 'sha2' of mattr"),
    "flag of a precision": (
        BOARD.replace('"+fullfp16"', '"+fulfp16"'),
        "LLVM does not know '+fulfp16' of mattr in [fp16]",
    ),
    "too little required": (
        re.sub(r"required_features = \[\"cx16.*", 'required_features = ["fpu"]', SPR),
        "required_features in [cpu] lacks what LLVM may use under mcpu = 'sapphirerapids': add "
        "'abm', 'adx', 'avx', 'avx2', 'avx512_bf16', ",
    ),
    "too little required in a precision": (
        SPR.replace('["avx512_bf16", "amx_tile", "amx_bf16"]', '["avx512_bf16"]'),
        "required_features in [bf16] lacks what LLVM may use under mcpu = 'sapphirerapids': add "
        "'amx_bf16', 'amx_tile', or turn it off in mattr: \"-amx-bf16\", \"-amx-tile\"",
    ),
    "what the kernel's name of is not known": (
        BOARD.replace('mcpu = "cortex-a76"', 'mcpu = "a64fx"'),
        "LLVM may use sve under mcpu = 'a64fx', and tvmdet cannot tell whether a machine has that; "
        'turn it off in mattr: "-sve"',
    ),
    "no triple for another architecture": (
        BOARD.replace('mtriple = "aarch64-linux-gnu"\n', ""),
        '[tvm] lacks mtriple, and this machine is x86_64; write mtriple = "aarch64-linux-gnu"',
    ),
    "architecture of nobody": (
        BOARD.replace("aarch64-linux", "z80-linux").replace('arch = "aarch64"', 'arch = "z80"'),
        "LLVM makes no code for arch = 'z80'",
    ),
}


@pytest.mark.parametrize(("text", "message"), NOT_COMPILED_FOR.values(), ids=NOT_COMPILED_FOR)
def test_not_compiled_for(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    path = write(tmp_path, text)
    target = get_target(str(path))
    with pytest.raises(TargetError, match=re.escape(message)) as caught:
        check_target(target)
    assert str(caught.value).startswith(f"target file {path} cannot be compiled for: ")


@pytest.mark.parametrize("text", [BOARD, GPU, V3, SPR], ids=["ARM", "GPU", "AVX2", "AMX"])
def test_a_right_file_is_compiled_for(text: str, tmp_path: Path) -> None:
    check_target(get_target(str(write(tmp_path, text))))


def test_the_file_in_the_documentation_is_compiled_for(tmp_path: Path) -> None:
    page = (FOLDER.parent / "docs" / "adding-a-target.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    check_target(get_target(str(write(tmp_path, text))))
