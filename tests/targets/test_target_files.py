"""Targets as data: what the files say, which one this machine gets, what is refused."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tvm
from tvmdet.targets import Target, get_target, list_targets, machine, resolve_target

from tvmdet.errors import TargetError
from tvmdet.gpus import Gpu
from tvmdet.passes.check_target import check_target
from tvmdet.passes.lower import tvm_target

ALL = list_targets()


NAMES = {
    *("x86-64-v3", "x86-64-v4", "zen4", "sapphirerapids"),
    *("cortex-a72", "cortex-a76", "neoverse-n1", "neoverse-v1", "neoverse-v2"),
    *("sm_75", "sm_80", "sm_86", "jetson-orin", "sm_89", "sm_90"),
}


def test_every_target_is_there_best_first() -> None:
    assert {target.name for target in ALL} == NAMES
    names = [target.name for target in ALL]
    assert names.index("x86-64-v4") < names.index("x86-64-v3")
    ranks = [target.rank for target in ALL]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == len(ranks)


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_every_file_is_plausible(target: Target) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", target.name)
    assert target.description and "\n" not in target.description
    assert target.required_features
    assert target.vector_lanes_f32 in (4, 8, 16)
    assert target.vector_registers in (16, 32, 255)
    # Whole vectors of multiply-and-add, at least one a cycle.
    assert target.flop_per_cycle_f32 % (2 * target.vector_lanes_f32) == 0
    assert 16 * 1024 <= target.l1d_bytes < target.l2_bytes
    assert target.tvm["kind"] == {"cpu": "llvm", "cuda": "cuda"}[target.kind]
    assert target.family in ("x86", "arm", "cuda")


OFFERED = {
    "rpi4": "cortex-a72 (Raspberry Pi 4)",
    "RaspberryPi4": "cortex-a72 (Raspberry Pi 4)",
    "raspberry-pi-5": "cortex-a76 (Raspberry Pi 5)",
    "rpi5": "cortex-a76 (Raspberry Pi 5)",
    "graviton2": "neoverse-n1 (Graviton2)",
    "graviton3": "neoverse-v1 (Graviton3)",
    "Graviton 4": "neoverse-v2 (Graviton4)",
    "avx2": "x86-64-v3 (AVX2)",
    "avx512": "x86-64-v4 (AVX-512)",
    "amx": "sapphirerapids (AMX, with --precision bf16)",
    "native": "host (this machine)",
    "gpu": "cuda (this machine's GPU)",
    "orin": "jetson-orin (Jetson Orin)",
    "h100": "sm_90 (H100)",
    # What is only spelt wrong is told as before.
    "x86-64-v33": "x86-64-v3 or x86-64-v4",
}


@pytest.mark.parametrize(("word", "offered"), OFFERED.items())
def test_what_people_call_a_machine_is_offered_its_target(word: str, offered: str) -> None:
    with pytest.raises(TargetError, match=re.escape(f"; did you mean {offered}?")) as caught:
        get_target(word)
    assert str(caught.value).startswith(f"unknown target {word!r}; known: host, cuda, ")
    assert str(caught.value).count("did you mean") == 1


def test_no_machine_is_called_as_another_or_as_a_target() -> None:
    words = [w.lower() for t in ALL for m, called in t.also_called.items() for w in (m, *called)]
    assert len(words) == len(set(words))
    assert not NAMES & set(words)
    assert all(target.also_called for target in ALL)


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_tvm_takes_every_target(target: Target) -> None:
    made = tvm_target(target)
    assert isinstance(made, tvm.target.Target)
    assert made.kind.name == target.tvm["kind"]
    if target.kind == "cuda":
        assert str(made.attrs["arch"]) == f"sm_{target.gpu.compute_capability}"
        assert made.host.kind.name == "llvm"


def test_a_better_target_needs_more() -> None:
    v3, v4 = get_target("x86-64-v3"), get_target("x86-64-v4")
    assert set(v3.required_features) < set(v4.required_features)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (frozenset(), None),
        (frozenset({"avx2"}), None),
        (frozenset(get_target("x86-64-v3").required_features), "x86-64-v3"),
        (frozenset(get_target("x86-64-v4").required_features), "x86-64-v4"),
        (frozenset(get_target("x86-64-v4").required_features) - {"avx512vl"}, "x86-64-v3"),
    ],
    ids=["nothing", "AVX2 alone", "Haswell", "Skylake-SP", "AVX-512 without VL"],
)
def test_host_is_the_best_that_fits(
    features: frozenset[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "host_features", lambda: features)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    if expected is None:
        with pytest.raises(TargetError, match=r"no target fits this machine .x86_64.; known: "):
            get_target("host")
    else:
        assert get_target("host").name == expected


def test_another_architecture_fits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert get_target("x86-64-v3").missing_features() == ("x86_64",)
    with pytest.raises(TargetError, match=r"no target fits this machine .riscv64."):
        get_target("host")


def test_missing_features_are_named_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(machine, "host_features", lambda: frozenset({"avx2", "bmi1"}))
    missing = get_target("x86-64-v3").missing_features()
    assert missing == tuple(
        flag for flag in get_target("x86-64-v3").required_features if flag not in ("avx2", "bmi1")
    )


@pytest.mark.parametrize("name", ["", "X86-64-V3", "../x86-64-v3", "z80"])
def test_unknown_names_list_what_there_is(name: str) -> None:
    with pytest.raises(TargetError, match=f"unknown target {re.escape(repr(name))}; known: host, "):
        get_target(name)


def test_resolve_takes_both() -> None:
    target = get_target("x86-64-v3")
    assert resolve_target(target) is target
    assert resolve_target("x86-64-v3") == target


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cortex-a67", "did you mean cortex-a76 or cortex-a72"),
        ("zen", "did you mean zen4"),
        ("sm90", "did you mean sm_90"),
        ("X86-64-V3", "did you mean x86-64-v3 or x86-64-v4"),
    ],
)
def test_names_spelt_alike_are_offered(name: str, hint: str) -> None:
    with pytest.raises(TargetError, match=re.escape(hint)):
        get_target(name)


def test_named_only_targets_are_never_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    zen4 = get_target("zen4")
    monkeypatch.setattr(machine, "host_features", lambda: frozenset(zen4.required_features))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert not zen4.missing_features()
    assert get_target("host").name == "x86-64-v4"
    assert zen4.records == "x86-64-v4"


@pytest.mark.parametrize(
    ("lost", "expected"),
    [("", "sapphirerapids"), ("amx_bf16", "x86-64-v4"), ("avx512_fp16", "x86-64-v4")],
    ids=["all of it", "AMX is not granted", "an older CPU"],
)
def test_the_host_in_bfloat16_has_matrix_tiles(
    lost: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = get_target("sapphirerapids").at_precision("bf16").required_features
    monkeypatch.setattr(machine, "host_features", lambda: frozenset(flags) - {lost})
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert resolve_target("host", "bf16").name == expected
    assert resolve_target("host", "bf16").precision == "bf16"
    assert resolve_target("host", "fp32").name == "x86-64-v4"
    assert resolve_target("x86-64-v4", "bf16").name == "x86-64-v4"


@pytest.mark.parametrize("granted", [True, False])
def test_tiles_count_where_the_kernel_grants_them(
    granted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flags of a CPU do not say what a process may use."""
    asked = []

    def arch_prctl(*numbers: int) -> int:
        asked.append(numbers)
        return 0 if granted else -1

    libc = SimpleNamespace(syscall=arch_prctl)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda *_args: libc)
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(machine, "cpuinfo", lambda: [("flags", "avx2 amx_tile amx_bf16")])
    flags = machine.host_features.__wrapped__()
    assert flags == {"avx2", *(("amx_tile", "amx_bf16") if granted else ())}
    assert asked == [(158, 0x1023, 18)]


def test_nobody_is_asked_for_tiles_that_the_cpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda *_args: pytest.fail("asked"))
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(machine, "cpuinfo", lambda: [("flags", "avx2")])
    assert machine.host_features.__wrapped__() == {"avx2"}


@pytest.mark.skipif(
    "amx_tile" not in machine.host_features(), reason="this machine has no matrix tiles"
)
def test_a_process_that_may_not_use_tiles_says_so() -> None:
    """A thread with a small stack for signals keeps the kernel from granting the registers."""
    program = (
        "import ctypes\n"
        "class Stack(ctypes.Structure):\n"
        "    _fields_ = [('sp', ctypes.c_void_p), ('flags', ctypes.c_int),"
        " ('size', ctypes.c_size_t)]\n"
        "room = ctypes.create_string_buffer(8192)\n"
        "stack = Stack(ctypes.addressof(room), 0, 8192)\n"
        "assert not ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)\n"
        "from tvmdet.targets import resolve_target\n"
        "print(resolve_target('host', 'bf16').name)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "x86-64-v4\n"


def _gpus(capabilities: tuple[int, ...], driver: int = 13000) -> Gpu:
    if not capabilities:
        return Gpu(problem="this machine's CUDA driver finds no GPU", driver=driver)
    names = ("A GPU",) * len(capabilities)
    return Gpu(names=names, capabilities=capabilities, driver=driver)


def _flags() -> frozenset[str]:
    return frozenset(get_target("x86-64-v3").required_features)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [((), None), ((70,), None), ((86,), "sm_86"), ((75, 90), "sm_90"), ((88,), "sm_86")],
)
def test_cuda_is_the_best_that_the_gpus_run(
    capabilities: tuple[int, ...], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "host_features", _flags)
    monkeypatch.setattr("tvmdet.gpus.find_gpus", lambda: _gpus(capabilities))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert get_target("host").name == "x86-64-v3", "a GPU is compiled for when it is named"
    if expected is None:
        with pytest.raises(TargetError, match="no CUDA target fits this machine"):
            get_target("cuda")
    else:
        assert get_target("cuda").name == expected


def test_a_gpu_runs_code_of_its_major_version_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmdet.gpus.find_gpus", lambda: _gpus((86,)))
    monkeypatch.setattr(machine, "host_features", _flags)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    missing = {name: get_target(name).missing_features() for name in ("sm_75", "sm_80", "sm_90")}
    assert missing == {"sm_75": ("sm_75",), "sm_80": (), "sm_90": ("sm_90",)}


def test_a_driver_that_is_too_old_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmdet.gpus.find_gpus", lambda: _gpus((90,), driver=12040))
    monkeypatch.setattr(machine, "host_features", _flags)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    lacks = "a driver for CUDA 13.0 (here 12.4)"
    assert get_target("sm_90").missing_features() == (lacks,)
    with pytest.raises(TargetError, match=re.escape(f"A GPU (sm_90)): it lacks {lacks}; name")):
        get_target("cuda")


def test_arm_features_are_what_the_kernel_tells_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Libc:
        @staticmethod
        def getauxval(kind: int) -> int:
            return {16: 1 << 0 | 1 << 1 | 1 << 20, 26: 1 << 13}[kind]

    monkeypatch.setattr("ctypes.CDLL", lambda _name: Libc)
    assert machine._arm_features() == {"fp", "asimd", "asimddp", "i8mm"}


@pytest.mark.parametrize("name", ["zen4", "sapphirerapids", "x86-64-v4", "sm_80"])
def test_precisions_come_and_go(name: str) -> None:
    target = get_target(name)
    assert len(target.precisions) > 1
    for precision in target.precisions[1:]:
        changed = target.at_precision(precision)
        assert changed.precision == precision
        assert changed.at_precision("fp32") == target
        assert set(changed.required_features) >= set(target.required_features)
    with pytest.raises(TargetError, match=f"target {name} cannot compute in 'int3'; it can in "):
        target.at_precision("int3")


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_llvm_uses_nothing_that_is_not_required(target: Target) -> None:
    """The list stands between a user and an illegal instruction."""
    check_target(target)
    flag = next(f for f in target.required_features if f in ("fma", "asimd"))
    fewer = tuple(f for f in target.required_features if f != flag)
    with pytest.raises(TargetError, match=f"lacks what LLVM may use under mcpu = .*: add '{flag}'"):
        check_target(dataclasses.replace(target, required_features=fewer))
