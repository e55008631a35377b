"""What can be said of a compiled file: how fast it is, and how well it finds objects.

Benchmarks are checked first, timed in turn, with an interval and a verdict. Evaluations are
those of COCO, with ONNX Runtime beside them.
"""

from tvmdet.report.bench import BenchOptions, bench
from tvmdet.report.environments import install
from tvmdet.report.eval_results import EvalReport
from tvmdet.report.evaluate import EvalOptions, evaluate
from tvmdet.report.repetition import Verification, VerifyOptions, verify
from tvmdet.report.result_file import dump_result, load_result, load_results, result_schema
from tvmdet.report.result_format import Result
from tvmdet.report.results import BenchReport
from tvmdet.report.rivals import find_rivals
from tvmdet.report.timing import Plan

__all__ = [
    "BenchOptions",
    "BenchReport",
    "EvalOptions",
    "EvalReport",
    "Plan",
    "Result",
    "Verification",
    "VerifyOptions",
    "bench",
    "dump_result",
    "evaluate",
    "find_rivals",
    "install",
    "load_result",
    "load_results",
    "result_schema",
    "verify",
]
