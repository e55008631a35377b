"""Damaged models are refused by errors of ours, whatever the damage; and the fuzzer would tell."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fuzz_mutators import damage_file
from fuzz_seeds import SEEDS, write_seed

from tvmdet.errors import UnsupportedOperatorError
from tvmdet.frontend.import_onnx import import_onnx

DRIVER = Path(__file__).with_name("fuzz_driver.py")

# Stands in for the work of a case, one way of going wrong after the other.
PRETEND = """
import ctypes, json, sys, time
sys.path.insert(0, {folder!r})
import fuzz_driver
from tvmdet.steps import reached

fuzz_driver.TIMEOUT_S, fuzz_driver.MEMORY_BYTES = 1, 2**31

def crash(path):
    reached("crashing")
    ctypes.string_at(0)

def spin(path):
    while True:
        pass

def sleep(path):
    time.sleep(600)

real = fuzz_driver.examine
def unforeseen(path):
    fuzz_driver.load_onnx = lambda path: 1 // 0
    return real(path)

def grow(path):
    fuzz_driver.load_onnx = lambda path: bytearray(2**32)
    return real(path)

verdicts = []
for work in (crash, spin, sleep, unforeseen, grow):
    fuzz_driver.examine = work
    fuzz_driver.WAIT_S = 2 if work is sleep else 300
    outcome = fuzz_driver.run_case(0, 0)
    verdicts.append([outcome.verdict, outcome.detail])
print(json.dumps(verdicts))
"""


def _run(*words: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(DRIVER), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    outcomes: list[dict[str, Any]] = json.loads(done.stdout)
    return outcomes


def _check(outcomes: list[dict[str, Any]]) -> None:
    bad = [o for o in outcomes if o["verdict"] not in ("imports", "refused")]
    assert not bad, json.dumps(bad[:3], indent=2)
    verdicts = Counter(outcome["verdict"] for outcome in outcomes)
    assert verdicts["imports"] > len(outcomes) / 20  # the damage is not all at the door
    assert verdicts["refused"] > len(outcomes) / 4
    assert all(o["detail"] for o in outcomes if o["verdict"] == "refused")
    assert max(outcome["peak_mb"] for outcome in outcomes) < 4096


def test_damaged_models_are_refused_by_our_errors() -> None:
    _check(_run("--count", "100", "--seed", "1"))


@pytest.mark.slow
def test_five_thousand_damaged_models() -> None:
    _check(_run("--count", "5000", "--seed", "2026"))


def test_fuzzer_tells_every_way_of_going_wrong() -> None:
    script = PRETEND.format(folder=str(DRIVER.parent))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    verdicts = json.loads(done.stdout)
    assert [verdict for verdict, _ in verdicts] == ["crash", "hang", "hang", "unforeseen", "memory"]
    details = [detail for _, detail in verdicts]
    assert details[0] == "SIGSEGV while crashing"
    assert "computing" in details[1]
    assert "waiting" in details[2]
    assert "ZeroDivisionError" in details[3]


def _make(number: int, folder: Path) -> tuple[str, bytes]:
    folder.mkdir(exist_ok=True)
    rng = random.Random(number)
    name = rng.choice(sorted(SEEDS))
    path = folder / "model.onnx"
    write_seed(name, path)
    return damage_file(path, rng), path.read_bytes()


def test_cases_repeat_and_differ(tmp_path: Path) -> None:
    made = [_make(number, tmp_path / "a") for number in range(60)]
    assert made == [_make(number, tmp_path / "b") for number in range(60)]
    assert len({data for _, data in made}) > 50


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_seeds_are_whole_models(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_seed(name, path)
    if name in ("branch", "recurrent"):  # read whole, and what no converter takes
        with pytest.raises(UnsupportedOperatorError, match="has no converter for it"):
            import_onnx(path, raw=True).relax_at(1)
    else:
        assert import_onnx(path, raw=True).relax_at(1)
