"""The smallest part of a network that still fails, or differs from ONNX Runtime, once compiled.

1. The weights become random. All that follows happens to that network, so that nothing of the
   user's is in what is written.
2. By outputs: the shortest run of first nodes that still shows the failure, by bisection.
3. By inputs: the latest node to begin at, by bisection; what was computed before is fed.
4. Delta debugging over what is left: halves, quarters, ..., single nodes are taken away as long
   as the failure stays.
5. Inputs are halved along each axis as long as the failure stays.

Every candidate is compiled and compared as it will be when the written file is examined. The
search is deterministic; a spent budget ends it early with the smallest part found so far.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from tvmdet.compiler.network_parity import TOLERANCE, compare_network
from tvmdet.compiler.part_of_onnx import anonymous, halved, take_part, with_random_weights
from tvmdet.counted import counted
from tvmdet.errors import ModelError, TvmdetError
from tvmdet.frontend.onnx_tools import first_line
from tvmdet.frontend.prove import probes, run_onnx
from tvmdet.frontend.specialise import static_values
from tvmdet.steps import reached

__all__ = ["DIFFERS", "Failure", "Part", "find_failure", "shrink"]

DIFFERS = "differs"
_COMPARED_TEXT = 60  # of two errors, with names and numbers taken out, to count as the same
_MOST_AXES = 5


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What goes wrong with a network.

    Attributes:
        kind: ``differs``, or the error without names and numbers: failures of one kind are the
            same one.
        detail: For people.
    """

    kind: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a network that shows a failure.

    Attributes:
        model: The part, its weights random, its names its own.
        failure: What it shows.
        attempts: How many candidates were compiled.
        complete: Whether the search ended by itself, not by its budget.
    """

    model: onnx.ModelProto
    failure: Failure
    attempts: int
    complete: bool


def find_failure(model: onnx.ModelProto, opset: int, seed: int = 0) -> Failure | None:
    """Compiles a static network and compares it with ONNX Runtime.

    Returns:
        What goes wrong; None when nothing does, or when ONNX Runtime itself cannot run it.
    """
    try:
        static_values(model)
        run_onnx(model, list(probes(model, seed).values()))
    except ModelError:
        return None
    try:
        found = compare_network(model, opset, seed=seed)
    except TvmdetError as error:
        return Failure(kind=_kind(error), detail=str(error))
    except Exception as error:  # TVM raises anything
        return Failure(kind=_kind(error), detail=f"{type(error).__name__}: {first_line(error)}")
    far = {name: value for name, value in found.items() if not value <= TOLERANCE}
    if not far:
        return None
    worst = max(far, key=lambda name: far[name])
    detail = (
        f"output {worst!r} differs from ONNX Runtime's by {far[worst]:.3g} of its largest value, "
        f"allowed {TOLERANCE:g}"
    )
    return Failure(kind=DIFFERS, detail=detail)


def _kind(error: Exception) -> str:
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "?", first_line(error))
    return f"{type(error).__name__}: {text[:_COMPARED_TEXT]}"


def shrink(
    model: onnx.ModelProto,
    opset: int,
    *,
    budget_s: float,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Part | None:
    """Searches for the smallest part of a network that shows its failure.

    Args:
        model: Static, simplified, every node named.
        opset: Version of its default operator set.
        budget_s: Seconds after which no new candidate is tried.
        seed: Of the random weights and inputs.
        clock: Tells the time in seconds.

    Returns:
        The part; None when the network fails in no way once its weights are random.
    """
    search = _Search(with_random_weights(model, seed), opset, seed, clock() + budget_s, clock)
    return search.run()


class _Search:
    """One search: the candidates that were tried, and the kind of failure that is looked for."""

    def __init__(
        self,
        model: onnx.ModelProto,
        opset: int,
        seed: int,
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self._model = model
        self._opset = opset
        self._seed = seed
        self._deadline = deadline
        self._clock = clock
        self._kind: str | None = None
        self._failure: Failure | None = None
        self._best: onnx.ModelProto | None = None
        self._attempts = 0
        self._known: dict[tuple[int, ...], bool] = {}

    def run(self) -> Part | None:
        everything = list(range(len(self._model.graph.node)))
        if not self._shows(everything):
            return None
        kept = self._shortest_prefix(everything)
        kept = self._latest_start(kept)
        kept = self._without_nodes(kept)
        self._smaller_shapes()
        assert self._best is not None and self._failure is not None
        model = anonymous(self._best)
        # The names in the message are those of the file.
        failure = self._failure
        if not self._spent:
            failure = find_failure(model, self._opset, self._seed) or failure
        return Part(
            model=model,
            failure=failure,
            attempts=self._attempts,
            complete=not self._spent,
        )

    @property
    def _spent(self) -> bool:
        return self._clock() >= self._deadline

    def _shows(self, kept: Sequence[int]) -> bool:
        """Returns whether these nodes alone show the failure; they are the best part then."""
        key = tuple(kept)
        if not key:
            return False
        if key not in self._known:
            if self._spent and self._best is not None:
                return False
            self._known[key] = self._try(take_part(self._model, kept))
        return self._known[key]

    def _try(self, candidate: onnx.ModelProto) -> bool:
        if not candidate.graph.output or not candidate.graph.input:
            return False
        self._attempts += 1
        reached(f"attempt {self._attempts} to shrink: {counted(len(candidate.graph.node), 'node')}")
        failure = find_failure(candidate, self._opset, self._seed)
        if failure is None or (self._kind is not None and failure.kind != self._kind):
            return False
        self._kind, self._failure, self._best = failure.kind, failure, candidate
        return True

    def _shortest_prefix(self, kept: list[int]) -> list[int]:
        low, high = 0, len(kept)  # the first `high` nodes fail, `low` do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._shows(kept[:middle]) else (middle, high)
        return kept[:high]

    def _latest_start(self, kept: list[int]) -> list[int]:
        low, high = 0, len(kept)  # from `low` on they fail, from `high` on they do not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._shows(kept[middle:]) else (low, middle)
        return kept[low:]

    def _without_nodes(self, kept: list[int]) -> list[int]:
        size = max(len(kept) // 2, 1)
        while True:
            start = len(kept)
            at = 0
            while at < len(kept):
                fewer = kept[:at] + kept[at + size :]
                if self._shows(fewer):
                    kept = fewer
                else:
                    at += size
            if size == 1 and len(kept) == start:
                return kept
            size = max(size // 2, 1)

    def _smaller_shapes(self) -> None:
        for axis in reversed(range(_MOST_AXES)):
            while self._best is not None and not self._spent:
                try:
                    candidate = halved(self._best, axis)
                except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
                    break  # a constant target shape fixes this axis
                if candidate is None or not self._try(candidate):
                    break
