"""Targets as data: what the files say, which one this machine gets, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tvm
import tvmdet.targets
from tvmdet.targets import Target, get_target, list_targets, resolve_target

from tvmdet import targets
from tvmdet.errors import TargetError
from tvmdet.passes.lower import tvm_target

ALL = list_targets()


def test_both_x86_levels_are_there_best_first() -> None:
    names = [target.name for target in ALL]
    assert {"x86-64-v3", "x86-64-v4"} <= set(names)
    assert names.index("x86-64-v4") < names.index("x86-64-v3")
    ranks = [target.rank for target in ALL]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == len(ranks)


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_every_file_is_plausible(target: Target) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", target.name)
    assert target.description and "\n" not in target.description
    assert target.required_features
    assert target.vector_lanes_f32 in (4, 8, 16)
    assert target.vector_registers in (16, 32)
    # Whole vectors of multiply-and-add, at least one a cycle.
    assert target.flop_per_cycle_f32 % (2 * target.vector_lanes_f32) == 0
    assert 16 * 1024 <= target.l1d_bytes < target.l2_bytes
    assert target.tvm["kind"] == "llvm"


@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_tvm_takes_every_target(target: Target) -> None:
    made = tvm_target(target)
    assert isinstance(made, tvm.target.Target)
    assert made.kind.name == "llvm"


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
    monkeypatch.setattr(tvmdet.targets, "host_features", lambda: features)
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
    monkeypatch.setattr(tvmdet.targets, "host_features", lambda: frozenset({"avx2", "bmi1"}))
    missing = get_target("x86-64-v3").missing_features()
    assert missing == tuple(
        flag for flag in get_target("x86-64-v3").required_features if flag not in ("avx2", "bmi1")
    )


@pytest.mark.parametrize("name", ["", "X86-64-V3", "x86-64-v3.toml", "../x86-64-v3", "z80"])
def test_unknown_names_list_what_there_is(name: str) -> None:
    with pytest.raises(TargetError, match=f"unknown target {re.escape(repr(name))}; known: host, "):
        get_target(name)


def test_resolve_takes_both() -> None:
    target = get_target("x86-64-v3")
    assert resolve_target(target) is target
    assert resolve_target("x86-64-v3") == target


@pytest.mark.parametrize(
    "text", ["not toml [", 'description = "a"\n', "[cpu]\nrequired_features = []\n"], ids=repr
)
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TargetError, match=r"target file broken.toml cannot be read"):
        targets._read(path)
