"""Compiled code of a ``.tvmdet`` file on a board, called from here through TVM's RPC."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tvmdet.artifact import Artifact, TargetEntry
from tvmdet.board.kernel_files import KernelFiles
from tvmdet.board.session import BoardAddress, connect
from tvmdet.errors import ArtifactError, InputError
from tvmdet.runtime.native import Arrays, Copy, copy_all

__all__ = ["BoardModule"]

_CPU_DEVICE_TYPE: Final = 1
_POOLED_ALLOCATOR: Final = 2
_BIG_CORES: Final = 1
_LIBRARY: Final = "detector.so"
_CACHE: Final = "tensor-cache.json"
_WEIGHTS: Final = "weights.bin"
_PREFIX: Final = "weight"


class BoardModule:
    """A library that was uploaded to a board: a :class:`tvmdet.runtime.native.Module`.

    Every call sends its arguments and fetches its results; weights are sent once.
    """

    runs_on_any_thread = False

    def __init__(
        self,
        artifact: Artifact,
        target: TargetEntry,
        address: BoardAddress,
        threads: int | None = None,
    ) -> None:
        """Uploads and loads the library of one target.

        Args:
            artifact: An opened file.
            target: One of its targets, which the board can run.
            address: Of the board's RPC server.
            threads: Threads to compute with; None for as many as the server chooses.

        Raises:
            ArtifactError: The file is damaged, or the board cannot load the library.
            TargetError: No TVM RPC server answers.
        """
        import tvm

        self._name = f"{artifact.path} ({target.name}) on {address}"
        library = io.BytesIO()
        artifact.copy_member(target.library, library)
        self._session = connect(address)
        self._address = address
        self._device = self._session.cpu(0)
        self._tensor = tvm.runtime.tensor
        self._functions: dict[str, Any] = {}
        try:
            if threads is not None:
                self._session.get_function("runtime.config_threadpool")(_BIG_CORES, threads)
            self._session.upload(bytearray(library.getvalue()), _LIBRARY)
            self._library = self._session.load_module(_LIBRARY)
            self._executable = self._library["vm_load_executable"]()
            self._executable["vm_initialization"](_CPU_DEVICE_TYPE, 0, _POOLED_ALLOCATOR)
            self._weights = self._send_weights(artifact.map_weights(target))
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise ArtifactError(
                f"{self._name} cannot be loaded: {_telling_line(error)}; the board must have the "
                "kit of this machine's version of TVM (python -m tvmdet.board)"
            ) from error

    def call(
        self, function: str, arguments: Sequence[npt.NDArray[Any]], copy: Copy = copy_all
    ) -> Arrays:
        """Runs a function on the board; see :meth:`tvmdet.runtime.native.NativeModule.call`.

        Raises:
            ArtifactError: The module has no such function, it failed, or the board is gone: it
                ran an instruction that its CPU lacks, say.
            InputError: The module is closed.
        """
        self._check_open()
        try:
            if function not in self._functions:
                self._functions[function] = self._executable[function]
            given = [self._send(array) for array in arguments]
            result = self._functions[function](*given, *self._weights)
            return copy(tuple(tensor.numpy() for tensor in self._tensors(result)))
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise self._failed(function, error) from error

    def timer(self, function: str, arguments: Sequence[npt.NDArray[Any]]) -> Callable[[], float]:
        """Sends arguments, once for many calls, and returns what times one.

        Returns:
            A function that makes one call that is not timed and one that is, and returns the
            seconds of the latter by the board's own clock: nothing of the network is in them.
            It raises ArtifactError where the call fails, or the board is gone.

        Raises:
            ArtifactError: The module has no such function, or the board is gone.
            InputError: The module is closed.
        """
        self._check_open()
        try:
            given = [self._send(array) for array in arguments]
            # TVM's evaluator makes an untimed call before the timed ones.
            evaluate = self._executable.time_evaluator(function, self._device, number=1, repeat=1)
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise self._failed(function, error) from error

        def seconds() -> float:
            self._check_open()
            try:
                return float(evaluate(*given, *self._weights).results[0])
            except Exception as error:  # TVM raises whatever class its C++ side named
                raise self._failed(function, error) from error

        return seconds

    def close(self) -> None:
        """Ends the connection; the board forgets what was uploaded."""
        self._functions.clear()
        self._weights = []
        self._executable = None
        self._library = None
        self._session = None

    def files(self) -> KernelFiles:
        """Returns what the board's kernel tells to the process that runs the code.

        Raises:
            TargetError: The server is not that of this version's board kit.
        """
        self._check_open()
        return KernelFiles(self._session, self._address)

    def _check_open(self) -> None:
        if self._executable is None:
            raise InputError(f"{self._name} is closed; load it again")

    def _failed(self, function: str, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"{self._name} failed in {function}: {_telling_line(error)}; has the board's CPU "
            "what the target needs?"
        )

    def _send(self, array: npt.NDArray[Any]) -> Any:
        return self._tensor(np.ascontiguousarray(array), self._device)

    def _send_weights(self, weights: Sequence[npt.NDArray[Any]]) -> list[Any]:
        """Returns the argument that holds the weights: an array of tensors, made on the board.

        RPC lends the other side tensors for the time of one call. So the weights are uploaded as
        the files of a tensor cache (src/runtime/vm/tensor_cache_support.cc of TVM), which the board
        reads into tensors of its own.
        """
        if not weights:
            return []
        self._session.upload(bytearray(b"".join(a.tobytes() for a in weights)), _WEIGHTS)
        self._session.upload(bytearray(json.dumps(_cache_of(weights)).encode()), _CACHE)
        path = str(self._session.get_function("tvm.rpc.server.workpath")(_CACHE))
        load = self._session.get_function("vm.builtin.tensor_cache.load")
        load(path.removesuffix(f"/{_CACHE}"), _CPU_DEVICE_TYPE, 0)
        made = self._session.get_function("vm.builtin.param_array_from_cache")
        return [made(_PREFIX, len(weights))]

    def _tensors(self, result: Any) -> list[Any]:
        if hasattr(result, "numpy"):
            return [result]
        size = self._session.get_function("ffi.ArraySize")
        item = self._session.get_function("ffi.ArrayGetItem")
        return [item(result, index) for index in range(size(result))]


def _cache_of(weights: Sequence[npt.NDArray[Any]]) -> dict[str, Any]:
    """Returns the index of a tensor cache whose only file holds the weights one after the other."""
    records, offset = [], 0
    for number, array in enumerate(weights):
        records.append(
            {
                "name": f"{_PREFIX}_{number}",
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "format": "raw",
                "nbytes": array.nbytes,
                "byteOffset": offset,
            }
        )
        offset += array.nbytes
    shard = {"dataPath": _WEIGHTS, "format": "raw-shard", "nbytes": offset, "records": records}
    return {"metadata": {"ParamSize": len(records)}, "records": [shard]}


def _telling_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
