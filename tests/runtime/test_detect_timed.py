"""The phases of a detection add up to it, and do not change it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tvmdet
from tvmdet.errors import InputError
from tvmdet.runtime.native import configure_workers
from tvmdet.runtime.threads import native_thread

PHASES = ["decode", "resize", "queue", "network", "map"]


def test_phases_add_up_to_the_call(toy_path: Path) -> None:
    picture = np.full((64, 96, 3), 200, np.uint8)
    with tvmdet.load(toy_path) as detector:
        expected = detector.detect(picture)
        start = time.perf_counter()
        found, seconds = detector.detect_timed(picture)
        whole = time.perf_counter() - start
    assert list(seconds) == PHASES
    assert all(value >= 0 for value in seconds.values())
    assert sum(seconds.values()) <= whole
    np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)


def test_a_network_without_a_head_has_no_boxes(raw_path: Path) -> None:
    with tvmdet.load(raw_path) as network, pytest.raises(InputError, match="compiled with --raw"):
        network.detect_timed(np.zeros((4, 4, 3), np.uint8))


def test_thresholds_are_checked(toy_path: Path) -> None:
    with tvmdet.load(toy_path) as detector, pytest.raises(InputError, match="score is 2"):
        detector.detect_timed(np.zeros((4, 4, 3), np.uint8), score=2)


def test_waiting_for_another_call_is_the_queue(toy_path: Path) -> None:
    picture = np.full((64, 96, 3), 200, np.uint8)
    with tvmdet.load(toy_path, threads=1) as detector:
        started = threading.Event()
        blocked = native_thread(1, configure_workers).submit(
            lambda: (started.set(), time.sleep(0.1))
        )
        assert started.wait(5)
        _, seconds = detector.detect_timed(picture)
        assert blocked.done()
    assert seconds["queue"] == max(seconds.values())
