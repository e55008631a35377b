"""Building and running candidates: every fate of a worker is an answer."""

import kernels
import pytest
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate
from tvmdet.schedules.base import schedule_of
from tvmdet.targets import get_target

from tvmdet.tuning import MeasureOptions
from tvmdet.tuning.measure import Failure, Measured, Measurer, Rival
from tvmdet.tuning.record import typical_latency

TARGET = get_target("host")


@pytest.fixture(scope="module")
def measurer():
    options = MeasureOptions(measure_s=0.002, run_timeout_s=1.0, builders=1)
    with Measurer(target=TARGET, threads=2, options=options) as made:
        yield made


def build(measurer, func):
    candidate = MeasureCandidate(schedule_of(func), ArgInfo.from_prim_func(func))
    (built,) = measurer.build([candidate])
    return built


def measure(measurer, func, **options):
    built = build(measurer, func)
    return built if isinstance(built, Failure) else measurer.run(built, **options)


def test_nothing_to_build(measurer):
    assert list(measurer.build([])) == []


def test_a_kernel_is_timed(measurer):
    result = measure(measurer, kernels.matmul)
    assert all(0 < value < 1 for value in result.latencies_s)
    assert result.pace is None
    assert min(result.latencies_s) <= result.cost_s <= max(result.latencies_s)


@pytest.mark.parametrize(
    ("func", "kind", "message"),
    [
        (kernels.aborts, "crash", "SIGABRT"),
        (kernels.hangs, "timeout", "no answer in 1 s"),
        (kernels.lacks, "(run|crash)", "."),
    ],
    ids=["aborts", "hangs", "lacks"],
)
def test_a_bad_kernel_is_an_error_and_the_next_one_runs(measurer, func, kind, message):
    import re

    failure = measure(measurer, func)
    assert re.fullmatch(kind, failure.kind)
    assert re.search(message, failure.message)
    assert isinstance(measure(measurer, kernels.doubled), Measured)


def test_a_kernel_that_cannot_be_built_is_an_error(measurer):
    @kernels.T.prim_func(s_tir=True)
    def unbound(a: kernels.T.Buffer((96,), "float32"), b: kernels.T.Buffer((96,), "float32")):
        for i in kernels.T.thread_binding(96, thread="threadIdx.x"):
            with kernels.T.sblock("double"):
                vi = kernels.T.axis.spatial(96, i)
                b[vi] = a[vi]

    failure = measure(measurer, unbound)
    assert failure.kind == "build"
    assert failure.message


def test_a_kernel_much_slower_than_the_best_is_timed_no_further(measurer):
    assert len(measure(measurer, kernels.matmul, best_s=1e-9).latencies_s) == 1
    assert len(measure(measurer, kernels.matmul).latencies_s) >= 5


def test_a_kernel_is_timed_in_turn_with_another(measurer):
    product, small = build(measurer, kernels.matmul), build(measurer, kernels.doubled)
    result = measurer.run(product, rival=Rival(built=small, cost_s=1.0))
    assert 0 < result.pace < 1
    assert result.pace == float(f"{result.pace:.4g}"), "as it is written to a log"
    assert result.cost_s == pytest.approx(typical_latency(result.latencies_s) / result.pace)


def test_a_rival_that_breaks_is_a_failure(measurer):
    rival = Rival(built=build(measurer, kernels.aborts), cost_s=1.0)
    failure = measurer.run(build(measurer, kernels.doubled), rival=rival)
    assert failure.kind == "crash"


def test_a_library_is_kept_until_it_is_discarded(measurer):
    built = build(measurer, kernels.doubled)
    for _ in range(2):
        assert isinstance(measurer.run(built), Measured)
    measurer.discard(built)
    measurer.discard(built)
    assert not built.path.exists()


def test_stopping_abandons_what_is_unfinished():
    asked = []
    options = MeasureOptions(builders=1)
    with Measurer(
        target=TARGET, threads=1, options=options, stop=lambda: asked.append(1) or len(asked) > 3
    ) as measurer:
        failure = measure(measurer, kernels.matmul)
    assert failure.kind == "stopped"
