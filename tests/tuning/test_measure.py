"""Building and running candidates: every fate of a worker is an answer."""

import kernels
import pytest
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.builder import BuilderInput
from tvm.s_tir.meta_schedule.runner import RunnerInput
from tvmdet.schedules.base import schedule_of
from tvmdet.targets import get_target

from tvmdet.passes.lower import tvm_target
from tvmdet.tuning import MeasureOptions
from tvmdet.tuning.measure import Measurer, split_error

TARGET = get_target("host")


@pytest.fixture(scope="module")
def measurer():
    options = MeasureOptions(measure_s=0.002, run_timeout_s=1.0, builders=1)
    with Measurer(target=TARGET, threads=2, options=options) as made:
        yield made


def measure(measurer, func):
    item = BuilderInput(schedule_of(func).mod, tvm_target(TARGET, 2))
    (built,) = measurer.builder.build([item])
    if built.error_msg:
        return built
    info = ArgInfo.from_prim_func(func)
    (future,) = measurer.runner.run([RunnerInput(built.artifact_path, "cpu", info)])
    return future.result()


def test_nothing_to_build(measurer):
    assert list(measurer.builder.build([])) == []


def test_a_kernel_is_timed(measurer):
    result = measure(measurer, kernels.matmul)
    assert result.error_msg is None
    assert all(0 < float(value) < 1 for value in result.run_secs)


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

    found_kind, text = split_error(measure(measurer, func).error_msg)
    assert re.fullmatch(kind, found_kind)
    assert re.search(message, text)
    assert measure(measurer, kernels.doubled).error_msg is None


def test_a_kernel_that_cannot_be_built_is_an_error(measurer):
    @kernels.T.prim_func(s_tir=True)
    def unbound(a: kernels.T.Buffer((96,), "float32"), b: kernels.T.Buffer((96,), "float32")):
        for i in kernels.T.thread_binding(96, thread="threadIdx.x"):
            with kernels.T.sblock("double"):
                vi = kernels.T.axis.spatial(96, i)
                b[vi] = a[vi]

    kind, text = split_error(measure(measurer, unbound).error_msg)
    assert kind == "build"
    assert text


def test_a_kernel_much_slower_than_the_best_is_timed_no_further(measurer):
    measurer.best_s = 1e-9
    try:
        assert len(measure(measurer, kernels.matmul).run_secs) == 1
    finally:
        measurer.best_s = None
    assert len(measure(measurer, kernels.matmul).run_secs) > 1


def test_stopping_abandons_what_is_unfinished():
    asked = []
    options = MeasureOptions(builders=1)
    with Measurer(
        target=TARGET, threads=1, options=options, stop=lambda: asked.append(1) or len(asked) > 3
    ) as measurer:
        kind, _ = split_error(measure(measurer, kernels.matmul).error_msg)
    assert kind == "stopped"
