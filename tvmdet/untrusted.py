"""Importing and examining files that nobody vouches for: native crashes become errors.

What :func:`tvmdet.import_onnx` and :func:`tvmdet.frontend.diagnose` do in this process, the
functions here do in one of its own (:mod:`tvmdet.contain`). The command line uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tvmdet.contain import Bounds, Contained, start

if TYPE_CHECKING:
    from tvmdet.diagnosis import Diagnosis
    from tvmdet.frontend import Limits, Model
    from tvmdet.spec import DetectorSpec

__all__ = ["diagnose", "import_onnx", "start_import"]


def start_import(
    path: str | Path,
    *,
    spec: str | Path | Mapping[str, Any] | DetectorSpec | None = None,
    size_hw: tuple[int, int] | None = None,
    raw: bool = False,
    limits: Limits | None = None,
    batch_sizes: Sequence[int] = (1,),
    bounds: Bounds | None = None,
    tell: Callable[[str], None] | None = None,
) -> Contained:
    """Starts what :func:`import_onnx` does and returns at once; its ``result()`` is the model.

    The caller can import the compiler meanwhile.
    """
    return start(
        f"importing {path}",
        "tvmdet.frontend.contained:import_model",
        path,
        spec=spec,
        size_hw=size_hw,
        raw=raw,
        limits=limits,
        batch_sizes=tuple(batch_sizes),
        bounds=bounds,
        tell=tell,
    )


def import_onnx(path: str | Path, **options: Any) -> Model:
    """Imports a model as :func:`tvmdet.import_onnx` does, in a process of its own.

    Every step of the import is taken there once, TVM's too, so that the returned model can be
    compiled here: its networks are static, simplified and proven already.

    Args:
        path: The ONNX file.
        options: As :func:`start_import` takes them.

    Raises:
        ModelError: As :func:`tvmdet.import_onnx`; or native code crashed, or the import took
            more time or memory than ``bounds`` allow.
        InputError: ``spec``, ``size_hw`` or a batch size cannot be used.
    """
    with start_import(path, **options) as work:
        model: Model = work.result()
    return model


def diagnose(
    path: str | Path,
    *,
    spec: str | Path | Mapping[str, Any] | DetectorSpec | None = None,
    size_hw: tuple[int, int] | None = None,
    raw: bool = False,
    limits: Limits | None = None,
    compare: bool = False,
    shrink: str | Path | None = None,
    shrink_budget_s: float = 300.0,
    save_onnx: str | Path | None = None,
    bounds: Bounds | None = None,
    tell: Callable[[str], None] | None = None,
) -> Diagnosis:
    """Examines a model in a process of its own, down to the kernels of this machine.

    Args:
        path: The ONNX file.
        spec: As for :func:`tvmdet.import_onnx`.
        size_hw: Height and width in pixels for an export that leaves them open.
        raw: Examine it as a network without a head.
        limits: Bounds on what the file may ask for.
        compare: Compile the network too, and compare it with ONNX Runtime.
        shrink: A file for the smallest part that cannot be compiled or that differs.
        shrink_budget_s: Seconds that the search for it may take.
        save_onnx: A file for the rewritten network that tvmdet compiles from.
        bounds: What the examination may take.
        tell: Called with each step, from another thread.

    Returns:
        The diagnosis; what kills the process is the first of its problems.
    """
    from tvmdet.diagnosis import Diagnosis
    from tvmdet.errors import ModelError

    with start(
        f"examining {path}",
        "tvmdet.compiler.checkup:examine",
        path,
        spec=spec,
        size_hw=size_hw,
        raw=raw,
        limits=limits,
        compare=compare,
        shrink_to=shrink,
        shrink_budget_s=shrink_budget_s,
        save_onnx=save_onnx,
        bounds=bounds,
        tell=tell,
    ) as work:
        try:
            found: Diagnosis = work.result()
        except ModelError as error:
            return Diagnosis(path=str(path), problems=(str(error),))
    return found
