"""A ``.tvmdet`` file becomes a detector whose network runs on a board."""

from __future__ import annotations

import os
from functools import partial

from tvmdet.artifact import Artifact
from tvmdet.board.module import BoardModule
from tvmdet.board.session import BoardAddress
from tvmdet.errors import TargetError
from tvmdet.runtime.detector import Detector
from tvmdet.runtime.loader import read_signature, read_spec
from tvmdet.runtime.native import configure_workers
from tvmdet.runtime.threads import native_thread

__all__ = ["load_on_board"]


def load_on_board(path: str | os.PathLike[str], address: BoardAddress, target: str) -> Detector:
    """Loads one target of a compiled detector onto a board.

    Images are decoded and resized here; everything that was compiled runs there.

    Args:
        path: A ``.tvmdet`` file.
        address: Of the board's RPC server.
        target: The target to use. Nothing here can know what the board's CPU has.

    Raises:
        ArtifactError: The file is damaged, or the board cannot load its library.
        TargetError: The file has no such target, or no RPC server answers.
    """
    artifact = Artifact.open(path)
    found = [entry for entry in artifact.targets if entry.name == target]
    if not found:
        held = ", ".join(entry.name for entry in artifact.targets)
        raise TargetError(f"{path} holds no target {target!r}; it holds: {held}")
    thread = native_thread(1, configure_workers)
    module = thread.submit(partial(BoardModule, artifact, found[0], address)).result()
    return Detector(
        artifact=artifact,
        spec=read_spec(artifact),
        target=found[0],
        explanation=f"{target}: run on {address}",
        module=module,
        thread=thread,
        signature=read_signature(artifact),
    )
