"""Contestants, loaded for real: and whose code runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_modules

import tvmdet
from tvmdet import Detector
from tvmdet.report import BenchOptions, Plan, bench
from tvmdet.report.rivals import tvmdet as served


@pytest.fixture(scope="module")
def toy_network(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The compiled toy network."""
    return toy_modules.compile_toy_network(tmp_path_factory.mktemp("toy") / "network.so")


@pytest.fixture(scope="module")
def two_targets(toy_network: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy network for two targets that this machine can run, the better one first."""
    targets = [toy_modules.toy_target("better", rank=20), toy_modules.toy_target("plain")]
    return raw_file(tmp_path_factory.mktemp("two"), toy_network, targets)


def raw_file(folder: Path, library: bytes, targets: list[dict[str, Any]]) -> Path:
    spec = toy_modules.toy_spec(family="raw", labels=()).to_dict()
    path, raw = folder / "network.tvmdet", toy_modules.RAW
    return toy_modules.write_toy(path, library, spec=spec, raw=raw, targets=targets)


def options(**changes: Any) -> BenchOptions:
    return BenchOptions(plan=Plan(rounds=6), threads=1, peak=False, **changes)


@pytest.mark.parametrize(
    ("asked", "runs"), [(None, "better"), ("plain", "plain"), ("better", "better")]
)
def test_the_code_that_is_timed_is_the_one_that_is_named(
    two_targets: Path, asked: str | None, runs: str
) -> None:
    report = bench(two_targets, options(target=asked))
    (table,) = report.tables
    assert report.subject.target.name == runs
    assert table.entries[0].settings == f"compiled for {runs}, threads=1"


def test_code_of_another_target_is_never_timed(
    two_targets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_the_best(path: Path, *, threads: int, target: str) -> Detector:
        return tvmdet.load(path, threads=threads)

    monkeypatch.setattr(served, "tvmdet", SimpleNamespace(load=load_the_best))
    given: dict[str, Any] = {"threads": 1, "precision": "fp32", "mode": ""}
    served.load(str(two_targets), {}, **given, target="better")
    with pytest.raises(RuntimeError, match="runs the code of better, not that of plain"):
        served.load(str(two_targets), {}, **given, target="plain")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "tf32"])
def test_tvmdet_computes_in_what_its_file_was_compiled_in(
    tmp_path: Path, toy_network: bytes, precision: str
) -> None:
    path = raw_file(tmp_path, toy_network, [toy_modules.toy_target(precision=precision)])
    report = bench(path, options())
    (table,) = report.tables
    assert report.failures == []
    assert table.entries[0].precision == precision
    assert len(table.entries[0].seconds) == 6
