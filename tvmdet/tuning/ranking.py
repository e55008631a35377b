"""Which unmeasured candidates are worth measuring: MetaSchedule's XGBoost cost model.

One model learns from every task of a run; MetaSchedule extracts its features from the scheduled
TIR and labels each candidate with its speed relative to the best of its task, so that what one
convolution teaches helps to rank the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule import TuneContext
from tvm.s_tir.meta_schedule.cost_model import XGBModel
from tvm.s_tir.meta_schedule.cost_model.xgb_model import XGBConfig
from tvm.s_tir.meta_schedule.feature_extractor import PerStoreFeature, PyFeatureExtractor
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvmdet.errors import TuningError

__all__ = ["Ranking"]

_WARM_UP = 48  # measured candidates before the model is asked


class Ranking:
    """The cost model of a run; predictions are relative speeds, higher is faster."""

    def __init__(self, *, seed: int) -> None:
        """Makes an untrained model.

        Raises:
            TuningError: xgboost is not installed.
        """
        try:
            import xgboost  # noqa: F401
        except ImportError as error:
            raise TuningError(
                "tuning ranks candidates with xgboost, which is not installed; "
                "run: pip install tvmdet[tune]"
            ) from error
        self._features = _CachedFeatures()
        self._model = XGBModel(
            extractor=self._features,
            # More threads gain nothing on so few rows, and OpenMP's spin beside the workers:
            # a training of 0.1 s then takes seconds.
            config=XGBConfig(nthread=1, seed=seed),
            num_warmup_samples=0,
            verbose_eval=0,
        )

    @property
    def ready(self) -> bool:
        """Whether the model has seen enough to be asked."""
        return bool(self._model.booster is not None and self._model.data_size >= _WARM_UP)

    def learn(
        self,
        context: TuneContext,
        candidates: Sequence[MeasureCandidate],
        costs: Sequence[float | None],
    ) -> None:
        """Adds measured candidates of one task and, now and then, trains anew.

        Args:
            context: Of the task.
            candidates: What was measured.
            costs: See :attr:`TuningRecord.cost`; ``None`` for a candidate that failed, which counts
                as infinitely slow.
        """
        if not candidates or all(cost is None for cost in costs):
            return
        results = [
            RunnerResult([value], None) if value is not None else RunnerResult(None, "failed")
            for value in costs
        ]
        self._model.update(context, list(candidates), results)
        self._features.forget(candidates)

    def predict(
        self, context: TuneContext, candidates: Sequence[MeasureCandidate]
    ) -> npt.NDArray[np.float64]:
        """Returns the relative speed that the model expects of each candidate."""
        found = self._model.predict(context, list(candidates))
        # Candidates that store nothing have no features; at the end of the list they are cut.
        speeds = np.zeros(len(candidates))
        speeds[: len(found)] = found
        return speeds

    def forget(self, candidates: Sequence[MeasureCandidate]) -> None:
        """Drops the features of candidates that will not be asked about again."""
        self._features.forget(candidates)


@derived_object
class _CachedFeatures(PyFeatureExtractor):  # type: ignore[misc]
    """MetaSchedule's per-store features, computed once per candidate.

    They take 3 ms each, and a candidate in the pool is ranked several times.
    """

    def __init__(self) -> None:
        super().__init__()
        self._extractor = PerStoreFeature()
        # The key keeps its object alive, so that its address cannot come to mean another.
        self._cache: dict[MeasureCandidate, Any] = {}

    def extract_from(self, context: TuneContext, candidates: list[MeasureCandidate]) -> list[Any]:
        new = [candidate for candidate in candidates if candidate not in self._cache]
        if new:
            features = self._extractor.extract_from(context, new)
            self._cache |= dict(zip(new, features, strict=True))
        return [self._cache[candidate] for candidate in candidates]

    def forget(self, candidates: Sequence[MeasureCandidate]) -> None:
        for candidate in candidates:
            self._cache.pop(candidate, None)
