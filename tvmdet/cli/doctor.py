"""``tvmdet doctor``: what of a model imports, what is rewritten, what blocks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tvmdet.cli import output
from tvmdet.cli.options import Debug, Json, OnnxFile, Size, parse_size
from tvmdet.cli.progress import Phases

if TYPE_CHECKING:
    from tvmdet.frontend import Diagnosis, Model

__all__ = ["doctor"]


def doctor(
    model: OnnxFile,
    size: Size = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Say what of a model imports, is rewritten, or blocks."""
    size_hw = parse_size(size)
    with Phases() as phase:
        phase(f"examining {model}")
        from tvmdet.frontend import diagnose

        found = diagnose(model, size_hw=size_hw, dry_run=_lower)
    if json:
        output.print_json(found.to_dict())
    else:
        _print(found)
    return 0 if found.ok else 1


def _lower(model: Model) -> None:
    """Lowers a model as for this machine, which names what has no kernel."""
    from tvmdet.passes import lower
    from tvmdet.targets import get_target

    lower(model, (1,), get_target("host"))


def _print(found: Diagnosis) -> None:
    size = "x".join(str(side) for side in found.size_hw) if found.size_hw else None
    output.facts(
        [
            ("model", found.path),
            ("exported by", found.producer),
            ("opset", found.opset),
            ("inputs", _tensors(found.inputs)),
            ("outputs", _tensors(found.outputs)),
            ("size", size),
            ("parameters", None if found.parameters is None else f"{found.parameters:,}"),
            ("per image", None if found.gflops is None else f"{found.gflops} GFLOP"),
            ("family", found.family),
            ("because", "\n".join(found.recognition)),
            ("batches", found.batch),
        ]
    )
    if found.nodes:
        _print_operators(found)
        output.stdout().print()
    for problem in found.problems:
        output.stdout().print(f"blocks: {problem}", style="red", soft_wrap=True)
    if found.ok:
        counts = [f"{found.count('imports')} nodes import", f"{found.count('rewritten')} rewritten"]
        output.stdout().print(f"{found.path} compiles: {', '.join(counts)}, nothing blocks")
        output.next_step("tvmdet", "tune", found.path)
    else:
        count = len(found.problems)
        problems = "1 problem" if count == 1 else f"{count} problems"
        output.stdout().print(f"\n{found.path} does not compile as a detector: {problems}")
        if found.static and not found.count("blocks"):
            output.next_step("tvmdet", "compile", found.path, "--raw")
        else:
            output.stdout().print("\nnext: export it again as the lines above say", style="dim")


def _tensors(tensors: object) -> str:
    assert hasattr(tensors, "items")
    return "\n".join(f"{name} {value}" for name, value in tensors.items())


def _print_operators(found: Diagnosis) -> None:
    """One row per operator and verdict, what blocks first."""
    groups: dict[tuple[str, str, str], int] = defaultdict(int)
    for node in found.nodes:
        detail = f"{node.node}: {node.detail}" if node.verdict == "blocks" else node.detail
        groups[node.verdict, node.operator, detail] += 1
    order = ("blocks", "rewritten", "imports")
    rows = sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    output.table(
        ("operator", "nodes", "verdict", "how"),
        [(operator, count, verdict, how) for (verdict, operator, how), count in rows],
        right=("nodes",),
        gap=True,
    )
