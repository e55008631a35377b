"""How well predicted cycles rank schedules: against times, where times can be had.

No ARM board is needed or used. The method of ``tune --cost-model static`` is held against an x86
core instead: kernels for x86-64-v3 run under ``qemu-x86_64`` with the same plugin, llvm-mca plays
their blocks on the model of the core that is named, and the same kernels are timed on this machine,
in turn, with cold weights, as `tvmdet tune` times them. What is printed is Spearman's rank
correlation of both, and how much slower the schedule is that the prediction picks than the fastest.

    python tests/benchmarks/prediction_rank.py --core znver3 --candidates 10
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax
from tvmdet.targets import get_target

import tvmdet.board
from tvmdet.board.block_counts import BasicBlock, SharedCounts, basic_blocks
from tvmdet.board.count_plugin import count_plugin
from tvmdet.board.linker import link_shared
from tvmdet.board.pipeline_model import PipelineModel, find_model
from tvmdet.board.prediction import predict
from tvmdet.board.session import BoardAddress, connect

sys.path.append(str(Path(__file__).parents[1]))
from scheduled_kernels import Kernel, build, only_kernel

TARGET = get_target("x86-64-v3")
ROUNDS, CALLS = 6, 8

# Channels, filters, side, kernel, stride, groups, algorithm. The costs of missed lines were chosen
# on the first list; the second had no part in them.
CHOSEN_ON = (
    (32, 32, 40, 3, 1, 1, "direct"),
    (64, 64, 40, 1, 1, 1, "direct"),
    (3, 16, 160, 3, 2, 1, "direct"),
    (128, 128, 10, 3, 1, 1, "direct"),
    (32, 32, 40, 3, 1, 1, "winograd4"),
    (64, 64, 20, 3, 1, 1, "winograd6"),
    (96, 96, 40, 5, 1, 96, "direct"),
    (16, 96, 40, 1, 1, 1, "direct"),
)
OTHERS = (
    (48, 48, 32, 3, 1, 1, "direct"),
    (24, 144, 28, 1, 1, 1, "direct"),
    (256, 256, 10, 1, 1, 1, "direct"),
    (32, 64, 56, 3, 2, 1, "direct"),
    (144, 144, 28, 3, 2, 144, "direct"),
    (128, 128, 20, 3, 1, 1, "winograd4"),
    (48, 48, 32, 3, 1, 1, "winograd6"),
    (120, 40, 28, 1, 1, 1, "direct"),
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What one decision is predicted to cost, and takes."""

    decision: str
    instructions: int
    pipeline_cycles: float
    cycles: float
    seconds: float


def convolution(
    channels: int, filters: int, side: int, size: int, stride: int, groups: int, algorithm: str
) -> Kernel:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((1, side, side, channels)).astype("float32")
    weight = rng.standard_normal((filters, size, size, channels // groups)).astype("float32") / 8

    def emit(builder: Any, x: Any) -> Any:
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        more = {"padding": size // 2, "strides": stride, "groups": groups}
        conv = builder.emit(relax.op.nn.conv2d(x, relax.const(weight), **layouts, **more))
        return builder.emit(relax.op.nn.relu(conv))

    return only_kernel(emit, [data], TARGET, algorithm)


class Emulated:
    """The board kit's server as x86 code under QEMU, with the plugin that counts."""

    def __init__(self, folder: Path) -> None:
        server, shared = folder / "rpc_server", folder / "shared"
        libraries = [
            next(Path(module.__file__).parent.rglob(name)).parent
            for module, name in ((tvm, "libtvm_runtime.so"), (tvm_ffi, "libtvm_ffi.so"))
        ]
        source = Path(next(iter(tvmdet.board.__path__)), "rpc_server.c")
        include = Path(tvm_ffi.__file__).parent / "include"
        options = [f"-I{include}", *(f"-L{place}" for place in libraries), "-Wl,--no-as-needed"]
        options += ["-ltvm_runtime", "-ltvm_ffi", "-Wl,--allow-shlib-undefined"]
        options.append("-Wl,-rpath," + ":".join(map(str, libraries)))
        subprocess.run(["cc", "-O1", str(source), "-o", str(server), *options], check=True)
        caches = f"l1={TARGET.l1d_bytes},l2={TARGET.l2_bytes}"
        plugin = f"{count_plugin()},match=/conn-,{caches},out={shared}"
        qemu = ["qemu-x86_64", "-cpu", "max", "-plugin", plugin]
        self._process = subprocess.Popen(
            [*qemu, str(server), "--until-eof", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TVM_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline().split()[1])
        self.session = connect(BoardAddress(host="127.0.0.1", port=port))
        self.counts = SharedCounts(shared)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def cost(self, library: Path, arrays: list[np.ndarray], model: PipelineModel) -> Any:
        self.session.upload(bytearray(library.read_bytes()), library.name)
        function = self.session.load_module(library.name)["k0"]
        device = self.session.cpu(0)
        arguments = [tvm.runtime.tensor(array, device) for array in arrays]
        self.counts.clear()
        function(*arguments)
        blocks = basic_blocks(self.counts.blocks(), is_x86_branch)
        blocks = without_cut(blocks, model)
        (caches,) = self.counts.caches().values()
        return predict(blocks, caches, model)


def without_cut(blocks: list[BasicBlock], model: PipelineModel) -> list[BasicBlock]:
    """Leaves out what ends with a page: QEMU 7.2 cuts instructions off there that go on."""
    cut = set(model.unreadable(sorted({code for block in blocks for code in block.instructions})))
    kept = [
        dataclasses.replace(
            block, instructions=tuple(code for code in block.instructions if code not in cut)
        )
        for block in blocks
    ]
    return [block for block in kept if block.instructions]


def is_x86_branch(code: bytes) -> bool:
    """Whether an instruction is a jump, a call or a return (Intel SDM, volume 2, appendix A)."""
    code = code.lstrip(b"\xf2\xf3\x2e\x3e\x66")
    if 0x40 <= code[0] <= 0x4F:
        code = code[1:]
    if code[0] == 0xFF:
        return code[1] >> 3 & 7 in (2, 4)
    if code[0] == 0x0F:
        return 0x80 <= code[1] <= 0x8F
    return 0x70 <= code[0] <= 0x7F or code[0] in (0xC2, 0xC3, 0xE8, 0xE9, 0xEB)


def candidates(
    kernel: Kernel, count: int, emulated: Emulated, model: PipelineModel, folder: Path
) -> list[Candidate]:
    rest = list(kernel.decisions[1:])
    chosen = [kernel.decisions[0], *random.Random(0).sample(rest, min(count - 1, len(rest)))]
    arrays = [*kernel.arguments, *(np.zeros(shape, dtype) for shape, dtype in kernel.outputs)]
    arguments = [tvm.runtime.tensor(array) for array in arrays]
    timed, costs = [], []
    for decision in chosen:
        scheduled = kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        stem = Path(tempfile.mkstemp(dir=folder)[1])
        build([scheduled], TARGET).write_to_file(f"{stem}.o")
        link_shared(TARGET.arch, [f"{stem}.o"], f"{stem}.so")
        costs.append(emulated.cost(Path(f"{stem}.so"), arrays, model))
        library = tvm.runtime.load_module(f"{stem}.so")
        options = {"number": 1, "repeat": CALLS, "f_preproc": "cache_flush_cpu_non_first_arg"}
        timed.append(library.time_evaluator("k0", tvm.cpu(), **options))
    least = np.min([[min(f(*arguments).results) for f in timed] for _ in range(ROUNDS)], axis=0)
    return [
        Candidate(
            decision=str(decision),
            instructions=cost.instructions.all,
            pipeline_cycles=cost.pipeline_cycles,
            cycles=cost.cycles,
            seconds=float(seconds),
        )
        for decision, cost, seconds in zip(chosen, costs, least, strict=True)
    ]


def rank_correlation(left: Any, right: Any) -> float:
    """Spearman's, without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (left, right)]
    return float(np.corrcoef(*ranks)[0, 1])


def summary(name: str, found: list[Candidate]) -> str:
    seconds = np.array([one.seconds for one in found])
    costs = [
        np.array([getattr(one, key) for one in found])
        for key in ("instructions", "pipeline_cycles", "cycles")
    ]
    ranks = " | ".join(f"{rank_correlation(cost, seconds):.2f}" for cost in costs)
    best = seconds.min()
    picked = [seconds[costs[-1].argmin()], seconds[0], np.median(seconds), seconds.max()]
    return f"| {name} | {ranks} | " + " | ".join(f"{value / best:.2f}" for value in picked) + " |"


@contextlib.contextmanager
def emulation(folder: Path) -> Iterator[Emulated]:
    made = Emulated(folder)
    try:
        yield made
    finally:
        made.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", required=True, help="LLVM's name of this machine's core")
    parser.add_argument("--candidates", type=int, default=10, help="decisions of each layer")
    parser.add_argument("--others", action="store_true", help="layers that chose nothing")
    parser.add_argument("--json", type=Path, help="write every figure")
    words = parser.parse_args()
    model = find_model(words.core, "x86_64-linux-gnu")
    tvm.get_global_func("runtime.config_threadpool")(1, 1)
    everything = {}
    print(f"predicted by {model}")
    print("| layer | instructions | pipelines | with memory | picked | default | median | worst |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place, emulation(Path(place)) as emulated:
        for layer in OTHERS if words.others else CHOSEN_ON:
            kernel = convolution(*layer)
            found = candidates(kernel, words.candidates, emulated, model, Path(place))
            name = f"{kernel.workload.anchor}"
            print(summary(name, found), flush=True)
            everything[name] = [vars(one) for one in found]
    if words.json:
        words.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
