"""A recorded result against its repetition: slow code, slow machines, other answers."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from noisy_machine import Machine
from result_samples import measured

from tvmdet.report.changes import changed_parity, changed_times, other_hardware
from tvmdet.report.detectable import missed, undetectable
from tvmdet.report.result_format import Result

TABLE = "network, batch 1"
TRIALS = 25


def session(
    rng: np.random.Generator,
    *,
    slower: float = 1.0,
    machine: float = 1.0,
    rounds: int = 60,
    rival: bool = False,
    **more: Any,
) -> Result:
    """One session on a shared machine: its own speed, and the yardstick that shows it."""
    speed = machine * rng.lognormal(0.0, 0.01)
    bases = (1000.0 * slower * speed, 1000.0 * slower * speed, 2000.0 * speed, 700.0 * speed)
    ours, again, theirs, yard = Machine().time(rng, rounds, bases)
    contestants = {"tvmdet": ours, "onnxruntime": theirs} if rival else {"tvmdet": ours}
    disturbance = {"yardstick_us": yard.tolist(), **more.pop("disturbance", {})}
    return measured(
        {
            TABLE: {
                "rounds_us": contestants,
                "again_us": again,
                "disturbance": disturbance,
                **more,
            }
        }
    )


def verdicts(**second: Any) -> Counter[str]:
    rng = np.random.default_rng(5)
    rival = bool(second.get("rival"))
    found = Counter()
    for _ in range(TRIALS):
        change, *_ = changed_times(session(rng, rival=rival), session(rng, **second))
        assert change.measure == "time"
        found[change.verdict] += 1
    return found


@pytest.mark.parametrize(
    "second",
    [
        {},
        {"machine": 1.3},
        {"machine": 0.8, "rival": True},
        {"machine": 1.3, "rival": True},
    ],
    ids=str,
)
def test_the_same_code_is_no_slower_whatever_the_machine_does(second: dict[str, Any]) -> None:
    assert verdicts(**second)["slower"] <= 0.05 * TRIALS


@pytest.mark.parametrize("rival", [False, True])
def test_slower_code_is_called_on_a_shared_machine(rival: bool) -> None:
    assert verdicts(slower=1.15, rival=rival)["slower"] >= 0.9 * TRIALS


@pytest.mark.parametrize("machine", [0.8, 1.3])
def test_rivals_show_a_tenth_where_the_machine_changed_its_speed(machine: float) -> None:
    # In one of five such runs the yardstick alone cannot tell.
    assert verdicts(slower=1.1, machine=machine, rival=True)["slower"] >= 0.95 * TRIALS


def test_slower_code_is_called_on_a_slower_machine() -> None:
    assert verdicts(slower=1.3, machine=1.1)["slower"] >= 0.9 * TRIALS


def test_quiet_sessions_show_a_tenth() -> None:
    rng = np.random.default_rng(1)
    quiet = Machine(own=0.005, memory=0.2, spikes=0.01, process=0.002, slow_state=0.0)

    def once(slower: float) -> Result:
        ours, again, yard = quiet.time(rng, 60, (1000.0 * slower, 1000.0 * slower, 700.0))
        load = {"yardstick_us": yard.tolist()}
        given = {"rounds_us": {"tvmdet": ours}, "again_us": again, "disturbance": load}
        return measured({TABLE: given})

    called = Counter(changed_times(once(1.0), once(s))[0].verdict for s in [1.1] * 20)
    assert called["slower"] >= 19
    same = Counter(changed_times(once(1.0), once(1.0))[0].verdict for _ in range(20))
    assert same["undecided"] >= 19
    assert changed_times(once(1.0), once(0.8))[0].verdict == "faster"


def steady(us: float, rounds: int = 20, rival_us: float | None = None, **more: Any) -> Result:
    contestants = {"tvmdet": [us] * rounds}
    if rival_us is not None:
        contestants["onnxruntime"] = [rival_us] * rounds
    return measured({TABLE: {"rounds_us": contestants, "again_us": [us] * rounds, **more}})


@pytest.mark.parametrize(
    ("yardstick_us", "now_us", "verdict", "why"),
    [
        (500.0, 1100.0, "slower", "the machine is as fast as it was"),
        (550.0, 1100.0, "undecided", "so is the machine"),
        (550.0, 1300.0, "slower", "the machine is, but by less"),
        (400.0, 1000.0, "undecided", "the machine is faster, the clock says no more than before"),
        (400.0, 1005.0, "undecided", "by less than a hundredth by the clock"),
        (500.0, 900.0, "faster", "the machine is as fast as it was"),
        (400.0, 800.0, "undecided", "so is the machine"),
    ],
)
def test_the_yardstick_tells_slow_code_from_a_slow_machine(
    yardstick_us: float, now_us: float, verdict: str, why: str
) -> None:
    then = steady(1000.0, disturbance={"yardstick_us": [500.0] * 20})
    now = steady(now_us, disturbance={"yardstick_us": [yardstick_us] * 20})
    (change,) = changed_times(then, now)
    assert (change.verdict, change.doubt) == (verdict, ""), why
    assert (change.then_ms, change.now_ms) == (pytest.approx(1.0), pytest.approx(now_us / 1e3))


def test_a_rival_that_slowed_too_is_a_witness() -> None:
    then = steady(1000.0, rival_us=2000.0)
    timed, against = changed_times(then, steady(1200.0, rival_us=2400.0))
    assert timed.verdict == "undecided"
    assert "not slower against any rival" in timed.doubt
    assert (against.measure, against.verdict) == ("against onnxruntime", "undecided")
    timed, against = changed_times(then, steady(1200.0, rival_us=2000.0))
    assert (timed.verdict, against.verdict) == ("slower", "slower")


def test_a_rival_that_saw_nothing_acquits_nobody() -> None:
    rng = np.random.default_rng(5)
    wild = (2000.0 * np.exp(rng.normal(0, 0.8, (2, 20)))).tolist()

    def session(us: float, rival: list[float]) -> Result:
        rounds = {"tvmdet": [us] * 20, "onnxruntime": rival}
        return measured({TABLE: {"rounds_us": rounds, "again_us": [us] * 20}})

    timed, against = changed_times(session(1000.0, wild[0]), session(1200.0, wild[1]))
    assert against.verdict == "undecided" and against.low < 1 < 1.2 < against.high
    assert (timed.verdict, timed.doubt) == ("slower", "")


def restless(now_us: float, rivals_us: dict[str, float], **load: Any) -> tuple[Result, Result]:
    """Two sessions of a steady network whose yardstick hops: times over it tell nothing."""
    rng = np.random.default_rng(5)

    def session(us: float, others_us: dict[str, float], **more: Any) -> Result:
        rounds = {name: [value] * 20 for name, value in {"tvmdet": us, **others_us}.items()}
        hopping = (500.0 * np.exp(rng.normal(0.0, 0.6, 20))).tolist()
        disturbance = {"yardstick_us": hopping, **more}
        table = {"rounds_us": rounds, "again_us": [us] * 20, "disturbance": disturbance}
        return measured({TABLE: table})

    return session(1000.0, dict.fromkeys(rivals_us, 2000.0)), session(now_us, rivals_us, **load)


@pytest.mark.parametrize(
    ("rivals_us", "verdict", "by"),
    [
        ({}, "undecided", ""),
        ({"onnxruntime": 2000.0}, "slower", "onnxruntime"),
        ({"onnxruntime": 2000.0, "ncnn": 2100.0}, "slower", "ncnn"),
        ({"onnxruntime": 2000.0, "ncnn": 2400.0}, "undecided", ""),
        ({"onnxruntime": 2400.0}, "undecided", ""),
    ],
    ids=str,
)
def test_rivals_show_what_the_yardstick_cannot(
    rivals_us: dict[str, float], verdict: str, by: str
) -> None:
    timed, *against = changed_times(*restless(1200.0, rivals_us))
    assert (timed.verdict, timed.by, timed.doubt) == (verdict, by, "")
    if by:
        (least,) = [one for one in against if one.measure == f"against {by}"]
        assert (timed.ratio, timed.low, timed.high) == (least.ratio, least.low, least.high)


def test_rivals_show_nothing_on_a_machine_that_is_busy_now_or_against_the_yardstick() -> None:
    busy = {"others_cpus": 0.5, "findings": ["busy: other processes used 0.50 CPUs"]}
    timed, _ = changed_times(*restless(1200.0, {"onnxruntime": 2000.0}, **busy))
    assert timed.verdict == "undecided"
    assert timed.doubt.startswith("busy: other processes used 0.50 CPUs")
    # The yardstick is sure that nothing changed: the rival did.
    then, now = (steady(1000.0, rival_us=us) for us in (2000.0, 1600.0))
    timed, against = changed_times(then, now)
    assert (timed.verdict, timed.by, against.verdict) == ("undecided", "", "slower")


def test_what_failed_has_no_times() -> None:
    then, now = steady(1000.0), steady(1000.0)
    (table,) = now.tables
    failed = replace(table.entries[0], rounds_us=(), latency=None, problem="wrong answers")
    now = replace(now, tables=(replace(table, entries=(failed,)),))
    assert changed_times(then, now) == [] == changed_times(now, then)
    assert changed_parity(then, now)


def test_a_rival_of_another_version_is_no_witness() -> None:
    then = steady(1000.0, rival_us=2000.0)
    now = steady(1200.0, rival_us=2400.0, versions={"onnxruntime": "2"})
    (timed,) = changed_times(then, now)
    assert timed.verdict == "slower"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (0.0, 0.5, "undecided"),
        (0.5, 0.5, "slower"),
        (0.0, 0.0, "slower"),
    ],
)
def test_a_busier_machine_proves_nothing(before: float, after: float, verdict: str) -> None:
    def load(cpus: float) -> dict[str, Any]:
        findings = [f"busy: other processes used {cpus} CPUs"] if cpus else []
        return {"others_cpus": cpus, "findings": findings}

    then = steady(1000.0, disturbance=load(before))
    (change,) = changed_times(then, steady(2000.0, disturbance=load(after)))
    assert change.verdict == verdict
    assert bool(change.doubt) == (verdict == "undecided")


def test_throttling_proves_nothing() -> None:
    now = steady(2000.0, disturbance={"findings": ["throttled: fixed work took 20% longer"]})
    (change,) = changed_times(steady(1000.0), now)
    assert (change.verdict, change.doubt) == ("undecided", "throttled: fixed work took 20% longer")


def test_few_rounds_prove_nothing() -> None:
    (change,) = changed_times(steady(1000.0), steady(2000.0, rounds=5))
    assert (change.verdict, change.could_see, change.to_dict()["could_see"]) == (
        "undecided",
        None,
        None,
    )


def test_what_could_be_seen_across_sessions_is_seen_in_four_of_five() -> None:
    rng = np.random.default_rng(4)
    quiet = Machine(own=0.03, memory=0.2, spikes=0.01, process=0.0, slow_state=0.0)

    def once(slower: float) -> Result:
        ours, again, yard = quiet.time(rng, 40, (1000.0 * slower, 1000.0 * slower, 700.0))
        load = {"yardstick_us": yard.tolist()}
        given = {"rounds_us": {"tvmdet": ours}, "again_us": again, "disturbance": load}
        return measured({TABLE: given})

    equal = [changed_times(once(1.0), once(1.0))[0].could_see or 0.0 for _ in range(20)]
    slower = 1.0 + float(np.median(equal))
    called = [changed_times(once(1.0), once(slower))[0].verdict for _ in range(40)]
    assert called.count("slower") >= 0.75 * len(called)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({}, ""),
        ({"rounds": 5}, "fewer than 6 rounds, then or now, show nothing"),
        ({"us": 1300.0, "rival_us": 2600.0}, "not slower against any rival"),
        ({"us": 700.0}, ""),
        (
            {"disturbance": {"findings": ["busy: very", "uneven: clocks"]}},
            f"{TABLE}: cannot tell, busy: very",
        ),
        ({"disturbance": {"findings": ["throttled: for heat"]}}, "throttled: for heat"),
        ({"problems": {"tvmdet": "failed"}, "us": None}, "tvmdet has no time both then and now"),
        (
            {"yardstick": [400.0, 600.0] * 10},
            r"a slow-down of 10\.0% could have been missed: it had to be \d+\.\d% to",
        ),
    ],
    ids=str,
)
def test_why_a_slow_down_would_have_been_missed(now: dict[str, Any], why: str) -> None:
    yardstick = now.pop("yardstick", [500.0] * now.get("rounds", 20))
    load = {"yardstick_us": yardstick, **now.pop("disturbance", {})}
    then = steady(1000.0, rival_us=2000.0, disturbance={"yardstick_us": [500.0] * 20})
    us = now.pop("us", 1000.0)
    again = steady(us or 1000.0, rival_us=now.pop("rival_us", 2000.0), disturbance=load, **now)
    if us is None:
        (table,) = again.tables
        failed = replace(table.entries[0], rounds_us=(), latency=None)
        again = replace(again, tables=(replace(table, entries=(failed,)),))
    found = list(undetectable(changed_times(then, again), again, 0.1))
    assert len(found) == bool(why)
    assert not why or re.search(why, found[0])


def test_tables_that_only_one_has_are_no_times() -> None:
    assert changed_times(steady(1000.0), measured()) == []
    assert changed_parity(steady(1000.0), measured()) == [f"{TABLE}: is not measured any more"]


@pytest.mark.parametrize("count", [40, 41, 300])
def test_the_interval_is_about_that_of_a_drawn_bootstrap(count: int) -> None:
    rng = np.random.default_rng(count)
    now, then = 1e3 * rng.gamma(20.0, 1.0, count), 1e3 * rng.gamma(20.0, 1.1, count)
    (found,) = changed_times(clocked(then), clocked(now))
    drawn = [
        np.median(rng.choice(now, count)) / np.median(rng.choice(then, count)) for _ in range(2000)
    ]
    low, high = np.log(np.quantile(drawn, (0.025, 0.975)))
    assert found.ratio == pytest.approx(np.median(now) / np.median(then), rel=0.01)
    # Wider by Student's t, and by blocks where chance correlates neighbours.
    assert 0.8 < np.log(found.high / found.low) / (high - low) < 2.0
    assert found.low < found.ratio < found.high


def test_a_difference_of_less_than_a_hundredth_is_not_called() -> None:
    then = np.random.default_rng(5).normal(2e4, 10.0, 400)
    for factor, verdict in ((1.005, "undecided"), (1.02, "slower"), (0.9, "faster")):
        (change,) = changed_times(clocked(then), clocked(then * factor))
        assert change.verdict == verdict


def test_a_hundred_thousand_calls_compare_at_once() -> None:
    then = np.random.default_rng(6).normal(2e4, 1e3, 100_000)
    started = time.perf_counter()
    (found,) = changed_times(clocked(then), clocked(then * 1.02))
    assert time.perf_counter() - started < 5.0
    assert (found.verdict, found.ratio) == ("slower", pytest.approx(1.02))
    assert found.high - found.low < 0.004


def clocked(us: np.ndarray) -> Result:
    """A session without a yardstick, of rounds without a copy of tvmdet."""
    return measured({TABLE: {"rounds_us": {"tvmdet": us.tolist()}}})


BOXES = {"boxes_xyxy": [0.0, 0.0, 10.0, 10.0], "scores": [0.9], "class_ids": [1.0]}
VALUES = {"y": [0.5, -1.0, 2.0, 2.0]}


@pytest.mark.parametrize(
    ("then", "now", "says"),
    [
        ({}, {}, ""),
        ({}, BOXES, ""),
        (BOXES, BOXES, ""),
        (BOXES, {**BOXES, "boxes_xyxy": [0.0, 0.0, 10.01, 10.0]}, ""),
        (BOXES, {**BOXES, "boxes_xyxy": [0.0, 0.0, 14.0, 10.0]}, "boxes are not the recorded"),
        (BOXES, {**BOXES, "class_ids": [2.0]}, "boxes are not the recorded"),
        (BOXES, {**BOXES, "scores": [0.8]}, "a score is off the recorded one by 0.1"),
        (BOXES, {key: [] for key in BOXES}, "0 boxes instead of 1"),
        (BOXES, VALUES, "it answered boxes_xyxy, scores, class_ids, and answers y"),
        (VALUES, {"y": [0.5001, -1.0, 2.0, 2.0]}, ""),
        (VALUES, {"y": [0.6, -1.1, 2.0, 2.0]}, "output y is off the recorded one by 0.05"),
        (VALUES, {"y": [0.5]}, "output y has another number of values"),
    ],
)
def test_answers(then: dict[str, Any], now: dict[str, Any], says: str) -> None:
    said = changed_parity(steady(1.0, answers=then), steady(1.0, answers=now))
    assert says in " ".join(said)
    assert bool(said) == bool(says)


@pytest.mark.parametrize(
    ("parity", "says"),
    [
        (None, "no parity certificate any more"),
        ({"tolerance": {"raw": 1e-2}, "images": [1, 2], "batch_sizes": [1]}, "tolerance was"),
        ({"tolerance": {"raw": 1e-3}, "images": [1], "batch_sizes": [1]}, "covered 2 images, it"),
        ({"tolerance": {"raw": 1e-3}, "images": [1, 2, 3], "batch_sizes": [1, 2]}, ""),
    ],
)
def test_certificates(parity: dict[str, Any] | None, says: str) -> None:
    said = changed_parity(measured(), replace(measured(), parity=parity))
    assert says in " ".join(said)
    assert bool(said) == bool(says)


def test_wrong_answers_are_a_change_and_were_always_wrong_ones_not() -> None:
    right, wrong = steady(1.0), steady(1.0, problems={"tvmdet": "wrong: by far"})
    assert "the answers were right, now: wrong: by far" in changed_parity(right, wrong)[0]
    assert changed_parity(wrong, wrong) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"load_average": (9.0,), "system": "Linux 7", "python": "3.13"}, ""),
        ({"cpu": "Another"}, "CPU 'A CPU', here 'Another'"),
        ({"cpus_usable": 8}, "usable CPUs 1, here 8"),
        ({"features": ("avx2", "avx512f")}, "features of one of the two only: avx512f"),
        ({"accelerator": {"name": "a GPU"}}, "accelerator None, here"),
        ({"memory_bytes": 2 << 30}, "memory 1073741824, here"),
        ({"memory_bytes": (1 << 30) + 4096}, ""),
        ({"clock": {"max_mhz": 2000}}, "greatest clock 3000, here 2000"),
        ({"clock": {"max_mhz": 3000, "boost": True}}, "boost None, here True"),
    ],
)
def test_other_hardware(change: dict[str, Any], says: str) -> None:
    then = replace(measured().machine, memory_bytes=1 << 30, clock={"max_mhz": 3000})
    said = other_hardware(then, replace(then, **change))
    assert says in " ".join(said)
    assert bool(said) == bool(says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"memory_bytes": 80 << 30}, ""),  # older results do not say it
        ({"max_mhz": 1700}, "accelerator {'name': 'a GPU', 'max_mhz': 1980}, here"),
        ({"name": "another"}, "here {'name': 'another'"),
    ],
)
def test_another_gpu_is_other_hardware(change: dict[str, Any], says: str) -> None:
    gpu = {"name": "a GPU", "max_mhz": 1980}
    then = replace(measured().machine, accelerator=gpu)
    said = other_hardware(then, replace(then, accelerator={**gpu, **change}))
    assert says in " ".join(said)
    assert bool(said) == bool(says)


@pytest.mark.parametrize(
    ("seen", "limit"),
    [
        ([0.02], "one below 2%"),
        ([0.02, 0.31, 0.04], "one below 31%"),
        ([0.02, None], "one of any size"),
        ([None], "one of any size"),
    ],
)
def test_what_could_have_been_missed(seen: list[float | None], limit: str) -> None:
    assert missed(seen) == limit
