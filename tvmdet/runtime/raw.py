"""Networks compiled without a head: named arrays in, named arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvmdet.errors import InputError
from tvmdet.runtime.batches import plan_batches
from tvmdet.runtime.memory import is_readable_in_place, recycled_empty

__all__ = ["RawRunner", "RawSignature", "RawTensor"]

Arrays: TypeAlias = tuple[npt.NDArray[Any], ...]
Run: TypeAlias = Callable[[str, Arrays], Future[Arrays]]


@dataclass(frozen=True, kw_only=True)
class RawTensor:
    """One input or output of a network.

    Attributes:
        name: As the network names it.
        shape: For one item.
        dtype: Of its elements.
        batched: Whether the first dimension is the batch.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batched: bool

    @classmethod
    def from_manifest(cls, described: Mapping[str, Any]) -> RawTensor:
        """Reads an entry of the manifest's ``raw``.

        Raises:
            KeyError, TypeError, ValueError: The entry is malformed.
        """
        name, shape = described["name"], described["shape"]
        batched = described.get("batched", shape[:1] == [1])
        if not isinstance(name, str) or not isinstance(batched, bool):
            raise TypeError(f"the tensor {name!r} has batched {batched!r}")
        if any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"the tensor {name!r} has shape {shape!r}")
        if batched and shape[:1] != [1]:
            raise ValueError(f"the tensor {name!r} has shape {shape!r}, and yet a batch of 1")
        dtype = np.dtype(described["dtype"])
        return cls(name=name, shape=tuple(shape), dtype=dtype, batched=batched)

    def __str__(self) -> str:
        """Returns shape and type, as ``[n, 3, 5] float32``."""
        sides = [str(side) for side in self.shape]
        if self.batched:
            sides[0] = "n"
        return f"[{', '.join(sides)}] {self.dtype}"


@dataclass(frozen=True, kw_only=True)
class RawSignature:
    """Inputs and outputs of a network.

    Attributes:
        inputs: In the order of the compiled function's arguments.
        outputs: In the order of its results.
        batch_sizes: The compiled batch sizes that can be used.
        one_by_one: Whether some tensor has no batch dimension: one call runs one item then.
    """

    inputs: tuple[RawTensor, ...]
    outputs: tuple[RawTensor, ...]
    batch_sizes: tuple[int, ...]
    one_by_one: bool

    @classmethod
    def from_manifest(
        cls, described: Mapping[str, Any], batch_sizes: Sequence[int]
    ) -> RawSignature:
        """Reads ``raw`` of the manifest.

        Raises:
            KeyError, TypeError, ValueError: It is malformed.
        """
        inputs = tuple(RawTensor.from_manifest(entry) for entry in described["inputs"])
        outputs = tuple(RawTensor.from_manifest(entry) for entry in described["outputs"])
        whole = [tensor.name for tensor in (*inputs, *outputs) if not tensor.batched]
        if whole and 1 not in batch_sizes:
            raise ValueError(
                f"{', '.join(whole)} has no batch dimension, and the batch sizes are "
                f"{list(batch_sizes)} without 1"
            )
        return cls(
            inputs=inputs,
            outputs=outputs,
            batch_sizes=(1,) if whole else tuple(batch_sizes),
            one_by_one=bool(whole),
        )


class RawRunner:
    """Checks the inputs of a network, runs it in batches and joins its outputs."""

    def __init__(self, signature: RawSignature, run: Run, name: str) -> None:
        """Takes the network's description.

        Args:
            signature: Its inputs and outputs.
            run: Runs a compiled function on arrays; its result is waited for.
            name: The file, for error messages.
        """
        self._inputs = signature.inputs
        self._outputs = signature.outputs
        self._batch_sizes = signature.batch_sizes
        self._one_by_one = signature.one_by_one
        self._run = run
        self._name = name

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Returns the outputs by name, in arrays that the caller owns.

        Inputs are read where they lie if they are C-contiguous, writable, on a 64-byte boundary
        and a whole compiled batch; others are copied. PyTorch's CPU tensors lie on one.

        Raises:
            InputError: An input is missing, unknown or does not fit.
        """
        self._check(inputs)
        if self._one_by_one:
            return self._run_whole(inputs)
        count = self._count(inputs)
        parts: list[Arrays] = []
        taken = 0
        for batch in plan_batches(count, self._batch_sizes):
            stop = taken + batch.images
            arguments = tuple(
                self._stage(inputs[tensor.name][taken:stop], tensor, batch.size)
                for tensor in self._inputs
            )
            outputs = self._run(f"run_b{batch.size}", arguments).result()
            full = batch.images == batch.size
            parts.append(outputs if full else tuple(o[: batch.images].copy() for o in outputs))
            taken = stop
        return {
            tensor.name: self._join([part[index] for part in parts], tensor)
            for index, tensor in enumerate(self._outputs)
        }

    def _run_whole(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        arguments = []
        for tensor in self._inputs:
            staged = recycled_empty(tensor.shape, tensor.dtype)
            staged[...] = inputs[tensor.name]
            arguments.append(staged)
        outputs = self._run("run_b1", tuple(arguments)).result()
        return {tensor.name: outputs[index] for index, tensor in enumerate(self._outputs)}

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> None:
        known = ", ".join(f"{tensor.name} {self._wanted(tensor)}" for tensor in self._inputs)
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs is a {type(inputs).__name__}; give a dict of: {known}")
        for name in inputs:
            if name not in [tensor.name for tensor in self._inputs]:
                raise InputError(f"{self._name} has no input {name!r}; its inputs: {known}")
        for tensor in self._inputs:
            if tensor.name not in inputs:
                raise InputError(f"input {tensor.name!r} is missing; needed: {known}")
            self._check_one(inputs[tensor.name], tensor)

    def _check_one(self, array: npt.NDArray[Any], tensor: RawTensor) -> None:
        wanted = self._wanted(tensor)
        if not isinstance(array, np.ndarray):
            raise InputError(
                f"input {tensor.name!r} is a {type(array).__name__}; needed: a numpy array {wanted}"
            )
        got = f"{list(array.shape)} {array.dtype}"
        if array.dtype != tensor.dtype:
            raise InputError(
                f"input {tensor.name!r} is {got}; needed: {wanted} "
                f"(array.astype({tensor.dtype.name!r}))"
            )
        # One by one, a batch of 1 is part of the shape.
        fixed = 0 if self._one_by_one else 1
        if array.ndim != len(tensor.shape) or array.shape[fixed:] != tensor.shape[fixed:]:
            raise InputError(f"input {tensor.name!r} is {got}; needed: {wanted}")

    def _wanted(self, tensor: RawTensor) -> str:
        if self._one_by_one:
            return f"{list(tensor.shape)} {tensor.dtype}"
        return str(tensor)

    def _count(self, inputs: Mapping[str, npt.NDArray[Any]]) -> int:
        counts = {inputs[tensor.name].shape[0] for tensor in self._inputs}
        if len(counts) > 1:
            raise InputError(f"the inputs have batches of {sorted(counts)}; needed: one size")
        # A network without inputs has one answer.
        return int(counts.pop()) if counts else 1

    @staticmethod
    def _stage(part: npt.NDArray[Any], tensor: RawTensor, size: int) -> npt.NDArray[Any]:
        if len(part) == size and is_readable_in_place(part):
            return part
        staged = recycled_empty((size, *tensor.shape[1:]), tensor.dtype)
        staged[: len(part)] = part
        staged[len(part) :] = 0
        return staged

    @staticmethod
    def _join(parts: list[npt.NDArray[Any]], tensor: RawTensor) -> npt.NDArray[Any]:
        if not parts:
            return np.zeros((0, *tensor.shape[1:]), dtype=tensor.dtype)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
