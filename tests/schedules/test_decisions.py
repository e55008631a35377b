"""Decisions and fingerprints: the keys that tuning records are found by."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduled_kernels import Kernel, only_kernel
from tvm import relax, te
from tvmdet.schedules.base import Decision, fingerprint, schedule_of
from tvmdet.targets import get_target, list_targets

from tvmdet import schedules
from tvmdet.errors import TuningError


def _conv(filters: int = 32, *, groups: int = 1, width: int = 20, target: str = "") -> Kernel:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, 12, width, 32)).astype("float32")
    weight = rng.standard_normal((filters, 3, 3, 32 // groups)).astype("float32")

    def emit(builder: Any, x: Any) -> Any:
        conv = relax.op.nn.conv2d(
            x,
            relax.const(weight),
            padding=[1, 1, 1, 1],
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
        return builder.emit(relax.op.nn.relu(builder.emit(conv)))

    return only_kernel(emit, [data], get_target(target or "x86-64-v3"))


def _doubled(shape: tuple[int, ...], name: str = "a", dtype: str = "float32") -> Any:
    x = te.placeholder(shape, name=name, dtype=dtype)
    return te.create_prim_func([x, te.compute(shape, lambda *i: x(*i) + x(*i), name=name + "2")])


@pytest.mark.parametrize(
    "target", [target.name for target in list_targets() if target.family == "x86"]
)
@pytest.mark.parametrize("kwargs", [{}, {"filters": 33}, {"groups": 32}, {"width": 7}], ids=str)
def test_decisions_are_distinct_and_always_the_same(target: str, kwargs: dict[str, int]) -> None:
    kernel = _conv(target=target, **kwargs)
    decisions = list(kernel.decisions)
    assert len(decisions) > 1
    assert len(set(decisions)) == len(decisions)
    assert len({str(decision) for decision in decisions}) == len(decisions)
    again = kernel.template.decisions(kernel.workload, get_target(target))
    assert list(again) == decisions
    assert all(decision.template == kernel.template.name for decision in decisions)


def test_decisions_survive_json() -> None:
    for decision in _conv().decisions:
        back = Decision.from_dict(json.loads(json.dumps(decision.to_dict())))
        assert back == decision and hash(back) == hash(decision) and str(back) == str(decision)


def test_a_decision_prints_and_reads_its_knobs() -> None:
    decision = Decision.of("x86.some", tile_w=7, order="rows")
    assert str(decision) == "x86.some(tile_w=7, order=rows)"
    assert decision["tile_w"] == 7 and decision["order"] == "rows"
    assert decision != Decision.of("x86.some", tile_w=8, order="rows")
    with pytest.raises(KeyError):
        decision["tile_h"]


def test_templates_are_found_by_name() -> None:
    for target in list_targets():
        for template in schedules.templates(target):
            assert schedules.get_template(template.name).name == template.name
        last = "cuda.plain_loops" if target.kind == "cuda" else "common.as_is"
        assert schedules.templates(target)[-1].name == last
    with pytest.raises(TuningError, match=r"no template is called 'x86.magic'; there are "):
        schedules.get_template("x86.magic")


def test_a_schedule_leaves_the_original_alone() -> None:
    kernel = _conv()
    before, text = fingerprint(kernel.func), kernel.func.script()
    for decision in (kernel.decisions[0], kernel.decisions[-1]):
        kernel.template.apply(kernel.func, kernel.workload, decision)
        assert fingerprint(kernel.func) == before
    assert kernel.func.script() == text
    # The first split of a function whose blocks were not inlined is what once wrote through.
    plain = _doubled((64, 48))
    before = fingerprint(plain)
    schedule = schedule_of(plain)
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    schedule.split(schedule.get_loops(block)[0], [8, None])
    assert fingerprint(plain) == before
    assert fingerprint(schedule.mod["main"]) != before


def test_applying_twice_gives_the_same_kernel() -> None:
    kernel = _conv()
    made = [
        fingerprint(kernel.template.apply(kernel.func, kernel.workload, d).mod["main"])
        for d in (kernel.decisions[1], kernel.decisions[1], kernel.decisions[0])
    ]
    assert made[0] == made[1] != made[2]


def test_fingerprints_ignore_names_only() -> None:
    same = fingerprint(_doubled((64, 48)))
    assert len(same) == 16 and int(same, 16) >= 0
    assert fingerprint(_doubled((64, 48), name="other")) == same
    assert fingerprint(_doubled((64, 48)).with_attr("global_symbol", "else")) == same
    for other in (_doubled((48, 64)), _doubled((64, 48), dtype="int32"), _doubled((3072,))):
        assert fingerprint(other) != same


def test_fingerprints_of_lowered_kernels_tell_workloads_apart() -> None:
    kernels = [_conv(), _conv(filters=48), _conv(groups=2), _conv(groups=32), _conv(width=21)]
    assert len({fingerprint(kernel.func) for kernel in kernels}) == len(kernels)
    assert len({kernel.workload.anchor for kernel in kernels}) == len(kernels)
    assert fingerprint(_conv().func) == fingerprint(kernels[0].func)


_PRINT = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import test_decisions
from tvmdet.schedules.base import fingerprint
kernel = test_decisions._conv()
print(fingerprint(kernel.func), hash(kernel.decisions[0]) is not None, kernel.workload.anchor)
"""


def test_fingerprints_are_the_same_in_another_process() -> None:
    here = Path(__file__).parent
    command = [sys.executable, "-c", _PRINT, str(here), str(here.parent)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    kernel = _conv()
    assert done.stdout.split(maxsplit=2) == [
        fingerprint(kernel.func),
        "True",
        kernel.workload.anchor + "\n",
    ]
