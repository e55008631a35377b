"""How good the first guess of the matrix tiles' schedule is, on a CPU with Intel AMX.

Of each layer the schedule that the estimate (``schedules/x86/amx_estimate.py``) ranks first is
timed, those behind it, and some from anywhere in the ranking. What is printed is how many times as
long the first one takes as the fastest of them, and the geometric mean. The estimate's constants
were fitted to the first list; the second had no part in it.

    python tests/benchmarks/guess_rank.py --random 30
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvmdet.schedules.x86 import amx_conv2d_nhwc
from tvmdet.targets import get_target

from tvmdet.runtime.native import configure_workers

sys.path.append(str(Path(__file__).parents[1]))
from scheduled_kernels import Kernel, build, kernels_of

TARGET = get_target("sapphirerapids").at_precision("bf16")
LEADERS = 4

# Height, width, channels, filters, kernel, stride.
FITTED_TO = (
    (160, 160, 64, 64, 3, 1),
    (80, 80, 128, 128, 3, 1),
    (80, 80, 128, 256, 3, 2),
    (40, 40, 256, 256, 3, 1),
    (20, 20, 512, 512, 3, 1),
    (280, 30, 256, 256, 1, 1),
    (80, 80, 512, 128, 1, 1),
    (80, 80, 256, 256, 1, 1),
    (320, 320, 32, 64, 3, 1),
    (40, 40, 64, 64, 3, 1),
    (20, 20, 64, 64, 3, 1),
    (20, 20, 128, 256, 3, 2),
    (10, 10, 256, 256, 1, 1),
    (75, 75, 256, 256, 3, 1),
    (38, 38, 512, 512, 3, 1),
    (19, 19, 1024, 546, 3, 1),
    (150, 150, 128, 128, 3, 1),
    (300, 300, 64, 64, 3, 1),
    (80, 80, 16, 16, 3, 1),
    (80, 80, 24, 144, 1, 1),
    (40, 40, 40, 120, 1, 1),
    (160, 160, 16, 64, 1, 1),
    (20, 20, 160, 960, 1, 1),
    (112, 112, 32, 16, 1, 1),
    (56, 56, 24, 72, 1, 1),
    (128, 128, 64, 256, 1, 1),
    (64, 64, 256, 64, 1, 1),
    (52, 52, 128, 64, 1, 1),
    (100, 76, 96, 96, 1, 1),
    (30, 40, 64, 384, 1, 1),
    (160, 160, 32, 32, 3, 1),
    (120, 160, 16, 32, 3, 2),
)
OTHERS = (
    (104, 104, 48, 96, 3, 2),
    (52, 52, 192, 192, 3, 1),
    (26, 26, 384, 255, 1, 1),
    (13, 13, 512, 1024, 3, 1),
    (96, 168, 32, 128, 1, 1),
    (48, 84, 256, 80, 3, 1),
    (64, 64, 40, 240, 1, 1),
    (28, 28, 240, 40, 1, 1),
    (34, 60, 144, 144, 3, 1),
    (100, 152, 256, 256, 3, 1),
)


def layer(height: int, width: int, channels: int, filters: int, size: int, stride: int) -> Kernel:
    """Returns a convolution between two others, that reads and writes bfloat16."""
    rng = np.random.default_rng(0)

    def conv(builder: Any, x: Any, *weight: int, **more: Any) -> Any:
        values = relax.const(rng.standard_normal(weight).astype("float32"))
        call = relax.op.nn.conv2d(x, values, data_layout="NHWC", kernel_layout="OHWI", **more)
        return builder.emit(relax.op.nn.relu(builder.emit(call)))

    def emit(builder: Any, x: Any) -> Any:
        first = conv(builder, x, channels, 1, 1, 16)
        second = conv(
            builder,
            first,
            *(filters, size, size, channels),
            strides=[stride, stride],
            padding=[size // 2] * 4,
        )
        return conv(builder, second, 16, 1, 1, filters)

    data = np.zeros((1, height, width, 16), "float32")
    return kernels_of(emit, [data], TARGET, "amx")[1]


def seconds(kernel: Kernel, decisions: list[Any], folder: Path) -> list[float]:
    """Returns the least time of each decision's kernel."""
    rng = np.random.default_rng(1)
    picture, *rest = kernel.arguments
    numbers = rng.standard_normal(picture.shape).astype("float32").view(np.uint32) >> np.uint32(16)
    given = [tvm.runtime.tensor(array) for array in (numbers.astype("uint16"), *rest)]
    made = [tvm.runtime.tensor(np.zeros(shape, dtype)) for shape, dtype in kernel.outputs]
    found = []
    for index, decision in enumerate(decisions):
        scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        path = folder / f"{index}.so"
        build([scheduled], TARGET).export_library(str(path))
        library = tvm.runtime.load_module(str(path))
        evaluate = library.time_evaluator("k0", tvm.cpu(), number=3, repeat=4)
        found.append(float(min(evaluate(*given, *made).results)))
    return found


def main() -> None:
    """Prints a line for each layer and two means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=30, help="schedules from anywhere")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if missing := TARGET.missing_features():
        raise SystemExit(f"this machine lacks {', '.join(missing)}")
    configure_workers(options.threads)
    amx_conv2d_nhwc._MOST_DECISIONS = sys.maxsize
    chosen = random.Random(0)
    for title, shapes in (("fitted to", FITTED_TO), ("others", OTHERS)):
        ratios = []
        for shape in shapes:
            kernel = layer(*shape)
            leaders, rest = kernel.decisions[:LEADERS], kernel.decisions[LEADERS:]
            tried = [*leaders, *chosen.sample(rest, min(options.random, len(rest)))]
            with tempfile.TemporaryDirectory() as folder:
                times = seconds(kernel, tried, Path(folder))
            best = min(range(len(tried)), key=times.__getitem__)
            ratios.append(times[0] / times[best])
            flop = kernel.workload.flop
            print(
                f"{kernel.workload.anchor}: first {times[0] * 1e6:.0f} us, {ratios[-1]:.2f} times "
                f"{times[best] * 1e6:.0f} us ({flop / times[best] / 1e9:.0f} GFLOP/s) of "
                f"{tried[best]}, {len(kernel.decisions)} in all",
                flush=True,
            )
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"{title}: {mean:.3f}, at most {max(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
