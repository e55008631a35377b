"""The whole build: lower, schedule, compile for each target, check, write."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvmdet.arguments import as_batch_sizes, as_path, check_callable, check_kind, check_model
from tvmdet.board.linker import find_linker
from tvmdet.compiler.build import build_library
from tvmdet.compiler.check_on_arm_emulator import check_on_arm_emulator, why_not_emulated
from tvmdet.compiler.check_on_cuda_emulator import check_on_cuda_emulator
from tvmdet.compiler.images import NamedImage, draw_images, read_images
from tvmdet.compiler.manifest import Built, write_file
from tvmdet.compiler.parity_file import check_file
from tvmdet.compiler.precision import LayerPrecision
from tvmdet.compiler.precisions import precisions_of
from tvmdet.compiler.schedule import measured_algorithm, measured_pairs, schedule_kernels
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.counted import counted
from tvmdet.cpus import check_threads, usable_cpu_count
from tvmdet.cuda.nvcc import find_nvcc
from tvmdet.errors import ArtifactError, InputError, ParityError, TargetError
from tvmdet.passes.check_target import check_target
from tvmdet.passes.cuda.check_on_device import check_on_device
from tvmdet.passes.lower import lower
from tvmdet.targets import Target, resolve_target
from tvmdet.tuning.store import TuningStore, board_cpu, default_store

__all__ = ["CompileReport", "compile"]


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """What a build made.

    Attributes:
        output: The file.
        bytes: Its size.
        targets: Names of the targets in it.
        batch_sizes: The batch buckets.
        tuning: For each target, how many kernels were ``tuned``, tuned ``elsewhere`` (on another
            processor), ``borrowed`` (tuned with another epilogue), ``near`` (like a tuned one of
            other sizes), ``default``, or have a ``single`` way to be scheduled.
        parity: For each target the certificate, or why there is none.
        fallbacks: For each target, tuning records that were passed over, with the reason.
        precisions: For each target, what its layers may round factors to, ``fp32`` for nothing.
    """

    output: Path
    bytes: int
    targets: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    tuning: Mapping[str, Mapping[str, int]]
    parity: Mapping[str, Any]
    fallbacks: Mapping[str, Mapping[str, str]]
    precisions: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "output": str(self.output),
            "bytes": self.bytes,
            "targets": list(self.targets),
            "batch_sizes": list(self.batch_sizes),
            "tuning": {name: dict(counts) for name, counts in self.tuning.items()},
            "parity": dict(self.parity),
            "fallbacks": {name: dict(reasons) for name, reasons in self.fallbacks.items()},
            "precisions": dict(self.precisions),
        }


def compile(
    model: Any,
    *,
    target: str | Target | Sequence[str | Target] = "host",
    batch_sizes: int | Sequence[int] = (1,),
    output: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    logs: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    precision: str | Mapping[str, str] = "fp32",
    tolerance: Tolerance | None = None,
    dump: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompileReport:
    """Compiles a detector into one file, and checks it against ONNX Runtime before writing it.

    Args:
        model: From :func:`tvmdet.import_onnx`.
        target: One or several targets; ``host`` is the best that this machine can run.
        batch_sizes: One, or several: a compiled function each; the runtime picks and pads.
        output: The ``.tvmdet`` file.
        images: A folder of pictures for the parity check, instead of drawn ones.
        logs: A folder of tuning records to read besides the usual ones.
        threads: Threads that the file will mostly run on, here or elsewhere; records measured so
            are preferred.
        precision: ``fp32``, or ``bf16`` (on ARM ``fp16``, on a GPU ``fp16`` or ``tf32``): layers
            may round the factors of their products to that, where that is faster; those that would
            break the parity check may not. Or a precision for each target by its name, such as
            ``{"sm_90": "fp16"}``; targets that it does not name compute in fp32.
        tolerance: Of the parity check of every target; by default what
            :meth:`Tolerance.at_precision` says of its precision.
        dump: A folder that receives the module's text after every lowering phase.
        progress: Called with one line at the start of each step.

    Raises:
        InputError: A batch size, the folder of pictures or another argument cannot be used.
        TargetError: A target is unknown, cannot compute in the precision, or no linker for it is
            installed.
        ModelError: The model cannot be lowered or compiled.
        ParityError: The result differs from ONNX Runtime's; nothing is written then.
        ArtifactError: The file cannot be written.
    """
    targets = _targets(target, precision)
    if tolerance is not None:
        check_kind(tolerance, Tolerance, "tolerance", "a tvmdet.compiler.Tolerance, or None")
    sizes = list(as_batch_sizes(batch_sizes))
    threads = check_threads(threads)
    check_callable(progress, "progress")
    output = as_path(output, "output")
    images = None if images is None else as_path(images, "images")
    logs = None if logs is None else as_path(logs, "logs")
    dump = None if dump is None else as_path(dump, "dump")
    check_model(model)
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise ArtifactError(f"cannot write {output}: give --output a file in a folder that exists")
    build = _Build(
        model=model,
        sizes=sizes,
        pictures=_pictures(model, images),
        logs=logs,
        threads=threads,
        tolerance=tolerance,
        dump=dump,
        say=progress or (lambda _line: None),
    )
    built: dict[str, Built] = {}
    parity: dict[str, Any] = {}
    for one in targets:
        built[one.name], parity[one.name] = build.of(one)
    build.say(f"writing {output}")
    write_file(output, model, sizes, built, parity)
    return CompileReport(
        output=output,
        bytes=output.stat().st_size,
        targets=tuple(built),
        batch_sizes=tuple(sizes),
        tuning={name: entry.kernels.sources for name, entry in built.items()},
        parity=parity,
        fallbacks={name: entry.kernels.fallbacks for name, entry in built.items()},
        precisions={name: entry.target.precision for name, entry in built.items()},
    )


@dataclass(frozen=True, kw_only=True)
class _Build:
    """What is built for each target, as :func:`compile` takes it."""

    model: Any
    sizes: Sequence[int]
    pictures: Sequence[NamedImage]
    logs: Path | None
    threads: int
    tolerance: Tolerance | None
    dump: Path | None
    say: Callable[[str], None]

    def of(self, target: Target) -> tuple[Built, dict[str, Any]]:
        """Builds for one target, with fewer rounded layers until it is near enough.

        Returns:
            What was made, and its certificate.

        Raises:
            ParityError: It differs from ONNX Runtime with every layer in float32, too.
        """
        foreign = None if target.arch == platform.machine() else board_cpu(target)
        store = default_store(self.logs, cpu=foreign)
        layers = LayerPrecision(measured_algorithm(target, store, self.threads))
        for change in layers.attempts():
            if change:
                self.say(f"{target.name} is too far from ONNX Runtime: {change}")
            built = self._attempt(target, store, layers)
            try:
                return built, self._check(built)
            except ParityError as error:
                # Without what it was raised in: the library of an attempt is not kept for the next.
                too_far = error.with_traceback(None)
        raise too_far

    def _attempt(self, target: Target, store: TuningStore, layers: LayerPrecision) -> Built:
        self.say(f"lowering for {target.name}")
        module = lower(
            self.model,
            self.sizes,
            target,
            algorithm=layers,
            pairs=measured_pairs(target, store, self.threads),
            dump=None if self.dump is None else self.dump / target.name,
        )
        kernels = schedule_kernels(module, target, store, self.threads)
        if target.kind == "cuda":
            check_on_device(kernels.module)
        self.say(f"compiling {counted(len(kernels.decisions), 'kernel')} for {target.name}")
        return Built(target, kernels, build_library(kernels.module, target), layers.rounded)

    def _check(self, built: Built) -> dict[str, Any]:
        """Runs one target, if this machine can or can emulate it, from a file as a user would."""
        target = built.target
        tolerance = self.tolerance or Tolerance.at_precision(target.precision)
        threads = min(self.threads, usable_cpu_count())
        given = (self.model, self.sizes, built, self.pictures, threads, tolerance)
        missing = target.missing_features()
        if missing and target.kind == "cuda":
            return check_on_cuda_emulator(*given, self.say)
        if missing and (why := why_not_emulated(target)):
            return {"skipped": f"never run: this machine lacks {', '.join(missing)}, and {why}"}
        if missing:
            return check_on_arm_emulator(*given, self.say)
        self.say(f"checking {target.name} against ONNX Runtime")
        return check_file(*given)


def _targets(
    target: str | Target | Sequence[str | Target], precision: str | Mapping[str, str]
) -> list[Target]:
    """Returns the targets at their precisions, each once; what is missing for one is told first."""
    entries = _listed(target)
    names = [entry.name if isinstance(entry, Target) else str(entry) for entry in entries]
    pairs_of = zip(entries, precisions_of(precision, names), strict=True)
    targets = list(dict.fromkeys(_at_precision(*pair) for pair in pairs_of))
    twice = [one.name for one in targets if [other.name for other in targets].count(one.name) > 1]
    if twice:
        raise InputError(
            f"target {twice[0]} is named twice, in two precisions; a file has one of each target"
        )
    for one in targets:
        find_linker(one.arch)  # what is missing is told before minutes are spent
        if one.kind == "cuda":
            find_nvcc()
    return targets


def _listed(target: Any) -> list[Any]:
    """Returns one target, or several, as a list; what is no target is refused one by one."""
    if isinstance(target, str | os.PathLike | Target) or not isinstance(target, Iterable):
        return [target]
    if not (found := list(target)):
        raise TargetError("no target is named; give host, or one or several of `tvmdet targets`")
    return found


def _pictures(model: Any, images: Path | None) -> Sequence[NamedImage]:
    if model.spec.family == "raw":
        if images is not None:
            raise InputError("--images cannot be used with --raw: a raw network takes arrays")
        return ()
    return read_images(images) if images else draw_images(model.spec.input.size_hw)


def _at_precision(entry: str | Target, precision: str) -> Target:
    target = resolve_target(entry, precision)
    check_target(target)
    missing = target.missing_features()
    if entry == "host" and missing:
        raise TargetError(
            f"this machine cannot compute in {precision}: it lacks {', '.join(missing)}; "
            f"name the target to compile for another machine, or use --precision fp32"
        )
    return target
