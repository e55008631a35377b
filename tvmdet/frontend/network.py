"""One loaded network at any batch size, each made once and proven."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx
import tvm

from tvmdet.errors import InputError, ModelError, ShapeError, TvmdetError
from tvmdet.frontend.importer import import_relax
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import LoadedModel
from tvmdet.frontend.onnx_tools import graph_inputs, input_summary, unforeseen, value_summary
from tvmdet.frontend.prove import Proof, prove_equal
from tvmdet.frontend.quantised import (
    MULTIPLIED,
    PAIRED,
    ROUNDED,
    integers_left_out,
    prove_products,
    rounding_left_out,
)
from tvmdet.frontend.rebatch import prove_batch, rewrite_batch
from tvmdet.frontend.specialise import (
    input_shapes,
    record_outputs,
    specialise,
    with_input_shapes,
)
from tvmdet.heads.base import ROW_COUNTS

__all__ = ["Network"]


class Network:
    """A loaded model of one input size; safe to use from several threads."""

    def __init__(
        self, loaded: LoadedModel, size_hw: tuple[int, int] | None, limits: Limits
    ) -> None:
        """Keeps what is needed to specialise the model later."""
        self.loaded = loaded
        self._size_hw = size_hw
        self._limits = limits
        self._made: dict[int, onnx.ModelProto] = {}
        self._proofs: list[Proof] = []
        self._notes: list[str] = []
        self._imported: dict[int, tvm.IRModule] = {}
        self._lock = threading.RLock()

    @classmethod
    def of_static(cls, static: onnx.ModelProto, opset: int) -> Network:
        """Returns a network that is taken as it is: static, simplified, every node named."""
        version = int(static.ir_version)
        loaded = LoadedModel(
            name="network", proto=static, sha256="", opset=opset, ir_version=version
        )
        network = cls(loaded, None, Limits())
        network._made[1] = static
        return network

    def __getstate__(self) -> dict[str, Any]:
        """Returns what another process needs to go on: all but the lock and TVM's objects."""
        with self._lock:
            return {**self.__dict__, "_lock": None, "_imported": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`__getstate__` returned."""
        self.__dict__.update(state)
        self._lock = threading.RLock()

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the export fixes, or None when it is open."""
        for value in graph_inputs(self.loaded.proto.graph):
            summary = input_summary(value)
            if summary is not None and summary.shape and summary.shape[0] is not None:
                return summary.shape[0]
        return None

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """What was measured of every rewrite so far, in their order."""
        with self._lock:
            return tuple(self._proofs)

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the file was changed on purpose, for people."""
        with self._lock:
            return tuple(self._notes)

    def at(self, batch_size: int) -> onnx.ModelProto:
        """Returns the network at a batch size: static, simplified, proven by ONNX Runtime.

        The model is shared between callers and not to be changed.

        Raises:
            InputError: The batch size is not 1 or more.
            ShapeError: The export does not work at this batch size; names the node.
            ModelError: The network cannot be simplified.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch size is {batch_size!r}; allowed: 1 or more")
        if self.loaded.one_image and batch_size > 1:
            raise ShapeError(
                f"the export does not work at batch {batch_size}: its picture has no batch "
                "dimension, as torchvision's detectors take them; allowed: batch 1"
            )
        with self._lock:
            if batch_size not in self._made:
                self._made[batch_size] = self._make(batch_size)
            return self._made[batch_size]

    def relax_at(self, batch_size: int) -> tvm.IRModule:
        """Returns the network as Relax at a batch size, as :func:`import_relax` does.

        The last two are kept: the doctor looks at a network and lowers it, and a build lowers it,
        and the network of one picture, for every target.

        Raises:
            UnsupportedOperatorError: Nodes cannot be imported; names them.
        """
        with self._lock:
            module = self._imported.pop(batch_size, None)
            if module is None:
                module = import_relax(self.at(batch_size), self.loaded.opset)
                while len(self._imported) > 1:
                    del self._imported[next(iter(self._imported))]
            self._imported[batch_size] = module  # the last one used is the last to go
            return module

    def _make(self, batch_size: int) -> onnx.ModelProto:
        """Makes the network at a batch size.

        The one boundary of every rewrite and proof: what they raise on a graph that the checker
        lets pass, though it breaks the standard, becomes an error of the model here.
        """
        try:
            return self._made_and_proven(batch_size)
        except TvmdetError:
            raise
        except Exception as error:  # ONNX, NumPy and our own rules on what nobody foresaw
            raise unforeseen("the network cannot be made static", error) from error

    def _made_and_proven(self, batch_size: int) -> onnx.ModelProto:
        native = self.fixed_batch or 1
        if batch_size == native:
            return self._specialise(batch_size)
        one = self.at(native)
        if any(entry.key == ROW_COUNTS for entry in one.metadata_props):
            pictures = [value_summary(value) for value in graph_inputs(one.graph)]
            if batch_size == 1 and [len(p.shape) for p in pictures if p is not None] == [3]:
                return one  # one picture without a dimension of images
            raise ShapeError(
                f"the export does not work at batch {batch_size}: it chooses its boxes itself, as "
                f"many as the image shows; allowed: batch {native}; for larger batches export the "
                "detector without its non-maximum suppression"
            )
        refused: ModelError | None = None
        if self.fixed_batch is None:
            proven = len(self._proofs)
            try:
                many = self._specialise(batch_size)
                self._proofs.append(prove_batch(one, many))
            except ModelError as error:
                # The axis is called dynamic, but nodes fix it: rewrite them.
                refused = error
                del self._proofs[proven:]
            else:
                return many
        try:
            many = rewrite_batch(one, batch_size)
            self._proofs.append(prove_batch(one, many))
        except ModelError as error:
            raise error from refused or error.__cause__
        record_outputs(many)
        return many

    def _specialise(self, batch_size: int) -> onnx.ModelProto:
        proto = self.loaded.proto
        shapes = input_shapes(proto, batch_size=batch_size, size_hw=self._size_hw)
        batches = {shape[0] for shape in shapes.values() if shape}
        if len(batches) > 1 and batch_size > 1:
            raise ShapeError(f"the inputs have different first dimensions: {shapes}")
        if self.loaded.earlier:
            self._compare_with_export(shapes)
        return specialise(proto, shapes, self._limits, self._proofs.append)

    def _compare_with_export(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Proves what was done to the file when it was loaded, once."""
        loaded = self.loaded
        names = [value.name for value in loaded.proto.graph.output]
        models = [*(one.model for one in loaded.earlier), loaded.proto]
        made = [with_input_shapes(one, shapes) for one in models]
        for one, before, after in zip(loaded.earlier, made, made[1:], strict=False):
            if one.proof is not None:
                self._proofs.append(one.proof)
            elif one.rewrite == ROUNDED:
                self._notes.append(rounding_left_out(before, after))
            elif one.rewrite == PAIRED:
                self._notes.append(integers_left_out(before, after))
            elif one.rewrite == MULTIPLIED:
                self._proofs.append(prove_products(before, after))
            else:
                self._proofs.append(prove_equal(one.rewrite, before, after, names))
        self.loaded = replace(loaded, earlier=())
