r"""tvmdet's and ncnn's ARM kernels under the same counter: instructions, and predicted cycles.

ncnn's wheel for aarch64 is a Python extension, so that it needs an aarch64 Python in a folder:

    pip download ncnn --no-deps --only-binary=:all: --python-version 3.11 \
        --platform manylinux_2_28_aarch64 && unzip ncnn-*.whl
    # in another folder, of a Debian mirror with architecture arm64:
    apt-get download python3.11-minimal libpython3.11-minimal libpython3.11-stdlib zlib1g \
        libexpat1 libstdc++6 libgcc-s1 libc6 && for deb in *.deb; do dpkg -x $deb root; done
    python tests/benchmarks/ncnn_counts.py ncnn/ncnn.cpython-311-aarch64-linux-gnu.so root

What ncnn is counted for is one extraction: the layer, and bringing the picture into its layout.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tvm import relax
from tvmdet.targets import get_target

from tvmdet.board.block_counts import SharedCounts, basic_blocks
from tvmdet.board.count_plugin import count_plugin
from tvmdet.board.counting_board import CountingBoard
from tvmdet.board.instructions import is_branch
from tvmdet.board.linker import link_shared
from tvmdet.board.pipeline_model import PipelineModel, find_model
from tvmdet.board.prediction import Prediction, predict

sys.path.append(str(Path(__file__).parents[1]))
from scheduled_kernels import build, only_kernel

TARGET = get_target("cortex-a76")
GUEST = Path(__file__).with_name("ncnn_guest.py")

# Channels, filters, side, kernel, stride.
LAYERS = (
    (32, 32, 40, 3, 1),
    (64, 64, 20, 3, 1),
    (64, 128, 40, 3, 2),
    (64, 64, 40, 1, 1),
    (3, 16, 160, 3, 2),
)
Layer = tuple[int, int, int, int, int]


def ncnn_cost(
    layer: Layer, winograd: bool, extension: Path, root: Path, model: PipelineModel
) -> Prediction:
    found = None
    caches = f"l1={TARGET.l1d_bytes},l2={TARGET.l2_bytes}"
    libraries = ":".join(f"{root}/{place}/aarch64-linux-gnu" for place in ("lib", "usr/lib"))
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder, "shared")
        plugin = f"{count_plugin()},match=/{extension.name},{caches},out={shared}"
        command = ["qemu-aarch64", "-cpu", TARGET.tvm["mcpu"], "-plugin", plugin, "-L", str(root)]
        command += ["-E", f"LD_LIBRARY_PATH={libraries}", "-E", f"PYTHONHOME={root}/usr"]
        command += ["-E", "OMP_NUM_THREADS=1", f"{root}/usr/bin/python3.11", "-S", str(GUEST)]
        command += [str(extension), folder, *map(str, layer), str(int(winograd))]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as guest:
            assert guest.stdin is not None and guest.stdout is not None
            for line in guest.stdout:
                counts = SharedCounts(shared)
                if line == "READY\n":
                    counts.clear()
                elif line == "DONE\n":
                    (misses,) = counts.caches().values()
                    found = predict(basic_blocks(counts.blocks(), is_branch), misses, model)
                counts.close()
                guest.stdin.write("\n")
                guest.stdin.flush()
    assert found is not None, "ncnn did not run"
    return found


def our_costs(
    layer: Layer, algorithm: str, count: int, board: CountingBoard, model: PipelineModel
) -> Iterator[Prediction]:
    """Yields the default's cost, then those of other decisions, drawn at random."""
    channels, filters, side, size, stride = layer
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, side, side, channels)).astype("float32")
    weight = rng.standard_normal((filters, size, size, channels)).astype("float32")
    bias = np.ones((1, 1, 1, filters), "float32")

    def emit(builder: Any, x: Any) -> Any:
        options = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        more = {"padding": size // 2, "strides": stride}
        conv = builder.emit(relax.op.nn.conv2d(x, relax.const(weight), **options, **more))
        return builder.emit(relax.op.nn.relu(builder.emit(relax.op.add(conv, relax.const(bias)))))

    kernel = only_kernel(emit, [data], TARGET, algorithm)
    rest = list(kernel.decisions[1:])
    chosen = [kernel.decisions[0], *random.Random(0).sample(rest, min(count - 1, len(rest)))]
    arrays = [*kernel.arguments, *(np.zeros(shape, dtype) for shape, dtype in kernel.outputs)]
    arguments = board.tensors(arrays)
    with tempfile.TemporaryDirectory() as folder:
        for decision in chosen:
            scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
            build([scheduled], TARGET).write_to_file(f"{folder}/k.o")
            link_shared(TARGET.arch, [f"{folder}/k.o"], f"{folder}/k.so")
            function = board.load(Path(folder, "k.so"))["k0"]
            function(*arguments)
            counted = board.count(lambda: function(*arguments))  # noqa: B023
            yield predict(counted.blocks, counted.caches, model)


def show(layer: Layer, name: str, cost: Prediction, least: float) -> None:
    channels, filters, side, size, stride = layer
    counts = cost.instructions
    figures = (counts.all, counts.fma, counts.loads, counts.stores, cost.cycles)
    told = " | ".join(f"{value / 1e6:.2f}" for value in figures)
    where = f"{size}x{size} / {stride}, {channels} to {filters}, {side}x{side}"
    print(f"| {where} | {name} | {told} | {cost.cycles / least:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extension", type=Path, help="of ncnn's aarch64 wheel")
    parser.add_argument("root", type=Path, help="folder with an aarch64 Python 3.11")
    parser.add_argument("--candidates", type=int, default=12)
    words = parser.parse_args()
    extension, root = words.extension.resolve(), words.root.resolve()
    model = find_model(TARGET.tvm["mcpu"])
    print(f"predicted by {model}")
    print("| layer | kernel | M instr. | M fma | M loads | M stores | M cycles | of the least |")
    print("|---|---|---|---|---|---|---|---|")
    with CountingBoard(TARGET) as board:
        for layer in LAYERS:
            channels, filters, side, size, stride = layer
            flop = 2 * (side // stride) ** 2 * filters * channels * size**2
            least = flop / TARGET.flop_per_cycle_f32
            has_winograd = (size, stride) == (3, 1)
            for winograd in (False, True)[: 1 + has_winograd]:
                cost = ncnn_cost(layer, winograd, extension, root, model)
                show(layer, "ncnn, Winograd" if winograd else "ncnn", cost, least)
            for algorithm in ("direct", "winograd4", "winograd6")[: 3 if has_winograd else 1]:
                costs = list(our_costs(layer, algorithm, words.candidates, board, model))
                show(layer, f"tvmdet {algorithm}, default", costs[0], least)
                best = min(costs, key=lambda cost: cost.cycles)
                show(layer, f"tvmdet {algorithm}, best of {len(costs)}", best, least)


if __name__ == "__main__":
    main()
