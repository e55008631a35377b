"""Which task is tuned next, and when tuning has done enough."""

import dataclasses

import kernels
import pytest

from tvmdet.tuning.planner import TaskState, close_races, total_latency, worth_tuning


def make_state(best_s, count=1, roofline_s=0.0, remaining=10, **more):
    task = kernels.make_task(kernels.Kinds("a", "b"), kernels.doubled, count)
    fields = {"best_s": best_s, "roofline_s": roofline_s, "remaining": remaining, **more}
    return TaskState(task=task, **fields)


def test_no_task_is_worth_nothing():
    assert worth_tuning([], 0.0) == []
    assert total_latency([]) is None


def test_calls_count_as_much_as_latency():
    often, slow = make_state(1.0, count=5), make_state(2.0)
    assert worth_tuning([slow, often], 0.0) == [often, slow]


def test_the_distance_to_the_roofline_counts():
    near, far = make_state(1.0, roofline_s=0.9), make_state(1.0, roofline_s=0.2)
    assert worth_tuning([near, far], 0.0) == [far, near]


def test_slices_that_find_nothing_lower_the_hope_until_it_is_not_worth_a_slice():
    state = make_state(1.0, roofline_s=0.5)
    before = state.expected_gain_s
    for _ in range(3):
        state.end_slice(1.0)
    assert state.expected_gain_s == before / 8
    assert worth_tuning([state], 0.5) == []
    assert worth_tuning([state], 0.0) == [state]


def test_an_improvement_renews_the_hope():
    state = make_state(1.0, roofline_s=0.5, stale=3)
    state.record(0.8)
    state.end_slice(1.0)
    assert (state.stale, state.gain) == (0, pytest.approx(0.2))


@pytest.mark.parametrize("change", [{"remaining": 0}, {"failed": "it broke"}])
def test_tasks_that_are_over_are_not_picked(change):
    assert worth_tuning([make_state(1.0, **change)], 0.0) == []


def test_a_task_that_never_worked_is_given_up():
    state = make_state(None, tried=1, error="build: it broke")
    state.end_slice(None)
    assert not state.failed  # one of its two decisions is left
    state.tried = 2
    state.end_slice(None)
    assert state.failed == "build: it broke"


def test_the_estimate_waits_for_every_task_but_those_given_up():
    one, two = make_state(1.0, count=3), make_state(None)
    assert total_latency([(one, 1.0), (two, None)]) is None
    two.failed = "it broke"
    assert total_latency([(one, 1.0), (two, None)]) == 3.0


def layer_state(anchor, best_s, count=1):
    state = make_state(best_s, count)
    state.task = dataclasses.replace(state.task, anchor=anchor)
    return state


def pair_states(pair_s, count=1):
    depthwise, pointwise = "depthwise_conv2d c8", "conv2d c8 k1x1"
    return [
        layer_state(depthwise, 1.0, count),
        layer_state(pointwise, 3.0, count),
        layer_state(f"bf16_{pointwise}", 2.0, count),
        layer_state(f"{depthwise} + {pointwise}", pair_s, count),
        layer_state(f"{depthwise} + bf16_{pointwise}", pair_s + 0.1, count),
    ]


@pytest.mark.parametrize(("pair_s", "each"), [(2.5, 2.5), (3.5, 3.0)])
def test_a_pair_counts_where_one_kernel_is_faster_than_two(pair_s, each):
    states = pair_states(pair_s, count=4)
    assert total_latency([(s, s.best_s) for s in states]) == pytest.approx(4 * each)


def test_a_pair_that_is_far_behind_its_parts_is_left_alone():
    states = pair_states(9.0)
    worth = worth_tuning(states, 0.0)
    assert not any(" + " in state.task.anchor for state in worth)
    assert any(" + " in state.task.anchor for state in worth_tuning(pair_states(3.5), 0.0))


def test_only_close_races_are_run_again_those_of_slow_layers_first():
    direct = layer_state("conv2d n1", 1.05)
    winograd = layer_state("winograd4_conv2d n1", 1.0)
    clear = layer_state("conv2d n2", 5.0)
    slow = layer_state("softmax", 2.0, count=3)
    seconds = {
        direct: {"a": 1.05, "b": 1.2},
        winograd: {"c": 1.0, "d": 1.09, "e": 1.5},
        clear: {"f": 5.0, "g": 9.0},
        slow: {name: 2.0 + i / 100 for i, name in enumerate("uvwxyz")},
    }
    assert close_races(seconds, seconds.__getitem__) == [
        [(slow, "u"), (slow, "v"), (slow, "w"), (slow, "x")],
        [(winograd, "c"), (direct, "a"), (winograd, "d")],
    ]


def test_a_task_that_failed_races_with_nobody():
    state = layer_state("conv2d n1", 1.0)
    state.failed = "it crashed"
    assert close_races([state], lambda _: {"a": 1.0, "b": 1.0}) == []
