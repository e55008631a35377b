"""A detector as the rest of the package sees it: network, spec, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tvmdet.frontend.network import Network
from tvmdet.spec import DetectorSpec

if TYPE_CHECKING:
    import onnx
    import tvm

__all__ = ["Model"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """An imported detector, or a raw network.

    Attributes:
        name: The file's name without its suffix.
        sha256: Digest of the ONNX file and its external data.
        spec: Everything around the network; family ``raw`` for one without a head.
        recognition: What was recognised and why, one fact a line.
        input_names: ONNX inputs, in the order of ``main``'s parameters.
        output_names: ONNX outputs, in the order that ``main`` returns them.
    """

    name: str
    sha256: str
    spec: DetectorSpec
    recognition: tuple[str, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    network: Network = field(repr=False)

    def onnx_at(self, batch_size: int) -> onnx.ModelProto:
        """Returns the network as ONNX at a batch size: static, simplified, proven.

        The model is cached and shared; copy it before changing it.

        Raises:
            InputError: The batch size is not 1 or more.
            ShapeError: The export does not work at this batch size; names the node.
        """
        return self.network.at(batch_size)

    def relax_at(self, batch_size: int) -> tvm.IRModule:
        """Returns the network as Relax at a batch size, without a head.

        ``main`` takes the ONNX inputs and returns the ONNX output, or a tuple of them, in
        one dataflow block of simple bindings, in ONNX's NCHW layout. The module is shared; not
        to be changed in place.

        Raises:
            InputError: The batch size is not 1 or more.
            ShapeError: The export does not work at this batch size; names the node.
            UnsupportedOperatorError: Nodes cannot be imported; names them.
        """
        return self.network.relax_at(batch_size)
