"""Tuning: tasks of a lowered module, measured within a budget, kept in a store per target."""

from tvmdet.tuning.driver import tune, tune_tasks
from tvmdet.tuning.measure import MeasureOptions
from tvmdet.tuning.progress import TuningProgress, TuningReport
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore, default_store
from tvmdet.tuning.task import Task, extract_tasks, merge_tasks

__all__ = [
    "MeasureOptions",
    "Task",
    "TuningProgress",
    "TuningRecord",
    "TuningReport",
    "TuningStore",
    "default_store",
    "extract_tasks",
    "merge_tasks",
    "tune",
    "tune_tasks",
]
