"""Every kernel of a lowered module gets its schedule: tuned, borrowed, or the default."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import relax, tirx

from tvmdet.compiler.kernel_facts import kernel_facts
from tvmdet.passes.by_picture import pictures_of
from tvmdet.passes.conv_algorithms import (
    ALGORITHMS,
    Algorithm,
    AlgorithmName,
    ConvLayer,
    usual_algorithm,
)
from tvmdet.passes.fuse_pairs import ConvPair, PairChoice, pair_anchor, usual_pairs
from tvmdet.schedules import find, templates
from tvmdet.schedules.base import Decision, Template, Workload, fingerprint
from tvmdet.targets import Target
from tvmdet.tuning.nearness import fitted, of_one_picture
from tvmdet.tuning.store import TuningStore
from tvmdet.tuning.target_records import TargetRecords

__all__ = ["ScheduledKernels", "measured_algorithm", "measured_pairs", "schedule_kernels"]

_SURELY = 0.92
"""Of both kernels' time: what a pair must take at most. Kernels are measured one by one, with cold
pictures, so that the second of two seems slower than it is behind the first, whose result it finds
in a cache; and the best of a pair's many decisions is a luckier measurement."""


@dataclass(frozen=True, kw_only=True)
class ScheduledKernels:
    """A module whose kernels are all scheduled, and where the decisions came from.

    Attributes:
        module: Relax entry functions and scheduled TIR functions.
        sources: How many kernels were ``tuned`` (measured as they are, on this processor),
            ``elsewhere`` (so on another one), ``borrowed`` (measured with another epilogue),
            ``near`` (after the most similar workload of other sizes), ``predicted`` (fastest by
            predicted cycles, never measured), ``default``, or have a ``single`` way to be
            scheduled.
        decisions: The decision of each kernel, by the kernel's name.
        fallbacks: Why a decision from the store was passed over, by kernel.
        facts: What the manifest says of each kernel, by its name.
    """

    module: tvm.IRModule
    sources: dict[str, int]
    decisions: dict[str, Decision]
    fallbacks: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def flop(self) -> dict[int, int]:
        """Returns the operations of one call of each entry function, by its rows.

        Kernels that say nothing of theirs are left out; one called by picture counts so often.
        """
        found = {}
        for var, func in self.module.functions_items():
            if isinstance(func, relax.Function):
                rows = int(var.name_hint.rpartition("_b")[2])
                called = _called(self.module, func)
                found[rows] = sum(self.facts[name]["flop"] or 0 for name in called)
        return found

    def digest(self) -> str:
        """Returns the SHA-256 of all decisions: equal digests mean equal schedules."""
        listed = [[name, decision.to_dict()] for name, decision in sorted(self.decisions.items())]
        return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _called(module: tvm.IRModule, func: relax.Function) -> list[str]:
    """Returns the kernels that a function calls, one name a call."""
    calls = [b.value for block in func.body.blocks for b in block.bindings]
    op = tvm.ir.Op.get("relax.call_tir")
    return [
        c.args[0].name_hint
        for c in calls
        if isinstance(c, relax.Call) and c.op.same_as(op)
        for _ in range(pictures_of(module, c))
    ]


def measured_algorithm(target: Target, store: TuningStore, threads: int) -> Algorithm:
    """Returns the choice of convolution algorithm that the tuning records speak for.

    It is chosen for one picture where that was measured, whatever the batch: large maps are
    computed by picture (:mod:`tvmdet.passes.by_picture`), by kernels that read and write what those
    of the batch do. Where the usual one of a layer has no record, the records of the most similar
    layer of other sizes speak for it; where there is none either, the usual one is chosen.
    """
    records = TargetRecords(store, target)

    def costs(layer: ConvLayer, anchor: str) -> dict[AlgorithmName, float]:
        usual = usual_algorithm(layer)
        names = {ALGORITHMS[name] + anchor: name for name in (usual, *layer.compared)}
        found = records.comparable(list(names), threads)
        return {names[key]: record.cost for key, record in found.items()}

    def choose(layer: ConvLayer) -> AlgorithmName:
        usual = usual_algorithm(layer)
        prefix = ALGORITHMS[usual]
        one = of_one_picture(layer.anchor)
        near = records.near_anchors(prefix + one)
        own = [costs(layer, anchor) for anchor in (one, layer.anchor)]
        others = (costs(layer, anchor.removeprefix(prefix)) for anchor in near)
        for known in itertools.chain(own, () if any(own) else others):
            if len(known) > 1:
                return min(known, key=known.__getitem__)
        return usual

    return choose


def measured_pairs(target: Target, store: TuningStore, threads: int) -> PairChoice:
    """Returns which depthwise and pointwise convolutions are faster as one kernel, by the records.

    It is chosen for one picture, as the algorithm is. Where no processor has measured the three
    kernels, nor all are predicted, the usual choice is made.
    """
    records = TargetRecords(store, target)

    def choose(pair: ConvPair) -> bool:
        whole = (pair_anchor(pair.depthwise, pair.pointwise), pair.depthwise, pair.pointwise)
        for anchors in (tuple(of_one_picture(anchor) for anchor in whole), whole):
            known = records.comparable(anchors, threads)
            if len(known) == len(anchors):
                together, first, second = (known[anchor].cost for anchor in anchors)
                return together < _SURELY * (first + second)
        return usual_pairs(pair, target.l2_bytes)

    return choose


def schedule_kernels(
    module: tvm.IRModule, target: Target, store: TuningStore, threads: int
) -> ScheduledKernels:
    """Schedules every TIR function of a lowered module.

    Args:
        module: As :func:`tvmdet.passes.lower` returns it.
        target: What it is compiled for.
        store: Where tuning records are looked up.
        threads: Records measured on so many threads are preferred.
    """
    result = tvm.IRModule(dict(module.functions))
    if module.attrs:
        result = result.with_attrs(module.attrs)
    sources: Counter[str] = Counter()
    decisions: dict[str, Decision] = {}
    fallbacks: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    done: dict[str, tuple[tirx.PrimFunc, Decision, str]] = {}
    for var in sorted(module.get_global_vars(), key=lambda v: v.name_hint):
        func = module[var]
        if not isinstance(func, tirx.PrimFunc):
            continue
        key = fingerprint(func)
        if key not in done:
            done[key] = _schedule(func, key, target, store, threads, fallbacks, var.name_hint)
        scheduled, decision, source = done[key]
        sources[source] += 1
        decisions[var.name_hint] = decision
        facts[var.name_hint] = kernel_facts(func, target, decision, source)
        result[var] = scheduled.with_attr("global_symbol", var.name_hint).with_attr(
            "tirx.noalias", True
        )
    return ScheduledKernels(
        module=result,
        sources=dict(sources),
        decisions=decisions,
        fallbacks=fallbacks,
        facts=facts,
    )


def _schedule(
    func: tirx.PrimFunc,
    key: str,
    target: Target,
    store: TuningStore,
    threads: int,
    fallbacks: dict[str, str],
    name: str,
) -> tuple[tirx.PrimFunc, Decision, str]:
    records = TargetRecords(store, target)
    template, workload = find(func, target)
    valid = template.decisions(workload, target)
    candidates = _known(records, key, workload.anchor, template, threads, valid)
    candidates += [(decision, "default" if len(valid) > 1 else "single") for decision in valid]
    broken = {
        decision: record for decision, record in records.measured(key).items() if not record.ok
    }
    for decision, source in candidates:
        if decision not in valid:
            fallbacks[name] = f"{decision} is not one that {template.name} makes any more"
            continue
        if decision in broken and len(broken) < len(valid):
            fallbacks[name] = f"{decision} failed when it was measured: {broken[decision].error}"
            continue
        try:
            return _apply(template, func, workload, decision), decision, source
        except Exception as error:  # TVM raises anything; the next candidate is tried
            reason = (str(error).strip() or repr(error)).splitlines()[-1]
            fallbacks[name] = f"{decision}: {reason}"
    for last in _general(template, target):
        general = last.match(func, target)
        if general is None:
            continue
        decision = last.decisions(general, target)[0]
        try:
            return _apply(last, func, general, decision), decision, "default"
        except Exception as error:  # TVM raises anything; a more general template is tried
            reason = (str(error).strip() or repr(error)).splitlines()[-1]
            fallbacks[name] = f"{decision}: {reason}"
    raise AssertionError("the last template changes nothing")


def _known(
    records: TargetRecords,
    key: str,
    anchor: str,
    template: Template,
    threads: int,
    valid: Sequence[Decision],
) -> list[tuple[Decision, str]]:
    """Returns what the records propose, the best first, and where each comes from.

    Those that were faster but are no decisions any more come before them all.
    """
    if len(valid) < 2:
        return []
    allowed = frozenset(valid)
    usable = _fastest(records, key, anchor, template.name, threads, allowed)
    every = _fastest(records, key, anchor, template.name, threads)
    gone = [pair for pair in every if pair[0] not in allowed]
    first = valid[: template.told_by_other_pictures]
    if not usable and len(first) > 1:
        like = records.near(anchor, template.name, threads, same_layer=True)
        if like is not None:
            usable = [(fitted(like.decision, first), "predicted" if like.predicted else "near")]
    return [*gone, *usable]


def _fastest(
    records: TargetRecords,
    key: str,
    anchor: str,
    template: str,
    threads: int,
    among: frozenset[Decision] | None = None,
) -> list[tuple[Decision, str]]:
    """Returns the fastest of the kernel itself and of its operator, measured ones first."""
    exact = records.best(key, threads, among)
    same = records.borrow(anchor, template, threads, among)
    # A record that does not say where it was measured counts as one of this processor.
    measured = "tuned" if exact is None or exact.cpu in ("", records.cpu) else "elsewhere"
    found = [(r, name) for r, name in ((exact, measured), (same, "borrowed")) if r is not None]
    found.sort(key=lambda pair: pair[0].predicted)
    return [(r.decision, "predicted" if r.predicted else name) for r, name in found]


def _general(template: Template, target: Target) -> list[Template]:
    """Returns the templates that are asked after one."""
    every = list(templates(target))
    return every[every.index(template) + 1 :] or every[-1:]


def _apply(template: Template, func: Any, workload: Workload, decision: Decision) -> tirx.PrimFunc:
    return template.apply(func, workload, decision).mod["main"]
