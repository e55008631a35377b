"""Writes docs/layers.md from results of ``tvmdet bench --per-layer --json``.

Usage: write_layers.py COMMIT MACHINE TITLE=RESULT.json...

where TITLE is the network and its input, such as ``"PicoDet layout, 800x608"``; the precision is
the result's. Kernels that take less than 1 % of their network are left out. Needs nothing but
Python.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HEAD = """# Layers and their rooflines

Written by `tests/benchmarks/write_layers.py` from results of `tvmdet bench FILE --per-layer
--json`; edit that script, not this page.

Where the time of each measured network goes, kernel by kernel: every kernel that takes at least 1 %
of its network. *Attainable* is the roofline of [performance.md](performance.md): operations at the
measured float32 peak (products of bfloat16 at twice that), or bytes at the rate measured for data
of that size. Winograd's operations are those that it does, not those of the layer.

All of it was measured at commit {commit} on {machine}.
"""
_TABLE = """
| operator | calls | ms | share | GFLOP/s | attainable ms | of it | schedule |
|---|---|---|---|---|---|---|---|
"""
_LEAST_SHARE = 0.01


def page(commit: str, machine: str, results: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Returns the page's text.

    Args:
        commit: That was measured.
        machine: What measured it, in words.
        results: Titles, and what ``--json`` wrote.
    """
    parts = [_HEAD.format(commit=commit, machine=machine)]
    for title, result in results:
        (layers,) = result["layers"]
        whole, kernels = layers["whole_ms"], layers["kernels_ms"]
        rows = [_row(layer, kernels) for layer in layers["layers"]]
        parts.append(
            f"\n## {title}, {result['target']['precision']}\n\n"
            f"Kernels {kernels:.1f} ms of {whole:.1f} ms; float32 peak "
            f"{result['peak']['f32_gflops']:.0f} GFLOP/s.\n{_TABLE}" + "".join(filter(None, rows))
        )
    return "".join(parts)


def _row(layer: dict[str, Any], kernels_ms: float) -> str:
    """Returns a line of the table, or nothing for a kernel that takes too little."""
    if layer["ms"] < _LEAST_SHARE * kernels_ms:
        return ""
    rate = "" if layer["gflops"] is None else f"{layer['gflops']:.0f}"
    fields = (
        layer["anchor"],
        layer["calls"],
        f"{layer['ms']:.2f}",
        f"{layer['ms'] / kernels_ms:.0%}",
        rate,
        f"{layer['attainable_ms']:.2f}",
        f"{layer['attainable_ms'] / layer['ms']:.0%}",
        layer["template"],
    )
    return f"| {' | '.join(map(str, fields))} |\n"


def main(arguments: Sequence[str]) -> None:
    """Writes the page."""
    commit, machine, *named = arguments
    results = []
    for one in named:
        title, _, path = one.rpartition("=")
        results.append((title, json.loads(Path(path).read_text())))
    Path("docs/layers.md").write_text(page(commit, machine, results))


if __name__ == "__main__":
    main(sys.argv[1:])
