"""Verdicts on work that is timed for real, in processes of their own, on whatever machine this is.

Nothing is asserted of how long anything takes, but of how often a verdict is right.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import pytest
import timed_work
from onnx import helper, numpy_helper

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.report.agreement import Agreement
from tvmdet.report.contest import AGAIN, OURS, ranked
from tvmdet.report.load import LoadFound, LoadWatch
from tvmdet.report.peak import Peak
from tvmdet.report.per_layer import profile_layers
from tvmdet.report.results import Entry
from tvmdet.report.statistics import Comparison
from tvmdet.report.timing import Plan, time_in_turn
from tvmdet.report.worker import Worker

pytestmark = pytest.mark.slow

REPETITIONS = 20
BLOCKS = 100  # some milliseconds
SERVED = Path(timed_work.__file__)


def contest(rival_blocks: int, rounds: int = 60) -> tuple[Comparison, LoadFound]:
    """Times two copies and a rival; returns how they compare, and the load."""
    blocks = {OURS: BLOCKS, AGAIN: BLOCKS, "rival": rival_blocks}
    options = {"threads": 1, "precision": "fp32", "mode": ""}
    with ExitStack() as stack:
        workers = {}
        for name, count in blocks.items():
            worker = Worker(Path(sys.executable), SERVED, threads=1, environment=dict(os.environ))
            workers[name] = stack.enter_context(worker)
            worker.load(Path(str(count)), {}, options)
            worker.feed({})
        watch = LoadWatch(worker.pid for worker in workers.values())
        timings = time_in_turn(workers, Plan(rounds=rounds), between=watch.sample)
        load = watch.read()
    agreement = Agreement(worst=0.0, output="y", tolerance=1.0)
    entries = {name: Entry(name=name, agreement=agreement) for name in blocks}
    (_, rival), noise = ranked(entries, timings, {})
    assert noise is not None
    assert rival.comparison is not None
    return rival.comparison, load


def test_equal_work_is_undecided_in_19_of_20() -> None:
    verdicts = Counter(contest(BLOCKS)[0].verdict for _ in range(REPETITIONS))
    assert verdicts["undecided"] >= 19, verdicts


def test_a_tenth_more_work_is_called_in_19_of_20() -> None:
    # tvmdet is the slower one. A run that says it could not see so little does not count.
    found = [contest(round(BLOCKS / 1.1))[0] for _ in range(REPETITIONS)]
    able = [one.verdict for one in found if one.could_see <= 0.1]
    if len(able) < REPETITIONS // 2:
        sizes = ", ".join(f"{one.could_see:.0%}" for one in found)
        pytest.skip(f"too busy a machine: differences that could have been seen: {sizes}")
    assert able.count("slower") >= 0.95 * len(able), Counter(able)


def test_a_hog_beside_a_contest_is_flagged() -> None:
    command = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        _, load = contest(BLOCKS, rounds=10)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert any(line.startswith("busy: other processes used") for line in load.findings)


def convolutions(layers: int = 6, channels: int = 32, side: int = 56) -> onnx.ModelProto:
    """A chain of convolutions, each long enough that watching it is nothing beside it."""
    rng = np.random.default_rng(0)
    shape = [1, channels, side, side]
    nodes, weights = [], []
    for index in range(layers):
        values = rng.normal(0, 0.05, (channels, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{index}"))
        given = [f"x{index}", f"w{index}"]
        nodes.append(helper.make_node("Conv", given, [f"c{index}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}"]))
    ends = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
        for name in ("x0", f"x{layers}")
    ]
    graph = helper.make_graph(nodes, "chain", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_kernels_add_up_to_the_network(tmp_path: Path) -> None:
    """Within 5 % of a call that nobody watches, in the middle of five profiles."""
    onnx.save(convolutions(), tmp_path / "m.onnx")
    model = tvmdet.import_onnx(tmp_path / "m.onnx", raw=True)
    tvmdet.compile(model, batch_sizes=(1,), output=tmp_path / "m.tvmdet", threads=1)
    artifact = Artifact.open(tmp_path / "m.tvmdet")
    peak = Peak(threads=1, flop_per_s=1e11, bytes_per_s={1 << 20: 1e10})
    found = [
        profile_layers(artifact, artifact.targets[0].name, 1, peak, rounds=100) for _ in range(5)
    ]
    assert median(table.closure for table in found) == pytest.approx(1, abs=0.05)
    assert sum(layer.calls for layer in found[0].layers) >= 6
