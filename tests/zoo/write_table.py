"""Writes docs/detectors.md from what a run of the zoo found.

Usage: write_table.py [RESULTS] [--output FILE]

RESULTS is the folder that ``test_zoo.py`` wrote to, ``.zoo/results`` by default. Files in it named
``eval-NAME.json``, as ``test_trained.py`` and ``tvmdet eval --onnx ... --json`` write them, give
the table of the trained networks. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cases import CASES

ROOT = Path(__file__).parents[2]
_UNSEEN = "not exported: "  # how test_zoo.py begins the reason
EXPORTERS = {"script": "TorchScript", "dynamo": "dynamo"}

_HEAD = """# Detectors that are tested

Written by `tests/zoo/write_table.py` from a run of `scripts/test -m slow tests/zoo`; edit that
script, not this page.

Every network here is built small, with random weights from a seed, by the code of its framework or
by a rewriting of its head from the framework's source (`tests/zoo/build_*.py` says which), and
exported by `torch.onnx.export`. tvmdet compiles the file for this machine in fp32. What it finds in
two drawn pictures is then compared, box by box and before suppression, with what the framework's
own post-processing makes of the outputs that ONNX Runtime gives for the original file. The parity
check of the build, which compares suppressed boxes on other pictures, passed as well in every row
that has figures. Results are kept until a case runs again: rows may come from different commits.

- **compiled**: how many different modules the opsets of a row import as. Those that are equal,
  weights included, are compiled and checked once; every export is compared by itself.
- **recognised**: *by itself*, or *with a spec* where no file of that kind says what it is; *asks*
  where tvmdet must refuse to guess and does so, with the text to write.
- **IoU** and **score**: the least overlap of two boxes that are the same, and the greatest
  difference of their scores. **flips**: same box, other class. **keypoints**: the farthest that a
  point is from where the framework's own code puts it, in pixels.
- **latency**: least time of 200 whole detections over that of ONNX Runtime on the network alone, in
  turn, untuned kernels, one thread each, on a machine that did other things as well: a hint, no
  measurement. Networks are tiny here, and random weights find hundreds of boxes, whose decoding,
  suppression and masks count on one side only: this says little about large networks, which
  docs/performance.md measures. Empty where it was not timed.
"""

_MISSES = """
## Misses

What tvmdet does not take, or what is not equal, with the reason.
"""

_NOT_EXPORTED = """
## Not exported

What torch's exporter does not write, or ONNX Runtime does not run: there is nothing to compare.
"""

_TRAINED = """
## Trained networks

Networks that were trained on drawn shapes (`tests/zoo/models`), so that average precision means
something: COCO's AP of the compiled file and of ONNX Runtime, on the same pictures.
"""


def read(folder: Path) -> list[dict[str, Any]]:
    """Returns the results of all cases, in the order of their names."""
    files = [folder / f"{case.name}.json" for case in CASES]
    return [{"name": path.stem, **json.loads(path.read_text())} for path in files if path.is_file()]


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns one row a network and exporter, its opsets taken together."""
    rows = [
        "| detector | exporter | opsets | compiled | family | recognised "
        "| boxes | IoU | score | flips | keypoints | latency |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["title"], result["exporter"]), []).append(result)
    for (title, exporter), group in sorted(groups.items()):
        passed = [one for one in group if "miss" not in one]
        if passed:
            rows.append(f"| {title} | {EXPORTERS[exporter]} | {_row(passed)} |")
    return rows


def _row(group: Sequence[Mapping[str, Any]]) -> str:
    opsets = ", ".join(str(one["opset"]) for one in sorted(group, key=lambda one: one["opset"]))
    if group[0].get("asks"):
        return f"{opsets} |  |  | asks |  |  |  |  |  | "
    known = "by itself" if not group[0]["spec"] else "with a spec"
    found = [one["agreement"] for one in group]
    ratios = [one["one_thread_ratio"] for one in group if "one_thread_ratio" in one]
    return " | ".join(
        [
            opsets,
            str(len({one["compiled_for"] for one in group})),
            f"`{group[0]['family']}`",
            known,
            str(sum(one["boxes"] for one in found)),
            f"{min(one['worst_iou'] for one in found):.4f}",
            f"{max(one['worst_score_drift'] for one in found):.1e}",
            str(sum(one["class_flips"] for one in found)),
            f"{max(one['worst_point_px'] for one in found):.1e}"
            if any(one.get("points") for one in found)
            else "",
            f"{sorted(ratios)[len(ratios) // 2]:.2f}" if ratios else "",
        ]
    )


def misses(results: Iterable[Mapping[str, Any]], *, exported: bool) -> list[str]:
    """Returns one row a case that has no figures, with the reason.

    Args:
        results: Of all cases.
        exported: Whether the cases that tvmdet saw, or those that nobody could export.
    """
    rows = ["| detector | exporter | opset | reason |", "|---|---|---|---|"]
    for result in sorted(results, key=lambda one: (one["title"], one["exporter"], one["opset"])):
        if "miss" in result and _is_exported(result) is exported:
            reason = result["miss"].removeprefix(_UNSEEN).replace("|", "\\|")
            rows.append(
                f"| {result['title']} | {EXPORTERS[result['exporter']]} | {result['opset']} "
                f"| {reason} |"
            )
    return rows if len(rows) > 2 else ["None."]


def _is_exported(result: Mapping[str, Any]) -> bool:
    return not result.get("miss", "").startswith(_UNSEEN)


def trained(folder: Path) -> list[str]:
    """Returns one row a trained network that ``tvmdet eval`` measured; none without."""
    rows = []
    for path in sorted(folder.glob("eval-*.json")):
        report = json.loads(path.read_text())
        for what in ("boxes", "masks"):
            mine, right = report.get(what), (report.get("reference") or {}).get(what)
            if mine and right:
                gap = mine["ap"] - right["ap"]
                rows.append(
                    f"| {path.stem.removeprefix('eval-')} | {what} | {mine['ap']:.4f} "
                    f"| {right['ap']:.4f} | {gap:+.4f} |"
                )
    head = [
        "| network | of | AP, tvmdet | AP, ONNX Runtime | difference |",
        "|---|---|---|---|---|",
    ]
    return [*head, *rows] if rows else []


def page(folder: Path) -> str:
    """Returns the page.

    Raises:
        SystemExit: There are no results.
    """
    results = read(folder)
    if not results:
        raise SystemExit(f"no results in {folder}: run scripts/test -m slow tests/zoo first")
    passed = sum("miss" not in one for one in results)
    unseen = sum(not _is_exported(one) for one in results)
    lines = [
        _HEAD,
        f"Of {len(CASES)} exports in the zoo {len(results)} were run; "
        f"{passed} of these are taken and equal, {unseen} could not be exported.",
        "",
    ]
    lines += [*table(results), _MISSES, *misses(results, exported=True)]
    lines += [_NOT_EXPORTED, *misses(results, exported=False)]
    of_trained = trained(folder)
    if of_trained:
        lines += [_TRAINED, *of_trained]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path, nargs="?", default=ROOT / ".zoo" / "results")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "detectors.md")
    arguments = parser.parse_args()
    arguments.output.write_text(page(arguments.results))
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
