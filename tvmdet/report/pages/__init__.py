"""``tvmdet report``: results of benchmarks put side by side, as a page, Markdown or JSON."""

from tvmdet.report.pages.write import ReportOptions, Written, write_report

__all__ = ["ReportOptions", "Written", "write_report"]
