"""Times a compiled detector against ONNX Runtime: `compare.py FILE.tvmdet MODEL.onnx IMAGE`.

The compiled detector goes from the decoded image to boxes in its pixels, resizing and
suppression included; ONNX Runtime runs the network alone. Both take turns, on equal threads. Idle
threads of both spin for a while on the cores that the other needs: each waits until they sleep, and
makes one call that is not timed before the one that is.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np
import onnxruntime

import tvmdet

ROUNDS = 40
WARM_UP = 5
SPIN_DOWN_S = 0.02


def timed(call: Callable[[], object]) -> float:
    """Returns the milliseconds of one call, once the other side's threads sleep."""
    time.sleep(SPIN_DOWN_S)
    call()
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def main(compiled: str, model: str, picture: str) -> None:
    """Runs both in turns and prints the medians."""
    image = cv2.imread(picture)
    detector = tvmdet.load(compiled)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = detector.threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    data = {entry.name: np.random.default_rng(0).random(entry.shape, np.float32)}
    ours, theirs = [], []
    for _ in range(WARM_UP + ROUNDS):
        ours.append(timed(lambda: detector.detect(image)))
        theirs.append(timed(lambda: session.run(None, data)))
    mine = statistics.median(ours[WARM_UP:])
    other = statistics.median(theirs[WARM_UP:])
    print(f"median of {ROUNDS} runs in turns, {detector.threads} threads, {detector.target}:")
    print(f"  tvmdet, image to boxes           {mine:7.2f} ms")
    print(f"  ONNX Runtime, the network alone  {other:7.2f} ms  (ratio {mine / other:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:])
