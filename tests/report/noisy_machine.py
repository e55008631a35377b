"""Timings as a shared machine gives them: they drift together, have memory, and spikes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """How bad it is.

    Attributes:
        own: Noise of each side by itself, a share of the time.
        memory: Correlation of that noise from one round to the next.
        spikes: Share of the calls that are interrupted, by half of their time on average.
        process: By what equal processes differ for as long as they live.
        slow_state: How much longer everything takes while a neighbour shares the core.
    """

    own: float = 0.02
    memory: float = 0.5
    spikes: float = 0.05
    process: float = 0.005
    slow_state: float = 0.5

    def time(self, rng: np.random.Generator, rounds: int, bases_s: Sequence[float]) -> list[Array]:
        """Returns the seconds of each side in the same rounds."""
        shared = _remembering(rng, rounds, 0.05, 0.9)
        slow = np.cumsum(rng.random(rounds) < 0.05) % 2 * np.log1p(self.slow_state)
        return [base * np.exp(shared + slow + self._alone(rng, rounds)) for base in bases_s]

    def _alone(self, rng: np.random.Generator, rounds: int) -> Array:
        spikes = np.where(rng.random(rounds) < self.spikes, rng.exponential(0.5, rounds), 0.0)
        own = _remembering(rng, rounds, self.own, self.memory)
        return own + spikes + rng.normal(0.0, self.process)


def _remembering(rng: np.random.Generator, count: int, spread: float, memory: float) -> Array:
    """Returns an autoregressive series of the first order, started in its stationary state."""
    fresh = rng.normal(0.0, spread, count)
    values = np.empty(count)
    values[0] = fresh[0]
    for index in range(1, count):
        values[index] = memory * values[index - 1] + np.sqrt(1 - memory**2) * fresh[index]
    return values
