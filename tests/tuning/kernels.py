"""Kernels and templates for the tuning tests; run as a script, it tunes until it is stopped."""

from __future__ import annotations

import sys
from pathlib import Path

from tvm.script import tirx as T
from tvmdet.schedules.base import Decision, Template, Workload, fingerprint, schedule_of
from tvmdet.targets import get_target

from tvmdet.tuning import MeasureOptions, Task, TuningStore, tune_tasks

FAST = MeasureOptions(measure_s=0.002, run_timeout_s=10.0, confirm_share=0.0)


@T.prim_func(s_tir=True)
def matmul(
    a: T.Buffer((48, 48), "float32"),
    b: T.Buffer((48, 48), "float32"),
    c: T.Buffer((48, 48), "float32"),
):
    for i, j, k in T.grid(48, 48, 48):
        with T.sblock("matmul"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                c[vi, vj] = T.float32(0)
            c[vi, vj] = c[vi, vj] + a[vi, vk] * b[vk, vj]


@T.prim_func(s_tir=True)
def doubled(a: T.Buffer((96,), "float32"), b: T.Buffer((96,), "float32")):
    for i in range(96):
        with T.sblock("double"):
            vi = T.axis.spatial(96, i)
            b[vi] = a[vi] * T.float32(2)


@T.prim_func(s_tir=True)
def aborts(a: T.Buffer((96,), "float32"), b: T.Buffer((96,), "float32")):
    for i in range(96):
        with T.sblock("double"):
            vi = T.axis.spatial(96, i)
            b[vi] = a[vi] + T.Cast("float32", T.call_extern("int32", "abort"))


@T.prim_func(s_tir=True)
def hangs(a: T.Buffer((96,), "float32"), b: T.Buffer((96,), "float32")):
    for i in range(96):
        with T.sblock("double"):
            vi = T.axis.spatial(96, i)
            b[vi] = a[vi] + T.Cast("float32", T.call_extern("int32", "pause"))


@T.prim_func(s_tir=True)
def lacks(a: T.Buffer((96,), "float32"), b: T.Buffer((96,), "float32")):
    for i in range(96):
        with T.sblock("double"):
            vi = T.axis.spatial(96, i)
            b[vi] = a[vi] + T.Cast("float32", T.call_extern("int32", "tvmdet_no_such_symbol"))


class Tiles(Template):
    """Tiles of a matrix product: 64 decisions, of which those with an odd split do not divide."""

    name = "test.tiles"

    def match(self, func, target):
        return Workload("matmul 48", flop=2 * 48**3)

    def decisions(self, workload, target):
        sizes = (1, 2, 3, 4, 6, 8, 12, 16)
        return [Decision.of(self.name, y=y, x=x) for y in sizes for x in sizes]

    def apply(self, func, workload, decision):
        schedule = schedule_of(func)
        i, j, k = schedule.get_loops(schedule.get_sblock("matmul"))
        io, ii = schedule.split(i, [None, decision["y"]])
        jo, ji = schedule.split(j, [None, decision["x"]])
        schedule.reorder(io, jo, k, ii, ji)
        schedule.parallel(io)
        return schedule


class Kinds(Template):
    """Each decision is another fate; ``fine`` ones work."""

    name = "test.kinds"

    def __init__(self, *kinds):
        self.kinds = kinds

    def match(self, func, target):
        return Workload("kinds " + " ".join(self.kinds))

    def decisions(self, workload, target):
        return [Decision.of(self.name, kind=kind) for kind in self.kinds]

    def apply(self, func, workload, decision):
        kind = decision["kind"]
        if kind == "unschedulable":
            schedule = schedule_of(func)
            schedule.reorder(*schedule.get_loops(schedule.get_sblock("double")) * 2)
        other = {"aborts": aborts, "hangs": hangs, "lacks": lacks}.get(kind, func)
        return schedule_of(other)


def make_task(template, func, count=1, key=None):
    target = get_target("host")
    workload = template.match(func, target)
    return Task(
        func=func,
        fingerprint=key or fingerprint(func),
        anchor=workload.anchor,
        template=template,
        workload=workload,
        decisions=tuple(template.decisions(workload, target)),
        count=count,
    )


def tiles_task():
    return make_task(Tiles(), matmul, count=2)


def relax_module():
    """Returns two kernels; one is there twice and is called once by itself, twice through one."""
    from tvm import relax

    builder = relax.BlockBuilder()
    vector, matrix = relax.TensorType((96,), "float32"), relax.TensorType((48, 48), "float32")
    double, again, product = (
        builder.add_func(func.with_attr("global_symbol", name), name)
        for name, func in (("double", doubled), ("again", doubled), ("product", matmul))
    )
    z = relax.Var("z", vector)
    with builder.function("inner", [z]):
        builder.emit_func_output(builder.emit(relax.call_tir(double, [z], vector)))
    inner = builder.get().get_global_var("inner")
    x, y = relax.Var("x", vector), relax.Var("y", matrix)
    with builder.function("main", [x, y]):
        value = builder.emit(relax.call_tir(again, [x], vector))
        for _ in range(2):
            value = builder.emit(relax.Call(inner, [value]))
        matrices = builder.emit(relax.call_tir(product, [y, y], matrix))
        builder.emit_func_output(relax.Tuple([value, matrices]))
    return builder.get()


def main() -> None:
    logs, budget = Path(sys.argv[1]), float(sys.argv[2])
    report = tune_tasks(
        [tiles_task()],
        target=get_target("host"),
        store=TuningStore(logs),
        budget_s=budget,
        options=FAST,
        min_gain=0.0,
    )
    print(report.stopped, report.trials, flush=True)


if __name__ == "__main__":
    main()
