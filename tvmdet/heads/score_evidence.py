"""Whether class outputs are scores or logits, as far as the network itself proves it.

A sigmoid too many is no error that anybody sees: scores of 0 to 1 become 0.5 to 0.73. So an
output counts as scores only where its values are proven to lie from 0 to 1, whatever made them (a
Sigmoid, its product with a quality, a Clip behind it), as logits only where it is straight from
convolutions or linear layers; of anything else the user is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tvmdet.heads.base import ColumnRun, GraphSummary, Question
from tvmdet.heads.options import choice

__all__ = [
    "SCORE_ACTIVATIONS",
    "activation_question",
    "are_logits",
    "are_scores",
    "choose_activation",
    "find_activation",
]

SCORE_ACTIVATIONS = ("none", "sigmoid")
"""What ``options.score_activation`` may be, in families whose scores are sigmoids."""

_BOUNDED = ({"Sigmoid"}, {"Softmax"}, {"HardSigmoid"})
_MIXING = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
# What may stand between a linear layer and its output without a bound: biases, scales, norms.
_LINEAR = _MIXING | {"Add", "BatchNormalization", "Div", "Mul", "Sub"}


def find_activation(summary: GraphSummary, names: Sequence[str], usual: str) -> str | None:
    """Returns what is left to do to class outputs.

    Args:
        summary: The network.
        names: Outputs of one kind, such as the class scores of all levels.
        usual: What makes scores of this family's logits.

    Returns:
        ``none`` where all outputs are scores, ``usual`` where all are logits, or None.
    """
    if all(are_scores(summary, name) for name in names):
        return "none"
    return usual if all(are_logits(summary, name) for name in names) else None


def choose_activation(
    summary: GraphSummary, names: Sequence[str], family: str, options: Mapping[str, Any]
) -> str | Question:
    """Returns what the spec or the network says of a sigmoid after the scores, or asks.

    Args:
        summary: The network.
        names: The outputs of the scores.
        family: The family that asks.
        options: Of the spec; ``score_activation`` counts.

    Raises:
        InputError: ``options.score_activation`` is none of :data:`SCORE_ACTIVATIONS`.
    """
    key = "score_activation"
    found = choice(options, key, SCORE_ACTIVATIONS) or find_activation(summary, names, "sigmoid")
    return found or activation_question(summary, names, family, "sigmoid", key)


def are_scores(
    summary: GraphSummary, name: str, *, axis: int | None = None, stop: int | None = None
) -> bool:
    """Returns whether values are proven to lie from 0 to 1.

    Args:
        summary: The network.
        name: The output.
        axis: Axis of the classes, where the output holds more than classes.
        stop: One past the last class along it.
    """
    if axis is not None:
        return _holds(summary, name, axis, stop, lambda run: run.is_score)
    ranges = summary.output_ranges.get(name, ())
    if ranges and all(one.is_unit for one in ranges):
        return True
    if set(summary.output_sources.get(name, ())) in _BOUNDED:
        return True
    return any(
        _holds(summary, name, own, None, lambda run: run.is_score) for own in _axes(summary, name)
    )


def are_logits(
    summary: GraphSummary, name: str, *, axis: int | None = None, stop: int | None = None
) -> bool:
    """Returns whether values are straight from convolutions or linear layers, without a bound."""
    if axis is not None:
        return _holds(summary, name, axis, stop, _is_linear)
    sources = summary.output_sources.get(name, frozenset())
    if sources and sources <= _MIXING:
        return True
    return any(_holds(summary, name, own, None, _is_linear) for own in _axes(summary, name))


def activation_question(
    summary: GraphSummary, names: Sequence[str], family: str, usual: str, key: str, text: str = ""
) -> Question:
    """Asks whether outputs are scores already.

    Args:
        summary: The network.
        names: The outputs.
        family: The family that asks.
        usual: What makes scores of this family's logits.
        key: The option that answers.
        text: Further lines of the spec's options.
    """
    made = sorted(set().union(*(summary.output_sources.get(name, ()) for name in names)))
    by = f"come from {', '.join(made)}" if made else "come from unknown operators"
    return Question(
        f"{', '.join(names)} {by}, which proves neither scores from 0 to 1 nor logits: say "
        "whether an activation is left to do",
        spec_text=f'family = "{family}"\n[options]\n{text}{key} = "none"   # or "{usual}"',
    )


def _axes(summary: GraphSummary, name: str) -> range:
    return range(1, len(summary.outputs[name].shape))


def _holds(
    summary: GraphSummary,
    name: str,
    axis: int,
    stop: int | None,
    is_so: Callable[[ColumnRun], bool],
) -> bool:
    """Returns whether something is known of all columns of an axis, and holds of each."""
    size = stop if stop is not None else int(summary.outputs[name].shape[axis] or 0)
    runs = summary.column_runs(name, axis, 0, size)
    return sum(run.stop - run.start for run in runs) == size > 0 and all(map(is_so, runs))


def _is_linear(run: ColumnRun) -> bool:
    unbounded = run.low == float("-inf") and run.high == float("inf")
    return unbounded and bool(run.operators & _MIXING) and run.operators <= _LINEAR
