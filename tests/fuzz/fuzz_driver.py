"""Runs damaged ONNX files through load, doctor and the import stage of compile.

    python -m tests.fuzz.fuzz_driver --count 5000 --seed 0

Every case runs in a process of its own, forked from one that has imported everything, with a
limit on its memory and a watchdog. A case is the seed's number and nothing else: ``--only N``
runs case N again, and ``--keep DIR`` keeps the files of cases that fail.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]  # for `python -m`, as pytest does for its tests

from fuzz_mutators import damage_file  # noqa: E402
from fuzz_seeds import SEEDS, write_seed  # noqa: E402
from tvmdet.targets import get_target  # noqa: E402

from tvmdet import steps  # noqa: E402
from tvmdet.errors import TvmdetError  # noqa: E402
from tvmdet.frontend import diagnose, import_onnx  # noqa: E402
from tvmdet.frontend.load import load_onnx  # noqa: E402
from tvmdet.passes import lower  # noqa: E402

# A hang is 30 s of work; the wall clock only catches what waits, however busy the machine is.
TIMEOUT_S = 30
WAIT_S = 180
MEMORY_BYTES = 4 * 1024**3

# What a case may come to. Native crashes are contained by the process; the product runs the
# same work in a process of its own (tvmdet.contain), so they become errors there.
GOOD = ("imports", "refused")
FAILURES = ("unforeseen", "hang", "memory", "crash")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one case.

    Attributes:
        number: The case.
        what: The model and its damage.
        verdict: One of GOOD or FAILURES.
        detail: The error, the traceback of an unforeseen one, or the last step before a crash.
        seconds: Processor time, which a busy machine does not change.
        peak_mb: Peak memory.
    """

    number: int
    what: str
    verdict: str
    detail: str
    seconds: float
    peak_mb: float


def make_case(seed: int, number: int, folder: Path) -> tuple[Path, str]:
    """Writes the damaged file of a case; the same for the same numbers."""
    rng = random.Random(f"{seed}/{number}")
    name = rng.choice(sorted(SEEDS))
    path = folder / "model.onnx"
    write_seed(name, path)
    return path, f"{name}: {damage_file(path, rng)}"


def examine(path: Path) -> tuple[str, str]:
    """Loads, diagnoses and imports a file; returns the verdict and its detail."""
    try:
        with contextlib.suppress(TvmdetError):
            load_onnx(path)
        found = diagnose(path, dry_run=lambda model: lower(model, (1,), get_target("x86-64-v3")))
        json.dumps(found.to_dict())
        try:
            import_onnx(path, raw=True).relax_at(1)
        except TvmdetError as error:
            return "refused", str(error)
    except BaseException as error:
        if isinstance(error, MemoryError):
            return "memory", traceback.format_exc()
        return "unforeseen", traceback.format_exc()
    return "imports", ""


def run_case(seed: int, number: int, keep: Path | None = None) -> Outcome:
    """Runs one case in a fork of this process."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path, what = make_case(seed, number, Path(folder))
        started = time.monotonic()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _child(path, writer)
        os.close(writer)
        text, late = _read(reader, started + WAIT_S)
        if late:
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        os.close(reader)
        verdict, detail = _judge(text, status, late)
        if keep is not None and verdict in FAILURES:
            shutil.copytree(folder, keep / f"{number}", dirs_exist_ok=True)
    return Outcome(
        number=number,
        what=what,
        verdict=verdict,
        detail=detail,
        seconds=round(usage.ru_utime + usage.ru_stime, 3),
        peak_mb=round(usage.ru_maxrss / 1024, 1),
    )


def _child(path: Path, writer: int) -> None:
    """Does the work of a case and never returns."""
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT_S, TIMEOUT_S + 5))
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        steps.listen(lambda step: _write(writer, "step", step))
        _write(writer, *examine(path))
    finally:
        os._exit(0)


def _write(writer: int, kind: str, text: str) -> None:
    os.write(writer, (json.dumps([kind, text[:20000]]) + "\n").encode())


def _read(reader: int, deadline: float) -> tuple[str, bool]:
    """Returns what a child wrote until it closed the pipe, and whether it took too long."""
    chunks = []
    while True:
        ready, _, _ = select.select([reader], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return b"".join(chunks).decode(), True
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            return b"".join(chunks).decode(), False
        chunks.append(chunk)


def _judge(text: str, status: int, late: bool) -> tuple[str, str]:
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("]")]
    last = next((told for kind, told in reversed(lines) if kind == "step"), "starting")
    if late:
        return "hang", f"over {WAIT_S} s of waiting while {last}"
    if lines and lines[-1][0] != "step":
        return str(lines[-1][0]), str(lines[-1][1])
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return "hang", f"over {TIMEOUT_S} s of computing while {last}"
    died = os.WIFSIGNALED(status)
    reason = signal.Signals(os.WTERMSIG(status)).name if died else f"status {status}"
    return "crash", f"{reason} while {last}"


def run(seed: int, numbers: range, keep: Path | None, show: bool) -> list[Outcome]:
    """Runs cases one after the other."""
    outcomes: list[Outcome] = []
    gc.freeze()  # or every fork copies what its collector touches
    for number in numbers:
        outcome = run_case(seed, number, keep)
        outcomes.append(outcome)
        if show and outcome.verdict in FAILURES:
            print(f"case {number} {outcome.verdict} ({outcome.what}): {outcome.detail}", flush=True)
        if show and (number + 1) % 100 == 0:
            print(f"{number + 1} cases: {summary(outcomes)}", flush=True)
    return outcomes


def summary(outcomes: list[Outcome]) -> str:
    """Returns one line of counts and extremes."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    parts = [f"{verdict} {counts[verdict]}" for verdict in (*GOOD, *FAILURES)]
    slowest = max((o.seconds for o in outcomes), default=0.0)
    largest = max((o.peak_mb for o in outcomes), default=0.0)
    return f"{', '.join(parts)}; slowest {slowest:.1f} s, largest {largest:.0f} MB"


def main() -> int:
    """Parses the command line; exit status 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone and show what it says")
    parser.add_argument("--keep", type=Path, help="folder for the files of cases that fail")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.count)
    if options.only is not None:
        numbers = range(options.only, options.only + 1)
    outcomes = run(options.seed, numbers, options.keep, show=not options.json)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        if options.only is not None:
            print(outcomes[0].what, outcomes[0].detail, sep="\n")
        print(f"{len(outcomes)} cases, seed {options.seed}: {summary(outcomes)}")
    return int(any(outcome.verdict in FAILURES for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
