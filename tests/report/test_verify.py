"""A recorded benchmark done again: what is refused, what is judged, how often it is tried."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tvmdet.errors import InputError
from tvmdet.report import BenchOptions, Plan, Result, VerifyOptions, bench, verify
from tvmdet.report.result_subject import Accuracy, PeakFacts, Prices
from tvmdet.report.typed_json import from_json, to_json


class Fake:
    """Stands in for a benchmark: gives one prepared result after the other."""

    def __init__(self, *results: Result) -> None:
        self.results = list(results)
        self.options: list[BenchOptions] = []

    def __call__(self, _path: Path, options: BenchOptions, **_more: Any) -> Fake:
        self.options.append(options)
        self.now = self.results[min(len(self.options), len(self.results)) - 1]
        return self

    def to_dict(self) -> dict[str, Any]:
        return to_json(self.now)


@pytest.fixture(scope="module")
def recorded(raw_path: Path) -> Result:
    """The toy network, measured for real."""
    options = BenchOptions(plan=Plan(rounds=8), threads=1, peak=False)
    return from_json(Result, bench(raw_path, options).to_dict())


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fake]:
    """Makes benchmarks give prepared results."""

    def prepare(*results: Result) -> Fake:
        fake = Fake(*results)
        monkeypatch.setattr("tvmdet.report.repetition.bench", fake)
        return fake

    return prepare


def slowed(result: Result, factor: float, **disturbance: Any) -> Result:
    """The same result on a machine without noise, with every call that much slower."""
    (table,) = result.tables
    ours = table.entries[0]
    assert ours.latency is not None
    ours = replace(ours, rounds_us=(ours.latency.median_ms * 1e3 * factor,) * 8)
    quiet = {"others_cpus": 0.0, "stolen_cpus": 0.0, "findings": (), "yardstick_us": (900.0,) * 8}
    load = replace(table.disturbance, **{**quiet, **disturbance})
    changed = replace(table, entries=(ours,), disturbance=load, noise=None)
    return replace(result, tables=(changed,))


def test_the_same_code_passes_for_real(recorded: Result) -> None:
    found = verify(recorded, VerifyOptions(rounds=8))
    assert found.ok
    assert found.parity == ()
    assert [change.measure for change in found.changes] == ["time"]
    assert found.report.to_dict()["setup"]["rounds"] == 8
    json.dumps(found.to_dict(), allow_nan=False)


def test_code_ten_thousand_times_slower_fails_for_real(recorded: Result) -> None:
    # The record of a machine as busy as can be: this one is no excuse.
    busy = {"others_cpus": 1000.0, "findings": ("busy: beyond measure",)}
    found = verify(slowed(recorded, 1e-4, **busy), VerifyOptions())
    assert not found.ok
    assert found.attempts == 2
    assert found.slower[0].ratio > 100


def test_a_slow_down_must_be_seen_again(recorded: Result, measure: Callable[..., Fake]) -> None:
    slow, steady = slowed(recorded, 1.2), slowed(recorded, 1.0)
    fake = measure(slow, steady)
    assert verify(steady, VerifyOptions(attempts=3)).ok
    assert len(fake.options) == 2
    fake = measure(slow)
    found = verify(steady, VerifyOptions(attempts=3))
    assert (found.ok, found.attempts, len(fake.options)) == (False, 3, 3)


def test_it_must_be_the_same_table_that_is_slow_again(
    recorded: Result, measure: Callable[..., Fake]
) -> None:
    def both(first: float, second: float) -> Result:
        one, two = slowed(recorded, first), slowed(recorded, second)
        other = replace(two.tables[0], batch_size=two.tables[0].batch_size + 1)
        return replace(one, tables=(*one.tables, other))

    fake = measure(both(1.2, 1.0), both(1.0, 1.2))
    assert verify(both(1.0, 1.0), VerifyOptions(attempts=3)).ok
    assert len(fake.options) == 2
    measure(both(1.2, 1.2), both(1.0, 1.2))
    found = verify(both(1.0, 1.0), VerifyOptions(attempts=2))
    assert [change.what for change in found.slower] == [found.changes[-1].what]


def test_other_answers_fail_at_once(recorded: Result, measure: Callable[..., Fake]) -> None:
    (table,) = recorded.tables
    wrong = {name: tuple(v + 1 for v in values) for name, values in table.answers.items()}
    fake = measure(replace(recorded, tables=(replace(table, answers=wrong),)))
    found = verify(recorded, VerifyOptions(attempts=3))
    assert not found.ok
    assert "is off the recorded one" in found.parity[0]
    assert len(fake.options) == 1


def test_it_is_measured_as_it_was(
    recorded: Result, measure: Callable[..., Fake], tmp_path: Path
) -> None:
    assert recorded.setup is not None
    (tmp_path / "m.onnx").touch()
    setup = replace(
        recorded.setup,
        onnx=str(tmp_path / "m.onnx"),
        against=("onnxruntime",),
        precisions=("fp32", "bf16"),
        batch_sizes=(1, 2),
        rounds=None,
        duration_s=7.0,
        tolerance=0.5,
    )
    fake = measure(recorded)
    verify(replace(recorded, setup=setup), VerifyOptions())
    (options,) = fake.options
    assert options.against == ("onnxruntime",)
    assert (options.precisions, options.batch_sizes) == (("fp32", "bf16"), (1, 2))
    assert (options.plan.rounds, options.plan.duration_s) == (None, 7.0)
    assert (options.threads, options.target, options.tolerance) == (1, "toy", 0.5)
    verify(replace(recorded, setup=setup), VerifyOptions(duration_s=3.0))
    assert fake.options[1].plan.duration_s == 3.0
    verify(recorded, VerifyOptions(duration_s=3.0))
    assert (fake.options[2].plan.rounds, fake.options[2].plan.duration_s) == (None, 3.0)


def test_a_result_that_is_kept_has_what_the_record_had(
    recorded: Result, measure: Callable[..., Fake]
) -> None:
    assert recorded.setup is not None
    accuracy = Accuracy(file="eval.json", images=3, ap=0.5)
    rich = replace(recorded, accuracy=accuracy, prices=Prices(per_hour=2.0))
    found = verify(rich, VerifyOptions(rounds=8, complete=True))
    kept = from_json(Result, found.report.to_dict())
    assert (kept.accuracy, kept.prices) == (accuracy, Prices(per_hour=2.0))
    other = replace(
        rich,
        artifact=replace(rich.artifact, sha256="0" * 64),
        peak=PeakFacts(threads=1, f32_gflops=100.0, read_gb_per_s={}),
        setup=replace(recorded.setup, per_layer=True),
    )
    fake = measure(other)
    verify(other, VerifyOptions(complete=True))
    verify(other, VerifyOptions())
    whole, times = fake.options
    assert (whole.peak, whole.per_layer, whole.prices) == (True, True, Prices(per_hour=2.0))
    assert (times.peak, times.per_layer, times.prices) == (False, False, None)


def test_versions_and_another_file_are_noted(
    recorded: Result, measure: Callable[..., Fake]
) -> None:
    measure(recorded)
    older = replace(
        recorded,
        versions={**recorded.versions, "apache-tvm": "0.1"},
        artifact=replace(recorded.artifact, sha256="00"),
    )
    notes = " ".join(verify(older, VerifyOptions()).notes)
    assert "apache-tvm: 0.1 when recorded, now 0." in notes
    assert "was compiled anew" in notes


def test_other_hardware_is_refused_unless_told(
    recorded: Result, measure: Callable[..., Fake]
) -> None:
    fake = measure(recorded)
    there = replace(recorded, machine=replace(recorded.machine, cpu="Elsewhere 9000"))
    with pytest.raises(InputError, match=r"another machine: CPU 'Elsewhere.*--other-hardware"):
        verify(there, VerifyOptions())
    assert fake.options == []
    found = verify(there, VerifyOptions(other_hardware=True))
    assert "Elsewhere 9000" in found.hardware[0]


def test_what_cannot_be_repeated_is_refused(
    recorded: Result, measure: Callable[..., Fake], tmp_path: Path
) -> None:
    assert recorded.setup is not None
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"another picture")
    nowhere = str(tmp_path / "nowhere")
    refused = [
        (replace(recorded, setup=None), {}, "is of schema 1 .*record it again"),
        (replace(recorded, tables=()), {}, "holds no times, as those of emulated code do not"),
        (
            replace(recorded, artifact=replace(recorded.artifact, path=nowhere)),
            {},
            "there is no such file; put it there, or give .* --artifact",
        ),
        (recorded, {"artifact": Path(nowhere)}, "there is no such file"),
        (
            replace(recorded, model=replace(recorded.model, sha256="11")),
            {},
            "is of another model than mine: it was compiled from 0000.*, and 11 was recorded",
        ),
        (
            replace(recorded, setup=replace(recorded.setup, onnx=nowhere)),
            {},
            "no such file.* --onnx",
        ),
        (
            replace(recorded, setup=replace(recorded.setup, picture=nowhere)),
            {},
            "no such file.* --picture",
        ),
        (
            replace(
                recorded,
                setup=replace(recorded.setup, picture=str(picture), picture_sha256="22"),
            ),
            {},
            "is not the picture that mine was measured on",
        ),
        (recorded, {"attempts": 0}, "attempts is 0; allowed: 1 or more"),
    ]
    fake = measure(recorded)
    for result, options, says in refused:
        with pytest.raises(InputError, match=says):
            verify(result, VerifyOptions(**options), where="mine")
    assert fake.options == []
