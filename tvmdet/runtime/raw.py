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
from tvmdet.runtime.native import aligned_empty

__all__ = ["RawRunner"]

Arrays: TypeAlias = tuple[npt.NDArray[Any], ...]
Submit: TypeAlias = Callable[[str, Arrays], Future[Arrays]]


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def from_manifest(cls, described: Mapping[str, Any]) -> _Tensor:
        return cls(
            name=described["name"],
            shape=tuple(described["shape"]),
            dtype=np.dtype(described["dtype"]),
        )

    def __str__(self) -> str:
        dims = ", ".join(["n", *(str(side) for side in self.shape[1:])])
        return f"[{dims}] {self.dtype}"


class RawRunner:
    """Checks the inputs of a network, runs it in batches and joins its outputs."""

    def __init__(
        self,
        described: Mapping[str, Any],
        batch_sizes: Sequence[int],
        submit: Submit,
        *,
        name: str,
    ) -> None:
        """Takes the network's description.

        Args:
            described: ``raw`` of the manifest.
            batch_sizes: The compiled batch sizes.
            submit: Starts a compiled function on arrays.
            name: The file, for error messages.
        """
        self._inputs = tuple(_Tensor.from_manifest(entry) for entry in described["inputs"])
        self._outputs = tuple(_Tensor.from_manifest(entry) for entry in described["outputs"])
        self._batch_sizes = tuple(batch_sizes)
        self._submit = submit
        self._name = name

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Returns the outputs by name, in arrays that the caller owns.

        Raises:
            InputError: An input is missing, unknown or does not fit.
        """
        count = self._check(inputs)
        parts: list[Arrays] = []
        taken = 0
        for batch in plan_batches(count, self._batch_sizes):
            stop = taken + batch.images
            arguments = tuple(
                self._stage(inputs[tensor.name][taken:stop], tensor, batch.size)
                for tensor in self._inputs
            )
            outputs = self._submit(f"run_b{batch.size}", arguments).result()
            parts.append(tuple(output[: batch.images] for output in outputs))
            taken = stop
        return {
            tensor.name: self._join([part[index] for part in parts], tensor)
            for index, tensor in enumerate(self._outputs)
        }

    def _check(self, inputs: Mapping[str, npt.NDArray[Any]]) -> int:
        known = ", ".join(f"{tensor.name} {tensor}" for tensor in self._inputs)
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs is a {type(inputs).__name__}; give a dict of: {known}")
        for name in inputs:
            if name not in [tensor.name for tensor in self._inputs]:
                raise InputError(f"{self._name} has no input {name!r}; its inputs: {known}")
        counts = set()
        for tensor in self._inputs:
            if tensor.name not in inputs:
                raise InputError(f"input {tensor.name!r} is missing; needed: {known}")
            array = inputs[tensor.name]
            if not isinstance(array, np.ndarray):
                raise InputError(
                    f"input {tensor.name!r} is a {type(array).__name__}; "
                    f"needed: a numpy array {tensor}"
                )
            got = f"{list(array.shape)} {array.dtype}"
            if array.dtype != tensor.dtype:
                raise InputError(
                    f"input {tensor.name!r} is {got}; needed: {tensor} "
                    f"(array.astype({tensor.dtype.name!r}))"
                )
            if array.ndim != len(tensor.shape) or array.shape[1:] != tensor.shape[1:]:
                raise InputError(f"input {tensor.name!r} is {got}; needed: {tensor}")
            counts.add(array.shape[0])
        if len(counts) != 1:
            raise InputError(f"the inputs have batches of {sorted(counts)}; needed: one size")
        return int(counts.pop())

    @staticmethod
    def _stage(part: npt.NDArray[Any], tensor: _Tensor, size: int) -> npt.NDArray[Any]:
        staged = aligned_empty((size, *tensor.shape[1:]), tensor.dtype)
        staged[: len(part)] = part
        staged[len(part) :] = 0
        return staged

    @staticmethod
    def _join(parts: list[npt.NDArray[Any]], tensor: _Tensor) -> npt.NDArray[Any]:
        if not parts:
            return np.zeros((0, *tensor.shape[1:]), dtype=tensor.dtype)
        if len(parts) > 1:
            return np.concatenate(parts)
        # A part of a padded batch is a view that would keep the padding alive.
        return parts[0] if parts[0].base is None else parts[0].copy()
