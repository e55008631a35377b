"""A report as JSON: what was derived, and the results that it was derived from, whole."""

from __future__ import annotations

from typing import Any

from tvmdet.report.pages.comparison import Comparison, ModelPart
from tvmdet.report.pages.summary import doubts, findings
from tvmdet.report.result_file import REPORT_FORMAT
from tvmdet.report.typed_json import to_json

__all__ = ["REPORT_FORMAT", "REPORT_SCHEMA", "to_json_values"]

REPORT_SCHEMA = 1


def to_json_values(comparison: Comparison) -> dict[str, Any]:
    """Returns plain JSON values; ``results`` holds what `--baseline` reads."""
    return {
        "format": REPORT_FORMAT,
        "schema": REPORT_SCHEMA,
        "prices_per_hour": dict(comparison.prices),
        "baseline": list(comparison.baseline),
        "models": [_part(part, comparison) for part in comparison.models],
        "results": [
            {"file": source.file, "result": to_json(source.result)}
            for part in comparison.models
            for source in part.sources
        ],
    }


def _part(part: ModelPart, comparison: Comparison) -> dict[str, Any]:
    return {
        "model": to_json(part.model),
        "findings": [remark.text for remark in findings(part)],
        "warnings": doubts(part),
        "rows": [
            {
                **run.to_dict(),
                "cost_per_1000_images": comparison.cost_per_1000(run),
                "tvmdet_over_this": to_json(run.over_rival),
            }
            for run in part.runs
        ],
        "not_run": dict(part.not_run),
        "changes": [change.to_dict() for change in part.changes],
        "regressions": len(part.regressions),
    }
