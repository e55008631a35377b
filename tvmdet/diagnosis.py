"""What the doctor found: plain frozen values, printable and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Diagnosis", "NodeVerdict", "Proof", "Shrunk", "Verdict"]

Verdict = Literal["imports", "rewritten", "blocks"]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What ONNX Runtime measured before and after a rewrite.

    Attributes:
        rewrite: What was done to the network.
        differences: For each output that was compared the largest difference, relative to the
            largest value of the output.
        inputs: What the network was run on.
    """

    rewrite: str
    differences: Mapping[str, float]
    inputs: tuple[str, ...]

    @property
    def largest(self) -> float:
        """The largest difference of any output."""
        return max(self.differences.values(), default=0.0)


@dataclass(frozen=True, kw_only=True)
class NodeVerdict:
    """What becomes of one node.

    Attributes:
        node: The node's name in the file.
        operator: Its operator type.
        verdict: ``imports`` as it is, ``rewritten`` on the way, or ``blocks``.
        detail: Which rewrite; or why it blocks and what to do in the exporter.
        difference: Of a rewritten node, the largest difference that all rewrites together made
            to any output of the network, measured by ONNX Runtime; None where only the parity
            check of the compiled network can tell.
    """

    node: str
    operator: str
    verdict: Verdict
    detail: str = ""
    difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """The smallest part of a network that fails or differs, or why there is none.

    Attributes:
        summary: All of it in one line.
        path: The file that holds the part; None when nothing was written.
        operators: Operator types of its nodes, in order.
        failure: What it shows.
        seed: Of its random weights, and of the inputs that show it.
        attempts: How many candidates were compiled.
        complete: Whether the search ended by itself, not by its budget.
        command: What shows the failure again.
    """

    summary: str
    path: str | None = None
    operators: tuple[str, ...] = ()
    failure: str = ""
    seed: int | None = None
    attempts: int = 0
    complete: bool = False
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What imports, what is rewritten, and what blocks.

    Attributes:
        path: The file as it was given.
        problems: What keeps the model from being compiled, one message each; empty when
            nothing does.
        producer: Name and version of the exporter.
        ir_version: Version of the file format.
        opset: Version of the default operator set.
        sha256: Digest of the file and its external data.
        family: The recognised family, or None.
        recognition: What was recognised and why, one fact a line.
        size_hw: Height and width that the diagnosis was made at.
        inputs: Inputs as exported, such as ``[?, 3, ?, ?] float32``.
        outputs: Outputs at batch 1 and ``size_hw``.
        operators: How often each operator type occurs in the file.
        nodes: The verdict on every node of the file.
        proofs: What ONNX Runtime measured of every rewrite.
        notes: What of the file is changed on purpose, and by how much that moves its outputs.
        compared: Per output, the largest difference between ONNX Runtime and the compiled
            network, relative to the output's largest value; None unless it was asked for.
        saved: The file that holds the rewritten network, if one was asked for.
        shrunk: The smallest part that shows a failure, if one was asked for.
        static: Whether every shape is known at ``size_hw``.
        batch: What other batch sizes do: how they are reached and whether that is proven.
        batchable: Whether a larger batch was proven equal to single images; None if unknown.
        parameters: Stored floating-point values of the simplified network.
        gflops: 1e9 multiplications and additions per image, of convolutions and matrix
            products.
    """

    path: str
    problems: tuple[str, ...] = ()
    producer: str = ""
    ir_version: int | None = None
    opset: int | None = None
    sha256: str | None = None
    family: str | None = None
    recognition: tuple[str, ...] = ()
    size_hw: tuple[int, int] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    nodes: tuple[NodeVerdict, ...] = ()
    proofs: tuple[Proof, ...] = ()
    notes: tuple[str, ...] = ()
    compared: Mapping[str, float] | None = None
    saved: str | None = None
    shrunk: Shrunk | None = None
    static: bool = False
    batch: str = ""
    batchable: bool | None = None
    parameters: int | None = None
    gflops: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the model compiles as a detector."""
        return not self.problems

    def count(self, verdict: Verdict) -> int:
        """Returns how many nodes have a verdict."""
        return sum(node.verdict == verdict for node in self.nodes)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values, with ``ok`` added."""
        return {"ok": self.ok, **dataclasses.asdict(self)}
