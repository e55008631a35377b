"""What an ONNX file may ask of this process before it is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tvmdet.errors import InputError

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that are checked before the work that they bound.

    Attributes:
        max_file_bytes: Size of the ONNX file; protobuf itself cannot hold more than 2 GiB.
        max_external_bytes: Sum of the external tensors' sizes, each counted as often as it is
            referenced.
        max_nodes: Nodes in the graph, subgraphs included and functions written out.
        max_tensor_bytes: Size of any single tensor at the static shapes. A file of a few
            bytes can ask for any amount of memory (ConstantOfShape, Expand, Tile).
        max_rows: Rows kept of an output, or found by a suppression, whose number depends on the
            image and which the graph itself does not bound any lower.
        min_opset: Lowest version of the default operator set. Older ones than 11 are converted
            (:mod:`tvmdet.frontend.raise_opset`); ONNX Runtime reads none before 7.
        max_opset: Highest version. Up to 26, changes of the operators that TVM converts are
            new element types; from 27 on, semantics have not been reviewed.
    """

    max_file_bytes: int = 2 * 1024**3
    max_external_bytes: int = 8 * 1024**3
    max_nodes: int = 100_000
    max_tensor_bytes: int = 4 * 1024**3
    max_rows: int = 32_768
    min_opset: int = 7
    max_opset: int = 26

    def __post_init__(self) -> None:
        """Rejects limits that nothing can satisfy."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(
                    f"Limits.{field.name} is {getattr(self, field.name)}; allowed: 1 or more"
                )
        if self.min_opset > self.max_opset:
            raise InputError(
                f"Limits.min_opset {self.min_opset} is above max_opset {self.max_opset}"
            )
