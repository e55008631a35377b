"""Runs compiled ARM kernels on an emulated board."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from scheduled_kernels import Kernel, build
from tvmdet.targets import Target

from tvmdet.board.emulator import Emulator, emulated_core, why_no_emulator
from tvmdet.board.linker import link_shared
from tvmdet.board.session import BoardAddress, connect


class Board:
    """An emulated board with a session."""

    def __init__(self, core: str) -> None:
        if missing := why_no_emulator():
            pytest.skip(missing)
        self._numbers = itertools.count()
        self.emulator = Emulator(core, threads=2)
        self.reconnect()

    def reconnect(self) -> None:
        self.session = connect(BoardAddress(host="127.0.0.1", port=self.emulator.port))
        self.device = self.session.cpu(0)

    def load(self, module: Any, arch: str, folder: Path) -> Any:
        """Uploads a compiled module under a new name; a loaded file must not be rewritten."""
        stem = folder / f"m{next(self._numbers)}"
        module.write_to_file(f"{stem}.o")
        link_shared(arch, [f"{stem}.o"], f"{stem}.so")
        self.session.upload(bytearray(Path(f"{stem}.so").read_bytes()), f"{stem.name}.so")
        return self.session.load_module(f"{stem.name}.so")

    def tensor(self, array: np.ndarray) -> Any:
        return tvm.runtime.tensor(np.ascontiguousarray(array), self.device)


@pytest.fixture(scope="session")
def boards(request: pytest.FixtureRequest) -> Any:
    """Returns a board by its core, one of each for the whole session."""

    @functools.cache
    def get(core: str) -> Board:
        board = Board(core)
        request.addfinalizer(board.emulator.close)
        return board

    return get


def run_on_board(
    kernel: Kernel, decisions: Iterator[Any] | list[Any], target: Target, board: Board, folder: Path
) -> list[list[np.ndarray]]:
    """Applies each decision and runs it on the board once, on outputs that start as NaN."""
    decisions = list(decisions)
    scheduled = [
        kernel.template.apply(kernel.func, kernel.workload, decision).mod["main"]
        for decision in decisions
    ]
    library = board.load(build(scheduled, target), target.arch, folder)
    inputs = [board.tensor(array) for array in kernel.arguments]
    results = []
    for number in range(len(decisions)):
        outputs = [
            board.tensor(np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 85, dtype))
            for shape, dtype in kernel.outputs
        ]
        library[f"k{number}"](*inputs, *outputs)
        results.append([output.numpy() for output in outputs])
    return results


def core_of(target: Target) -> str:
    return emulated_core(target.tvm["mcpu"])
