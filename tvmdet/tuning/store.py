"""The tuning store: every trial, in one folder per target.

A store has several roots in layers (the logs shipped with tvmdet, the user's own) and writes
to one. Each root holds ``<target>/*.jsonl``, one record a line; what is written goes to
``<target>/records.jsonl``. The folder is the key: a record found in the folder of another
target than its own is ignored, and no question about one target is answered from another.

A trial is one ``O_APPEND`` write of one line under a file lock, flushed to disk before it
returns, so that neither ``kill -9`` nor a second tuner costs a record. A line that a crash tore
off is the last one by construction: readers pass over it and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from tvmdet.cpus import cpu_identity
from tvmdet.errors import TuningError
from tvmdet.schedules.base import Decision
from tvmdet.targets import Target
from tvmdet.tuning.nearness import NEAR, distance, is_same_layer, skeleton
from tvmdet.tuning.record import RETRIED_ERRORS, OtherVersionError, TuningRecord

__all__ = ["TuningStore", "board_cpu", "default_store", "most_telling"]

_FILE = "records.jsonl"
_ATTEMPTS = 2  # of a candidate that a busy machine may have failed

log = logging.getLogger(__name__)


class TuningStore:
    """Tuning records in folders, read once per target and kept up to date by :meth:`append`.

    Attributes:
        skipped_other_version: Records passed over because another version of tvmdet measured them.
        skipped_malformed: Lines passed over because they are no records.
    """

    def __init__(
        self,
        *folders: str | os.PathLike[str],
        writable: Path | None = None,
        cpu: str | None = None,
        predicted: bool = False,
    ) -> None:
        """Opens a store; nothing is read or made until it is asked for.

        Args:
            *folders: Roots to read. Those that do not exist are empty.
            writable: Root to read and to write. Without it the last of ``folders`` is written.
            cpu: Model of the processor whose records win over those of others; by default this
                machine's. For predictions, who makes them.
            predicted: Whether :meth:`measured` is asked for predictions, and not for measurements.
        """
        self._cpu = cpu_identity() if cpu is None else cpu
        self._predicted = predicted
        roots = [Path(folder) for folder in folders]
        if writable is not None:
            roots.append(Path(writable))
        self._roots = list(dict.fromkeys(roots))
        self._writable = roots[-1] if roots else None
        self._loaded: dict[str, _Index] = {}
        self.skipped_other_version = 0
        self.skipped_malformed = 0

    @property
    def cpu(self) -> str:
        """Model of the processor whose records win over those of others."""
        return self._cpu

    def records(self, target: str) -> tuple[TuningRecord, ...]:
        """Returns every record of a target, oldest layer first, in the order written."""
        return tuple(self._index(target).records)

    def best(
        self,
        target: str,
        fingerprint: str,
        threads: int | None = None,
        among: Collection[Decision] | None = None,
    ) -> TuningRecord | None:
        """Returns the fastest record of a function; a predicted one only where none is measured.

        Args:
            target: Name of the target.
            fingerprint: Of the function.
            threads: Records measured on so many threads win over all others, whose order
                says less about this machine. ``None`` takes them as equals.
            among: The decisions that count, all of them without.
        """
        found = self._index(target).by_fingerprint.get(fingerprint, ())
        return self._fastest(_of(found, among), threads)

    def borrow(
        self,
        target: str,
        anchor: str,
        template: str,
        threads: int | None = None,
        among: Collection[Decision] | None = None,
    ) -> TuningRecord | None:
        """Returns the fastest record of the same anchor and template, whatever the epilogue.

        Arguments are those of :meth:`best`.
        """
        found = self._index(target).by_anchor.get(anchor, ())
        same = (r for r in _of(found, among) if r.decision.template == template)
        return self._fastest(same, threads)

    def comparable(
        self,
        target: str,
        anchors: Sequence[str],
        threads: int | None = None,
    ) -> dict[str, TuningRecord]:
        """Returns the fastest record of each anchor that has one, all of one processor.

        Times of two processors do not compare, nor those of two numbers of threads. Of those who
        know the first anchor, who knows most of them is asked; this processor, on so many threads,
        if it knows as many or tried what that one found fastest. Predictions count where nobody
        measured the first.
        """
        found = {
            anchor: [r for r in self._index(target).by_anchor.get(anchor, ()) if r.ok]
            for anchor in anchors
        }
        first = [r for r in found[anchors[0]] if not r.predicted] or found[anchors[0]]

        def of(who: tuple[str, int]) -> dict[str, TuningRecord]:
            known = {
                anchor: [
                    r
                    for r in records
                    if (r.cpu or self._cpu, r.threads) == who and r.predicted == first[0].predicted
                ]
                for anchor, records in found.items()
            }
            return {a: _least(records, threads) for a, records in known.items() if records}

        asked = dict.fromkeys((r.cpu or self._cpu, r.threads) for r in first)
        # The one that is believed where two know as much comes first.
        order = sorted(
            asked,
            key=lambda who: (who[0] != self._cpu, threads is not None and who[1] != threads),
        )
        return most_telling([of(who) for who in order])

    def near(
        self,
        target: str,
        anchor: str,
        template: str,
        threads: int | None = None,
        *,
        same_layer: bool = False,
    ) -> TuningRecord | None:
        """Returns the fastest record of the workload of other sizes that is most like one's own.

        Its decision may be of another space: see :func:`tvmdet.tuning.nearness.fitted`. With
        ``same_layer`` only the sizes of pictures and the batch may differ.
        """
        for other in self.near_anchors(target, anchor):
            if same_layer and not is_same_layer(anchor, other):
                continue
            found = self.borrow(target, other, template, threads)
            if found is not None:
                return found
        return None

    def near_anchors(self, target: str, anchor: str) -> list[str]:
        """Returns the anchors of comparable workloads of other sizes, the most alike first."""
        others = self._index(target).by_skeleton.get(skeleton(anchor), ())
        ranked = sorted((distance(anchor, other), other) for other in others if other != anchor)
        return [other for apart, other in ranked if apart <= NEAR]

    def measured(
        self, target: str, fingerprint: str, threads: int | None = None
    ) -> dict[Decision, TuningRecord]:
        """Returns what needs no measuring again: each decision tried, with the record that counts.

        A candidate that timed out or was killed counts only after its second time, since a busy
        machine may have caused the first. Records of another processor, or on another number of
        threads, do not count: what they say of this machine's speed is a guess. A store of
        predictions knows those of its predictor alone.
        """
        tried: dict[Decision, list[TuningRecord]] = defaultdict(list)
        for record in self._index(target).by_fingerprint.get(fingerprint, ()):
            known = record.cpu == self._cpu or not (record.cpu or self._predicted)
            if known and threads in (None, record.threads):
                tried[record.decision].append(record)
        return {
            decision: _standing(records)
            for decision, records in tried.items()
            if len(records) >= _ATTEMPTS or records[0].error_kind not in RETRIED_ERRORS
        }

    def append(self, record: TuningRecord) -> None:
        """Writes one record to disk; when this returns, a crash cannot lose it.

        Raises:
            TuningError: The store has no writable folder, or it cannot be written.
        """
        path = self._path(record.target)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path) as descriptor:
                _repair(descriptor)
                _write_all(descriptor, record.to_line())
                os.fsync(descriptor)
        except OSError as error:
            raise TuningError(
                f"the tuning record cannot be written to {path}: {error.strerror}; "
                "free some space, or give another folder for the logs"
            ) from error
        if record.target in self._loaded:
            self._loaded[record.target].add(record)

    def merge(self, target: str, other: str | os.PathLike[str]) -> int:
        """Adds the records of another root that this store lacks; returns how many."""
        have = {record.to_line() for record in self.records(target)}
        new = [r for r in TuningStore(other).records(target) if r.to_line() not in have]
        for record in new:
            self.append(record)
        return len(new)

    def compact(self, target: str, keep: int = 3) -> int:
        """Rewrites the writable log to the ``keep`` fastest decisions per function and threads.

        Failures are dropped too. Meant for logs that are committed: a later run measures again
        what was dropped. Returns the number of records left.

        Raises:
            TuningError: The folder cannot be written.
        """
        path = self._path(target)
        if not path.exists():
            return 0
        try:
            with _locked(path):
                kept = _keep_best(self._read_file(path, target), keep)
                _replace(path, b"".join(record.to_line() for record in kept))
        except OSError as error:
            raise TuningError(
                f"{path} cannot be rewritten: {error.strerror}; the old file is as it was"
            ) from error
        self._loaded.pop(target, None)
        return len(kept)

    def _fastest(self, records: Iterable[TuningRecord], threads: int | None) -> TuningRecord | None:
        """Returns the fastest of this processor on so many threads, else of this processor.

        Where it has none, those of the processor with most of them are compared, and of two the
        one that was measured last, since times of two do not compare. Only where nothing was
        measured, predictions count: those of who has predicted last.
        """
        ran = [record for record in records if record.ok]
        measured = [record for record in ran if not record.predicted]
        chosen = [record for record in measured if record.cpu in ("", self._cpu)]
        if ran and not chosen:
            counts = Counter(record.cpu for record in measured)
            most = max(measured or ran, key=lambda r: (counts[r.cpu], r.time)).cpu
            chosen = [record for record in measured or ran if record.cpu == most]
        return _least(chosen, threads) if chosen else None

    def _path(self, target: str) -> Path:
        if self._writable is None:
            raise TuningError("this tuning store has no folder; give one to write records to")
        if not target or Path(target).name != target or target.startswith("."):
            raise TuningError(f"target name {target!r} cannot name a folder of the tuning store")
        return self._writable / target / _FILE

    def _index(self, target: str) -> _Index:
        if target not in self._loaded:
            index = _Index()
            for root in self._roots:
                for path in sorted((root / target).glob("*.jsonl")):
                    for record in self._read_file(path, target):
                        index.add(record)
            self._loaded[target] = index
        return self._loaded[target]

    def _read_file(self, path: Path, target: str) -> Iterator[TuningRecord]:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TuningError(f"tuning log {path} cannot be read: {error.strerror}") from error
        lines = data.split(b"\n")
        torn = len(lines)  # what follows the last newline is empty, or torn off by a crash
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = TuningRecord.from_line(line)
            except OtherVersionError:
                self.skipped_other_version += 1
            except ValueError as error:
                if number < torn:
                    self.skipped_malformed += 1
                    log.warning("%s line %d is no tuning record, skipped: %s", path, number, error)
            else:
                if record.target == target:
                    yield record
                else:
                    self.skipped_malformed += 1
                    log.warning("%s line %d is of target %s, skipped", path, number, record.target)


class _Index:
    """The records of one target by function and by anchor, and anchors by their skeleton."""

    def __init__(self) -> None:
        self.records: list[TuningRecord] = []
        self.by_fingerprint: dict[str, list[TuningRecord]] = defaultdict(list)
        self.by_anchor: dict[str, list[TuningRecord]] = defaultdict(list)
        self.by_skeleton: dict[str, set[str]] = defaultdict(set)

    def add(self, record: TuningRecord) -> None:
        self.records.append(record)
        self.by_fingerprint[record.fingerprint].append(record)
        self.by_anchor[record.anchor].append(record)
        self.by_skeleton[skeleton(record.anchor)].add(record.anchor)


def board_cpu(target: Target) -> str:
    """Returns what records of a board name as its CPU.

    A board does not tell its model: boards of one target are taken to be alike.
    """
    return f"{target.name} board"


def default_store(
    logs: str | os.PathLike[str] | None = None,
    *,
    cpu: str | None = None,
    predicted: bool = False,
) -> TuningStore:
    """Returns the store over the logs shipped with tvmdet and the user's own.

    Args:
        logs: Folder to read as well, and to write to. Without it the user's folder is written:
            ``$TVMDET_TUNING_LOGS``, else ``tvmdet/tuning_logs`` under ``$XDG_DATA_HOME`` or
            ``~/.local/share``.
        cpu: Model of the processor whose records win over those of others; by default this
            machine's.
        predicted: As for :class:`TuningStore`.
    """
    import tvmdet.tuning_logs

    shipped = [Path(folder) for folder in tvmdet.tuning_logs.__path__]
    user = os.environ.get("TVMDET_TUNING_LOGS")
    if not user:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        user = str(Path(data) / "tvmdet" / "tuning_logs")
    writable = Path(logs if logs is not None else user)
    return TuningStore(*shipped, user, writable=writable, cpu=cpu, predicted=predicted)


def most_telling(answers: Sequence[dict[str, TuningRecord]]) -> dict[str, TuningRecord]:
    """Returns whose records of some rivals say which is the fastest.

    Args:
        answers: The fastest records of the rivals, of one processor each; the one that is believed
            most comes first.

    Returns:
        The first answer, unless another knows more rivals and the first has not tried the fastest.
    """
    if not answers:
        return {}
    fullest = max(answers, key=len)
    winner = min(fullest, key=lambda rival: fullest[rival].cost)
    return answers[0] if winner in answers[0] else fullest


def _of(
    records: Iterable[TuningRecord], decisions: Collection[Decision] | None
) -> Iterable[TuningRecord]:
    return records if decisions is None else (r for r in records if r.decision in decisions)


def _standing(records: Sequence[TuningRecord]) -> TuningRecord:
    """Returns the record that counts of those of one decision and one processor.

    The last that was timed in turn with another decision: such a one is repeated only to know
    better. Where none was, the fastest, since a busy machine only ever adds time.
    """
    paced = [record for record in records if record.ok and record.pace is not None]
    if not paced:
        return min(records, key=lambda record: record.cost)
    return max(reversed(paced), key=lambda record: record.time)  # of two at once, the later line


def _least(records: Iterable[TuningRecord], threads: int | None) -> TuningRecord:
    """Returns the fastest of some records of one processor; those on so many threads win."""
    tried: dict[tuple[str, Decision, int], list[TuningRecord]] = defaultdict(list)
    for record in records:
        tried[record.fingerprint, record.decision, record.threads].append(record)
    return min(
        map(_standing, tried.values()),
        key=lambda r: (threads is not None and r.threads != threads, r.cost),
    )


def _keep_best(records: Iterable[TuningRecord], keep: int) -> list[TuningRecord]:
    tried: dict[tuple[str, int, str, Decision], list[TuningRecord]] = defaultdict(list)
    for record in records:
        if record.ok:
            key = (record.fingerprint, record.threads, record.cpu, record.decision)
            tried[key].append(record)
    groups: dict[tuple[str, int, str], list[TuningRecord]] = defaultdict(list)
    for record in sorted(map(_standing, tried.values()), key=lambda r: r.cost):
        groups[record.fingerprint, record.threads, record.cpu].append(record)
    # By name and not by speed, so that a new run changes few lines of a committed log.
    ordered = sorted(groups.items(), key=lambda item: (min(r.anchor for r in item[1]), item[0]))
    return [record for _, group in ordered for record in group[:keep]]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Opens a log for appending, under an exclusive lock on the file that bears the name."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # compact() may have put a new file in its place while this one waited.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    yield descriptor
                    return
        finally:
            os.close(descriptor)


def _repair(descriptor: int) -> None:
    """Ends the file with a newline: keeps a last line that is whole, drops one that is torn."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    start, tail = size, b""
    while start > 0 and b"\n" not in tail:
        step = min(start, 65536)
        start -= step
        tail = os.pread(descriptor, step, start) + tail
    last = tail.rpartition(b"\n")[2]
    try:
        TuningRecord.from_line(last)
    except OtherVersionError:
        _write_all(descriptor, b"\n")
    except ValueError:
        os.ftruncate(descriptor, size - len(last))
    else:
        _write_all(descriptor, b"\n")


def _write_all(descriptor: int, data: bytes) -> None:
    """Writes the line in one call; a short write (disk full) is taken back and raised."""
    size = os.fstat(descriptor).st_size
    if os.write(descriptor, data) != len(data):
        os.ftruncate(descriptor, size)
        raise OSError(28, "No space left on device")


def _replace(path: Path, data: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".records-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
