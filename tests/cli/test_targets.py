"""`tvmdet targets`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tvmdet.targets import get_target, list_targets, machine


def test_table_names_every_target_and_the_next_command(run: Callable) -> None:
    done = run("targets")
    assert done.code == 0
    assert all(target.name in done.out for target in list_targets())
    assert "next: tvmdet targets" in done.out


def test_json_says_what_runs_here(run: Callable) -> None:
    found = json.loads(run("targets", "--json").out)
    by_name = {entry["name"]: entry for entry in found["targets"]}
    for target in list_targets():
        assert by_name[target.name]["missing"] == list(target.missing_features())
    usual = [t for t in list_targets() if not t.named_only]
    runnable = [t.name for t in usual if not t.missing_features()]
    assert found["host"] == (runnable[0] if runnable else None)


def test_what_the_host_is_in_bfloat16(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = get_target("sapphirerapids").at_precision("bf16").required_features
    monkeypatch.setattr(machine, "host_features", lambda: frozenset(flags))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = json.loads(run("targets", "--json").out)
    assert found["host"] == "x86-64-v4"
    assert found["host_at"] == {"bf16": "sapphirerapids"}
    lines = run("targets").out.splitlines()
    told = {line.split()[0]: line for line in lines if "(host" in line}
    assert "(host in bf16)" in told.pop("sapphirerapids")
    assert list(told) == ["x86-64-v4"] and "(host)" in told["x86-64-v4"]


def test_one_target_with_its_records(run: Callable, tmp_path: Path) -> None:
    found = json.loads(run("targets", "x86-64-v3", "--logs", tmp_path, "--json").out)
    assert found["name"] == "x86-64-v3"
    assert found["tuned_kernels"] <= found["tuning_records"]
    assert "avx2" in run("targets", "x86-64-v3").out


def test_unknown_target(run: Callable) -> None:
    done = run("targets", "z80")
    assert done.code == 1
    assert "unknown target 'z80'; known: host," in done.error
