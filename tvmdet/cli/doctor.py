"""``tvmdet doctor``: what of a model imports, what is rewritten, what blocks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmdet import untrusted
from tvmdet.cli import output
from tvmdet.cli.files import check_writable
from tvmdet.cli.json_output import Json, check_json, deliver
from tvmdet.cli.options import (
    Debug,
    OnnxFile,
    Size,
    Spec,
    Timeout,
    given_again,
    parse_duration,
    parse_size,
)
from tvmdet.cli.progress import Phases
from tvmdet.contain import Bounds
from tvmdet.counted import counted
from tvmdet.sizes import size_text

if TYPE_CHECKING:
    from tvmdet.diagnosis import Diagnosis, Shrunk

__all__ = ["doctor"]


def doctor(
    model: OnnxFile,
    size: Size = None,
    spec: Spec = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="The network without a head: any inputs and outputs.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compile it too, and compare it with ONNX Runtime."),
    ] = False,
    shrink: Annotated[
        Path | None,
        typer.Option(
            "--shrink",
            metavar="FILE.onnx",
            help="Write the smallest part that fails or differs, without your weights.",
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", metavar="TIME", help="How long --shrink may search: 90s, 5m.")
    ] = "5m",
    save_onnx: Annotated[
        Path | None,
        typer.Option(
            "--save-onnx", metavar="FILE.onnx", help="Write the rewritten network that is compiled."
        ),
    ] = None,
    nodes: Annotated[
        bool, typer.Option("--nodes", "-v", help="Say what becomes of every operator.")
    ] = False,
    timeout: Timeout = "30m",
    json: Json = None,
    debug: Debug = False,
) -> int:
    """Say what of a model imports, is rewritten, or blocks."""
    size_hw, budget_s = parse_size(size), parse_duration(budget, "--budget")
    check_json(json, (model, spec, save_onnx, shrink))
    check_writable(save_onnx, "--save-onnx", (model, spec, shrink))
    check_writable(shrink, "--shrink", (model, spec))
    bounds = Bounds(timeout_s=parse_duration(timeout, "--timeout"))
    with Phases() as phase:
        phase(f"examining {model}")
        found = untrusted.diagnose(
            model,
            spec=spec,
            size_hw=size_hw,
            raw=raw,
            compare=compare,
            shrink=shrink,
            shrink_budget_s=budget_s,
            save_onnx=save_onnx,
            bounds=bounds,
            tell=phase.tell,
        )
    again = given_again(size=size, spec=spec, raw=raw)
    as_raw = given_again(size=size, raw=True)
    deliver(json, found.to_dict(), lambda: _print(found, nodes=nodes, again=again, as_raw=as_raw))
    return 0 if found.ok else 1


def _print(found: Diagnosis, *, nodes: bool, again: Sequence[str], as_raw: Sequence[str]) -> None:
    """Prints the verdict, what it is and what to do; then what matters; then what was asked for."""
    console = output.stdout()
    console.print(_verdict(found), style="green" if found.ok else "red", soft_wrap=True)
    if what := _what(found):
        console.print(f"  {what}", soft_wrap=True)
    _print_next(found, again, as_raw)
    for problem in found.problems:
        console.print(f"\nblocks: {problem}", style="red", soft_wrap=True)
    if found.shrunk is not None:
        _print_shrunk(found.shrunk)
    console.print()
    output.facts(
        [
            ("nodes", _counts(found)),
            ("proven", _proven(found, each=nodes)),
            ("changed", "\n".join(found.notes)),
            ("compared", _compared(found)),
            ("batches", found.batch),
            ("because", "\n".join(found.recognition[0 if nodes else 1 :])),
            ("rewritten", None if found.saved is None else f"written to {found.saved}"),
        ]
    )
    if nodes and found.nodes:
        _print_all(found)


def _verdict(found: Diagnosis) -> str:
    if found.ok:
        return f"COMPILES  {found.path}"
    return f"DOES NOT COMPILE  {found.path}: {counted(len(found.problems), 'problem')}"


def _what(found: Diagnosis) -> str:
    """Returns one line: family, size, exporter."""
    parts = [
        _family(found),
        None if found.size_hw is None else f"input {size_text(found.size_hw)}",
        None if found.parameters is None else f"{_short(found.parameters)} parameters",
        None if found.gflops is None else f"{found.gflops:g} GFLOP per image",
        f"opset {found.opset}" if found.opset else None,
        f"by {found.producer}" if found.producer else None,
    ]
    return ", ".join(part for part in parts if part)


def _short(count: int) -> str:
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _family(found: Diagnosis) -> str | None:
    """Names the family; nothing is said of what could not be read or made static."""
    if found.family:
        return f"family {found.family}"
    return "no known family" if found.static else None


def _print_next(found: Diagnosis, again: Sequence[str], as_raw: Sequence[str]) -> None:
    if found.ok:
        raw = ["--raw"] if found.family == "raw" and "--raw" not in again else []
        output.next_step("tvmdet", "tune", found.path, *again, *raw)
    elif found.static and not found.count("blocks") and found.family is None:
        output.next_step("tvmdet", "compile", found.path, *as_raw)
    else:
        line = "\nnext: do what the lines below say and run the doctor again"
        output.stdout().print(line, style="dim")


def _counts(found: Diagnosis) -> str:
    if not found.nodes:
        return ""
    counts = [f"{found.count('imports')} import", f"{found.count('rewritten')} are rewritten"]
    blocks = found.count("blocks")
    counts.append(f"{blocks} block" if blocks else "none blocks")
    top = Counter(node.operator for node in found.nodes if node.verdict == "blocks")
    named = ", ".join(f"{operator} {count}" for operator, count in top.most_common(5))
    return f"{len(found.nodes)}: {', '.join(counts)}{f' ({named})' if named else ''} (--nodes)"


def _proven(found: Diagnosis, *, each: bool) -> str:
    """Returns one line on all proofs, or one for every rewrite."""
    if not found.proofs:
        return ""
    inputs = list(dict.fromkeys(name for proof in found.proofs for name in proof.inputs))
    largest = max(proof.largest for proof in found.proofs)
    kinds = list(dict.fromkeys(name.split(" (")[0].split(":")[0] for name in inputs))
    unseen = [kind for kind in kinds if kind.startswith("no row")]
    kinds = [kind for kind in kinds if kind not in unseen]
    line = f"by ONNX Runtime, largest difference {_size(largest)}, on {' and '.join(kinds)}"
    if unseen:
        line += "; but no row was ever seen: check the compiled file on pictures of yours"
    if not each:
        return line
    by_rewrite: dict[str, float] = {}
    for proof in found.proofs:
        by_rewrite[proof.rewrite] = max(by_rewrite.get(proof.rewrite, 0.0), proof.largest)
    lines = [
        f"{rewrite}: largest difference {_size(by_rewrite[rewrite])}" for rewrite in by_rewrite
    ]
    return "\n".join([line, *lines])


def _size(difference: float) -> str:
    return f"{difference:.1e}" if difference else "none"


def _compared(found: Diagnosis) -> str:
    if found.compared is None:
        return ""
    worst = max(found.compared, key=lambda name: found.compared[name] if found.compared else 0)
    return (
        f"compiled against ONNX Runtime, {counted(len(found.compared), 'output')}: largest "
        f"difference {_size(found.compared[worst])} ({worst})"
    )


def _print_shrunk(shrunk: Shrunk) -> None:
    rows = [
        ("shrunk", shrunk.summary),
        ("repeat it", shrunk.command),
    ]
    output.stdout().print()
    output.facts(rows)


def _print_all(found: Diagnosis) -> None:
    """One row per operator and verdict, what blocks first; then inputs, outputs and reasons."""
    groups: dict[tuple[str, str, str], int] = defaultdict(int)
    for node in found.nodes:
        detail = f"{node.node}: {node.detail}" if node.verdict == "blocks" else node.detail
        if node.difference is not None:
            detail += f", proven: largest difference {_size(node.difference)}"
        groups[node.verdict, node.operator, detail] += 1
    order = ("blocks", "rewritten", "imports")
    rows = sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    output.table(
        ("operator", "nodes", "verdict", "how"),
        [(operator, count, verdict, how) for (verdict, operator, how), count in rows],
        right=("nodes",),
        gap=True,
    )
    output.stdout().print()
    tensors = [*found.inputs.items(), *found.outputs.items()]
    sides = ["input"] * len(found.inputs) + ["output"] * len(found.outputs)
    output.facts(
        (side, f"{name} {value}") for side, (name, value) in zip(sides, tensors, strict=True)
    )
