"""Runs one convolution in ncnn, each time that a line comes; under QEMU, by an aarch64 Python.

Usage: ncnn_guest.py NCNN_EXTENSION FOLDER CHANNELS FILTERS SIDE KERNEL STRIDE WINOGRAD
"""

import importlib.machinery
import importlib.util
import random
import struct
import sys
from pathlib import Path


def main():
    """Says READY, waits for a line, runs, says DONE and waits again."""
    extension, folder, *numbers = sys.argv[1:]
    channels, filters, side, kernel, stride, winograd = map(int, numbers)
    # Not `import ncnn`: that wants numpy and more.
    loader = importlib.machinery.ExtensionFileLoader("ncnn", extension)
    module = importlib.util.spec_from_file_location("ncnn", extension, loader=loader)
    ncnn = importlib.util.module_from_spec(module)
    loader.exec_module(ncnn)
    count = channels * filters * kernel**2
    graph = (
        f"7767517\n2 2\nInput in 0 1 in 0={side} 1={side} 2={channels}\n"
        f"Convolution conv 1 1 in out 0={filters} 1={kernel} 3={stride} 4={kernel // 2} 5=1 "
        f"6={count} 9=1\n"  # 9=1: with a rectifier, as the kernel that it is held against
    )
    weights = struct.pack(
        f"<{count + filters}f", *(random.random() for _ in range(count + filters))
    )
    Path(folder, "net.param").write_text(graph)
    Path(folder, "net.bin").write_bytes(struct.pack("<I", 0) + weights)
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_winograd_convolution = bool(winograd)
    net.load_param(f"{folder}/net.param")
    net.load_model(f"{folder}/net.bin")
    picture = ncnn.Mat(side, side, channels)
    picture.fill(0.5)
    for _ in range(2):  # the first call makes what later ones find
        print("READY", flush=True)
        sys.stdin.readline()
        extractor = net.create_extractor()
        extractor.input("in", picture)
        code, made = extractor.extract("out")
        assert (code, made.c) == (0, filters)
        print("DONE", flush=True)
        sys.stdin.readline()


main()
