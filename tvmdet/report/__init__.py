"""Benchmarks that can be trusted: checked first, timed in turn, with an interval and a verdict."""

from tvmdet.report.bench import BenchOptions, bench
from tvmdet.report.environments import install
from tvmdet.report.results import BenchReport
from tvmdet.report.rivals import find_rivals
from tvmdet.report.timing import Plan

__all__ = ["BenchOptions", "BenchReport", "Plan", "bench", "find_rivals", "install"]
