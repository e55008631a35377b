"""Arguments that kernels are timed on."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import kernels
import numpy as np
import pytest
import tvm

from tvmdet.tuning import worker


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("float32", 0.1, 1.0),
        ("float16", 0.0999, 1.0),
        ("float64", 0.1, 1.0),
        ("uint8", 0, 255),
        ("int8", -128, 127),
        ("uint16", 0x3DCC, 0x3F7F),  # bfloat16: 0.0996 and 0.996
        ("uint32", 0x3DCC3DCC, 0x3F7F3F7F),  # pairs of them
        ("int32", 0, 1),
        ("int64", 0, 1),
        ("bool", False, True),
    ],
)
def test_values_are_safe_for_any_kernel(dtype, low, high):
    array = worker.random_tensor(dtype, [3, 1000], 0).numpy()
    assert (array.dtype, array.shape) == (np.dtype(dtype), (3, 1000))
    assert low <= array.min() < array.max() <= high


def test_empty_and_large_arrays():
    assert worker.random_tensor("float32", [0, 4], 0).numpy().size == 0
    large = worker.random_tensor("float32", [70_000], 0).numpy()
    assert large.size == 70_000
    assert not np.array_equal(large[:10], large[10:20])


def apart(function, *given):
    """Calls a function on a thread of its own: TVM binds whoever computes with it to a core."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *given).result()


@pytest.mark.parametrize("words", [1, 63, 64, 65, 1000])
def test_every_word_is_written_once(words):
    before = np.arange(words, dtype="int64")
    tensor = tvm.runtime.tensor(before)
    apart(worker._write_again(), tensor, 1)
    np.testing.assert_array_equal(tensor.numpy(), before ^ 1)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float32", [1, 3, 5, 7]), ("uint8", [3]), ("uint16", [2, 2, 33])]
)
def test_a_picture_holds_what_it_held_before_a_call(dtype, shape):
    picture, weights = (worker.random_tensor(dtype, shape, seed) for seed in range(2))
    held = picture.numpy().copy()
    apart(worker._leave_as_in_networks, picture, weights)
    np.testing.assert_array_equal(picture.numpy(), held)


def test_pictures_are_written_before_each_call_here(tmp_path):
    """By what is registered under that name; the process keeps the cores that it had."""
    cores = os.sched_getaffinity(0)
    built = tvm.tirx.build(
        tvm.IRModule({"main": kernels.doubled.with_attr("global_symbol", "main")}), "llvm"
    )
    built.export_library(str(tmp_path / "k.so"))
    calls = []
    tvm.register_global_func(
        worker._AS_IN_NETWORKS, lambda *given: calls.append(len(given)), override=True
    )
    try:
        args = [["float32", [96]], ["float32", [96]]]
        request = {"threads": 1, "abort_above_s": None, "measure_s": 1e-6}
        request["kernels"] = [{"path": str(tmp_path / "k.so"), "args": args}]
        answer = apart(worker._Runner().run, request)
    finally:
        tvm.register_global_func(
            worker._AS_IN_NETWORKS, worker._leave_as_in_networks, override=True
        )
    # Each timer calls once before it begins to time.
    timed = sum(map(len, answer["latencies_s"]))
    assert len(calls) >= timed > 0
    assert set(calls) == {2}
    assert os.sched_getaffinity(0) == cores


def test_an_error_is_one_line_of_bounded_length():
    text = worker._one_line(ValueError("the whole function\nError message: it\n  does not fit"))
    assert text == "ValueError: it does not fit"
    assert len(worker._one_line(ValueError("x" * 10_000))) < 700


class Scripted:
    """A kernel whose calls take what a list says, and that writes down whose turn it is."""

    def __init__(self, name, turns, seconds):
        self._name, self._turns, self._seconds = name, turns, iter(seconds)

    def call(self, repeat):
        self._turns.append((self._name, repeat))
        return [next(self._seconds) for _ in range(repeat)]


def timed(*seconds, beside_s=None, best=None, measure_s=0.03):
    """Returns the answer and the turns; names are a for the candidate and b for its rival."""
    turns = []
    kernels = [Scripted(name, turns, each) for name, each in zip("ab", seconds, strict=False)]
    request = {"abort_above_s": best, "beside_s": beside_s, "measure_s": measure_s}
    return worker._time(kernels, request), turns


def test_two_kernels_take_turns_and_go_first_by_turns():
    answer, turns = timed(itertools.repeat(2e-3), itertools.repeat(1e-3), beside_s=1e-3)
    assert "".join(name for name, _ in turns) == "aabb" + "abba" * 4
    assert {repeat for _, repeat in turns[4:]} == {2}
    assert answer["latencies_s"] == [[2e-3] * 16, [1e-3] * 16]
    assert answer["over"] == pytest.approx([2.0]) and not answer["aborted"]


def test_a_slow_kernel_is_called_seldom():
    _, turns = timed(itertools.repeat(0.2), itertools.repeat(0.3), beside_s=0.1)
    assert [repeat for _, repeat in turns[4:]] == [1] * 10
    noisy = itertools.cycle([0.2, 0.2, 0.5, 0.5, 0.5])
    _, turns = timed(noisy, itertools.repeat(0.3), beside_s=0.1)
    assert len(turns) == 14, "no further round after a second"


@pytest.mark.parametrize("noisy", [0, 1])
def test_a_busy_machine_is_waited_for_whichever_kernel_it_disturbs(noisy):
    times = [itertools.repeat(1e-3), itertools.repeat(1e-3)]
    times[noisy] = itertools.cycle([1e-3, 2e-3, 2e-3])
    answer, _ = timed(*times, beside_s=1e-3)
    assert [len(each) for each in answer["latencies_s"]] == [96, 96]


def test_the_limit_is_that_of_the_moment():
    """The rival takes ten times what it is recorded with: so may the candidate."""
    answer, _ = timed(itertools.repeat(0.02), itertools.repeat(0.01), beside_s=1e-3, best=3e-3)
    assert not answer["aborted"]
    answer, turns = timed(itertools.repeat(0.04), itertools.repeat(0.01), beside_s=1e-3, best=3e-3)
    assert answer == {"latencies_s": [[0.04], [0.01]], "over": [4.0], "aborted": True}
    assert [name for name, _ in turns] == list("aabba"), "a last chance"
    answer, _ = timed(itertools.repeat(0.02), best=0.01)
    assert answer == {"latencies_s": [[0.02]], "over": [], "aborted": True}


@pytest.mark.parametrize("slow_share", [0.3, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("stays", [0.0, 0.8])
def test_calls_that_take_four_times_as_long_do_not_change_the_ratio(slow_share, stays):
    """As where another program has one of the cores; it stays there for some calls or for one."""
    random = np.random.default_rng(0)
    slow = False

    def seconds(quick):
        nonlocal slow
        while True:
            slow = slow if random.random() < stays else random.random() < slow_share
            yield quick * (4.0 if slow else 1.0) * random.uniform(1.0, 1.05)

    found = [timed(seconds(1e-3), seconds(2e-3), beside_s=2e-3)[0] for _ in range(200)]
    ratios = np.array([answer["over"][0] for answer in found])
    assert np.mean(np.abs(np.log(ratios / 0.5)) > np.log(1.1)) < 0.05


def test_arguments_of_two_kernels_are_kept():
    args = worker._Arguments()
    cpu = worker.tvm.cpu()
    small, large, other = [["float32", [4]]], [["float32", [8]]], [["int8", [3]]]
    first, second = args.of(small, cpu, 2), args.of(large, cpu, 2)
    assert args.of(small, cpu, 2) is first
    assert args.of(large, cpu, 2) is second
    assert args.of(other, cpu, 2)[0].shape == (3,)
    assert args.of(large, cpu, 2) is second
    assert args.of(small, cpu, 2) is not first
