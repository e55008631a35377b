"""Split tuning: kernels are built on one machine and measured on another that has the hardware.

``make_plan`` writes a folder with one library per kernel, several candidate schedules in each, and
a ``measure.py`` that needs TVM's runtime only. ``collect_plan`` takes its results into the tuning
store, as if they had been measured here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm

import tvmdet
from tvmdet.cuda.device_code import DEVICE_OPTIONS
from tvmdet.cuda.embed import EmbedKernels
from tvmdet.errors import InputError, TuningError
from tvmdet.passes.check_target import check_target
from tvmdet.passes.cpu_pipeline import PIPELINE
from tvmdet.passes.lower import CODE_OPTIONS, tvm_target
from tvmdet.schedules.base import Decision
from tvmdet.targets import resolve_target
from tvmdet.targets.target import Target
from tvmdet.tuning import measure_plan
from tvmdet.tuning.driver import tasks_of
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore, default_store
from tvmdet.tuning.task import Task

__all__ = ["CollectReport", "PlanReport", "collect_plan", "make_plan"]

# Of candidates' answers, as shares of the greatest value: they add in orders of their own, on ARM
# partly in float16.
_TOLERANCE, _TOLERANCE_ROUNDED = 1e-3, 1e-2

_DEFAULT = "default"
_PLAN, _RESULTS, _SCRIPT = "plan.json", "results.jsonl", "measure.py"


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What a plan holds.

    Attributes:
        folder: Where it is.
        target: What the kernels are for.
        tasks: Kernels to tune.
        candidates: Schedules of them, all together.
        failed: Kernels of which no schedule could be built, with the reason.
    """

    folder: str
    target: str
    tasks: int
    candidates: int
    failed: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class CollectReport:
    """What came back with a plan.

    Attributes:
        target: What was measured.
        device: The hardware's name.
        measured: Schedules that ran.
        failed: Schedules that did not.
        missing: Schedules that nobody has measured yet.
        new: Records that the store did not have.
    """

    target: str
    device: str
    measured: int
    failed: int
    missing: int
    new: int

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return asdict(self)


def make_plan(
    model: Any,
    *,
    target: str | Target,
    folder: str | os.PathLike[str],
    batch_sizes: Sequence[int] = (1,),
    candidates: int = 8,
    logs: Path | None = None,
    precision: str = "fp32",
    progress: Callable[[str], None] | None = None,
) -> PlanReport:
    """Builds candidate schedules of a model's kernels into a folder.

    Args:
        model: As ``tvmdet.import_onnx`` returns it.
        target: What to build for; this machine need not have it.
        folder: Is made; must not hold anything else.
        batch_sizes: Batch buckets that the model will be compiled with.
        candidates: Schedules of each kernel at most: those that nobody has measured, in the order
            in which the template guesses them.
        logs: Folder of tuning records to read besides the usual ones.
        precision: What the kernels may compute in.
        progress: Called with one line per kernel.

    Raises:
        InputError: The folder holds something else, or a number is out of range.
        TargetError: The target is unknown, or its compiler is missing.
        TuningError: The folder cannot be written, or no kernel could be built.
    """
    if candidates < 1 or not batch_sizes or min(batch_sizes) < 1:
        raise InputError(
            f"candidates is {candidates} and batch sizes are {tuple(batch_sizes)}; give 1 or more"
        )
    chosen = resolve_target(target, precision)
    check_target(chosen)
    path = _empty_folder(folder)
    store = default_store(logs)
    tasks = [t for t in tasks_of(model, tuple(batch_sizes), chosen) if t.tunable]
    say = progress or (lambda _line: None)
    written: list[dict[str, Any]] = []
    failed: list[tuple[str, str]] = []
    for index, task in enumerate(tasks):
        say(f"building {task.anchor} ({index + 1} of {len(tasks)})")
        waiting = _waiting(task, store, chosen, candidates)
        try:
            entry = _build(task, waiting, chosen, path / f"k{index:03}.so") if waiting else None
        except (InputError, OSError) as error:
            raise TuningError(f"{path} cannot be written: {error}; free some space") from error
        if isinstance(entry, str):
            failed.append((task.anchor, entry))
        elif entry is not None:
            written.append(entry)
    if failed and not written:
        raise TuningError(f"no kernel could be built for {chosen.name}: {failed[0][1]}")
    _write_plan(path, chosen, model.name, written)
    return PlanReport(
        folder=str(path),
        target=chosen.name,
        tasks=len(written),
        candidates=sum(len(entry["candidates"]) for entry in written),
        failed=tuple(failed),
    )


def _write_plan(path: Path, target: Target, model: str, tasks: list[dict[str, Any]]) -> None:
    plan = {
        "version": measure_plan.PLAN_VERSION,
        "id": uuid.uuid4().hex,
        "tvmdet": tvmdet.__version__,
        "tvm": tvm.__version__,
        "target": target.name,
        "device": "cuda" if target.kind == "cuda" else "cpu",
        "sm": str(target.tvm["arch"]) if target.kind == "cuda" else "",
        "tolerance": _TOLERANCE if target.precision == "fp32" else _TOLERANCE_ROUNDED,
        "model": model,
        "time": round(time.time(), 3),
        "tasks": tasks,
    }
    shutil.copyfile(measure_plan.__file__, path / _SCRIPT)
    (path / _PLAN).write_text(json.dumps(plan, indent=1), encoding="utf-8")


def _empty_folder(folder: str | os.PathLike[str]) -> Path:
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} holds something already; name a new folder for the plan")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}; name another folder") from error
    return path


def _waiting(task: Task, store: TuningStore, target: Target, most: int) -> list[Decision]:
    known = {record.decision for record in store.records(target.name) if _is_of(record, task)}
    return [decision for decision in task.decisions if decision not in known][:most]


def _is_of(record: TuningRecord, task: Task) -> bool:
    return record.fingerprint == task.fingerprint


def _build(
    task: Task, decisions: Sequence[Decision], target: Target, path: Path
) -> dict[str, Any] | str:
    """Builds a library; returns its entry in the plan, or why there is none."""
    functions: dict[str, Any] = {}
    kept: list[Decision] = []
    problem = "nothing to build"
    default = task.decisions[0]
    for decision in dict.fromkeys((*decisions, default)):
        wanted = decision in decisions
        name = f"d{len(kept)}" if wanted else _DEFAULT
        try:
            func = task.template.apply(task.func, task.workload, decision).mod["main"]
        except Exception as error:  # TVM raises anything; the next decision is tried
            problem = (str(error).strip() or repr(error)).splitlines()[-1]
            if decision == default:
                return f"its default cannot be scheduled: {problem}"
            continue
        functions[name] = func.with_attr("global_symbol", name).with_attr("tirx.noalias", True)
        if wanted:
            kept.append(decision)
    if not kept:
        return problem
    embed = EmbedKernels(target) if target.kind == "cuda" else None
    with tvm.transform.PassContext(config=dict(DEVICE_OPTIONS if embed else CODE_OPTIONS)):
        library = tvm.tirx.build(tvm.IRModule(functions), tvm_target(target), PIPELINE)
    library.export_library(str(path), options=["-s"], fpack_imports=embed)
    use = embed.compiled.kernels if embed is not None and embed.compiled is not None else {}
    return {
        "fingerprint": task.fingerprint,
        "anchor": task.anchor,
        "count": task.count,
        "library": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "arguments": [
            [str(param.dtype), [int(d) for d in param.shape]] for param in task.func.params
        ],
        "default": f"d{kept.index(default)}" if default in kept else _DEFAULT,
        "candidates": [
            {
                "function": f"d{i}",
                "decision": decision.to_dict(),
                **({"gpu": asdict(use[f"d{i}_kernel"])} if f"d{i}_kernel" in use else {}),
            }
            for i, decision in enumerate(kept)
        ],
    }


def collect_plan(
    folder: str | os.PathLike[str], *, logs: str | os.PathLike[str] | None = None
) -> CollectReport:
    """Takes the results of a measured plan into the tuning store; doing so twice adds nothing.

    Args:
        folder: A plan, with the ``results.jsonl`` that its ``measure.py`` wrote.
        logs: Folder to write records to; the user's own store by default.

    Raises:
        InputError: The folder is no plan, of another version, or has no results.
        TuningError: The store cannot be written.
    """
    path = Path(folder)
    try:
        plan = measure_plan.read_plan(path / _PLAN)
        lines = (path / _RESULTS).read_bytes().split(b"\n")[:-1]
        results = [json.loads(line) for line in lines]
    except measure_plan.PlanError as error:
        raise InputError(str(error)) from error
    except FileNotFoundError as error:
        raise InputError(
            f"{path} has no {_RESULTS} yet; run {_SCRIPT} in it, where the hardware is"
        ) from error
    except ValueError as error:
        raise InputError(f"{path / _RESULTS} is damaged: {error}; copy it again") from error
    store = default_store(logs)
    have = {record.to_line() for record in store.records(plan["target"])}
    records = [_record(plan, line, path) for line in results]
    new = [record for record in records if record.to_line() not in have]
    for record in new:
        store.append(record)
    total = sum(len(task["candidates"]) for task in plan["tasks"])
    return CollectReport(
        target=plan["target"],
        device=next((r.cpu for r in records if r.cpu), ""),
        measured=sum(record.ok for record in records),
        failed=sum(not record.ok for record in records),
        missing=total - len({(line["task"], line["candidate"]) for line in results}),
        new=len(new),
    )


def _latencies(line: dict[str, Any]) -> tuple[float, ...]:
    latencies = tuple(float(value) for value in line.get("latencies_s", ()))
    if not all(math.isfinite(value) and value > 0 for value in latencies):
        raise ValueError(f"latencies_s is {latencies}")
    return latencies


def _record(plan: dict[str, Any], line: dict[str, Any], path: Path) -> TuningRecord:
    if line.get("plan") != plan["id"]:
        raise InputError(f"{path / _RESULTS} holds results of another plan; copy the right one")
    try:
        task = plan["tasks"][line["task"]]
        return TuningRecord(
            target=plan["target"],
            fingerprint=task["fingerprint"],
            anchor=task["anchor"],
            decision=Decision.from_dict(task["candidates"][line["candidate"]]["decision"]),
            latencies_s=_latencies(line),
            error=str(line.get("error", "")),
            error_kind=str(line.get("error_kind", "")),
            threads=1,
            cpu=str(line.get("device", "")),
            tvm=plan["tvm"],
            time=float(line.get("time", plan["time"])),
            model=plan["model"],
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path / _RESULTS} is damaged: {error!r}; copy it again") from error
