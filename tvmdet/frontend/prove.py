"""Proofs by ONNX Runtime that a rewritten network still computes the same.

A proof is a measurement: the largest difference of every output, on random values and on
pictures of smooth shapes, which reach other branches of a network than noise does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from tvmdet.counted import counted
from tvmdet.diagnosis import Proof
from tvmdet.differences import scale_of
from tvmdet.errors import ModelError
from tvmdet.frontend.onnx_tools import first_line, graph_inputs, names_read, value_summary
from tvmdet.frontend.probe_pictures import draw_probe
from tvmdet.rows import in_reference_order
from tvmdet.steps import reached

__all__ = [
    "TOLERANCE",
    "Proof",
    "differences",
    "differing_output",
    "picture_feeds",
    "probes",
    "prepare_onnx",
    "prove_equal",
    "random_feeds",
    "run_onnx",
]

# Largest difference of two equal networks, relative to the largest value of the output. Other
# blocking at another batch size changes float32 sums by about 1e-6 of that; a mixed-up batch
# or a wrong fold changes them by about 1.
TOLERANCE = 1e-4


def random_feeds(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random values for the inputs of a static model.

    Floats are uniform in [0, 1), as normalised pixels are; integers are 0 to 127 or 255.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in graph_inputs(model.graph):
        summary = value_summary(value)
        assert summary is not None and None not in summary.shape  # specialised before
        shape = tuple(int(dim or 0) for dim in summary.shape)
        dtype = np.dtype(summary.dtype)
        if dtype.kind == "f":
            feeds[value.name] = rng.random(shape).astype(dtype)
        else:
            highest = {"b": 2, "i": 128}.get(dtype.kind, 256)
            feeds[value.name] = rng.integers(0, highest, shape).astype(dtype)
    return feeds


def run_onnx(
    model: onnx.ModelProto, feeds: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Runs a model on the CPU, once for each set of inputs.

    Returns:
        The outputs by name, one dictionary for each set of inputs.

    Raises:
        ModelError: ONNX Runtime cannot load or run it; names the node when it says which.
    """
    run = prepare_onnx(model)
    return [run(feed) for feed in feeds]


def prepare_onnx(
    model: onnx.ModelProto,
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """Loads a model on the CPU, once for many runs.

    Returns:
        A function from a set of inputs to the outputs by name. It raises ModelError where ONNX
        Runtime cannot run the model.

    Raises:
        ModelError: ONNX Runtime cannot load it; names the node when it says which.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Fusions would hide a difference between two graphs behind one kernel.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    names = [value.name for value in model.graph.output]
    reached(f"ONNX Runtime runs a network of {counted(len(model.graph.node), 'node')}")
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its own exceptions share no base but Exception
        raise _cannot_run(error) from error

    def run(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            result = session.run(names, dict(feed))
        except Exception as error:  # as above
            raise _cannot_run(error) from error
        return dict(zip(names, map(np.asarray, result), strict=True))

    return run


def _cannot_run(error: Exception) -> ModelError:
    node = re.search(r"Name:\s*'([^']*)'", str(error))
    where = f"at node {node[1]!r}: " if node else ""
    advice = "export the model again, or check it with onnx.checker"
    if "shape" in str(error).lower():
        advice = f"where a --size was given, try multiples of 32; else {advice}"
    return ModelError(f"ONNX Runtime cannot run the model {where}{first_line(error)}; {advice}")


def picture_feeds(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns pictures of smooth shapes for the image inputs of a static model.

    Floats lie in [0, 1], as normalised pixels do, integers in the range of their type up to
    255; inputs that are no images are random, as :func:`random_feeds` makes them.
    """
    feeds = random_feeds(model, seed)
    rng = np.random.default_rng(seed)
    for name, values in feeds.items():
        if values.ndim in (3, 4) and values.dtype.kind in "fu" and values.size:
            picture = draw_probe(values.shape, rng)
            scale = 1.0 if values.dtype.kind == "f" else 255.0
            feeds[name] = (picture * scale).astype(values.dtype)
    return feeds


def probes(model: onnx.ModelProto, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Returns the inputs that a proof runs a static model on, by what they are called."""
    return {
        f"random values (seed {seed})": random_feeds(model, seed),
        f"smooth shapes (seed {seed})": picture_feeds(model, seed),
    }


def prove_equal(
    rewrite: str,
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    names: Sequence[str],
    keep: Callable[[str, dict[str, np.ndarray]], object] | None = None,
) -> Proof:
    """Measures how far a rewritten network is from what it was.

    Rows that a TopK chose by values that are alike may change places, the same rows of all outputs,
    where all of these depend on it: which of them comes first is a matter of rounding. Where scores
    are close to 0 for all inputs, the values that their sigmoid is of are compared, too: the scores
    themselves hold little but its rounding.

    Args:
        rewrite: What was done, for people.
        before: The network, with static input shapes.
        after: The rewritten one, with the same inputs.
        names: The outputs to compare.
        keep: Called with each of the :func:`probes` by name, and what ``after`` gave for it.

    Raises:
        ModelError: An output differs by more than :data:`TOLERANCE`; names it, and the inputs.
    """
    feeds = probes(after)
    expected = run_onnx(before, list(feeds.values()))
    got = run_onnx(after, list(feeds.values()))
    largest = dict.fromkeys(names, 0.0)

    def measure(name: str, inputs: str, difference: float) -> None:
        if not difference <= TOLERANCE:
            raise ModelError(
                f"a rewrite changed output {name!r}: {rewrite}; on {inputs} ONNX Runtime gives "
                f"other values before and after (relative difference {difference:.3g}, allowed "
                f"{TOLERANCE:g}); this model cannot be used safely: please report it"
            )
        largest[name] = max(largest[name], difference)

    described = []
    for (inputs, feed), left, right in zip(feeds.items(), expected, got, strict=True):
        settled, moved = _settled(before, feed, left, right, names)
        for name, difference in differences(left, settled, names).items():
            measure(name, inputs, difference)
        rows = f": {counted(moved, 'row')} of equal rank moved" if moved else ""
        described.append(f"{inputs}{rows}")
        if keep is not None:
            keep(inputs, right)
    faint = [name for name in names if all(_is_faint(values[name]) for values in got)]
    logits = [(name, _logit(before, name), _logit(after, name)) for name in faint]
    known = [(name, old, new) for name, old, new in logits if old and new]
    if known:
        olds, news = (
            _run_inside(model, [pair[at] for pair in known], list(feeds.values()))
            for at, model in ((1, before), (2, after))
        )
        for inputs, left, right in zip(feeds, olds, news, strict=True):
            for name, old, new in known:
                measure(name, inputs, _difference(left[old], right[new]))
    return Proof(rewrite=rewrite, differences=largest, inputs=tuple(described))


def _settled(
    before: onnx.ModelProto,
    feed: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    names: Sequence[str],
) -> tuple[Mapping[str, np.ndarray], int]:
    """Returns outputs whose rows have the order of ``expected`` again, and how many were moved."""
    if differing_output(expected, got, names) is None:
        return got, 0
    above = _sorters_above(before.graph)
    sorters = sorted(frozenset().union(*(above.get(name, ()) for name in expected)))
    if not sorters:
        return got, 0
    (chosen,) = _run_inside(before, sorters, [feed])

    def ranked(outputs: Sequence[str]) -> list[np.ndarray]:
        shared = frozenset(sorters).intersection(*(above.get(name, ()) for name in outputs))
        # A later one sorts anew what an earlier one has sorted.
        last = [name for name in shared if not any(name in above[one] for one in shared - {name})]
        values = [chosen[name] for name in last]
        rows = expected[outputs[0]].shape[:2]
        return values if all(one.shape == rows for one in values) else []

    return in_reference_order(got, expected, TOLERANCE, ranked)


def _sorters_above(graph: onnx.GraphProto) -> dict[str, frozenset[str]]:
    """Returns the values of the TopKs that each value depends on; their own are among them."""
    above: dict[str, frozenset[str]] = {}
    for node in graph.node:
        sorters = frozenset().union(*(above.get(name, ()) for name in names_read(node)))
        if node.op_type == "TopK":
            sorters |= {node.output[0]}
        above.update((name, sorters) for name in node.output if name)
    return above


def _is_faint(values: np.ndarray) -> bool:
    """Returns whether values are scores close to 0, which :func:`scale_of` sees as larger."""
    largest = float(np.abs(values).max(initial=0.0))
    return values.dtype.kind == "f" and largest < scale_of(values)


def _logit(model: onnx.ModelProto, name: str) -> str:
    """Returns what an output is the sigmoid of, or ''."""
    producers = {output: node for node in model.graph.node for output in node.output}
    node = producers.get(name)
    while node is not None and node.op_type == "Identity":
        node = producers.get(node.input[0])
    return str(node.input[0]) if node is not None and node.op_type == "Sigmoid" else ""


def _run_inside(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """Runs a model for values inside it."""
    outputs = list(model.graph.output)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        return run_onnx(model, feeds)
    finally:
        del model.graph.output[:]
        model.graph.output.extend(outputs)


def differing_output(
    expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], names: Sequence[str]
) -> str | None:
    """Returns the first name whose values differ beyond :data:`TOLERANCE`, or None."""
    found = differences(expected, got, names)
    return next((name for name in names if not found[name] <= TOLERANCE), None)


def differences(
    expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, float]:
    """Returns the largest difference of each output, as a share of its size.

    Infinite where shapes, types, integers or the places of infinities differ.
    """
    return {name: _difference(expected[name], got[name]) for name in names}


def _difference(left: np.ndarray, right: np.ndarray) -> float:
    if left.shape != right.shape or left.dtype != right.dtype:
        return math.inf
    if left.dtype.kind != "f":
        return 0.0 if np.array_equal(left, right) else math.inf
    wide, other = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(wide[~finite], other[~finite], equal_nan=True):
        return math.inf
    scale = max(scale_of(left), 1e-6)
    error = float(np.abs(wide[finite] - other[finite]).max(initial=0.0))
    return error / scale if math.isfinite(error) else math.inf
