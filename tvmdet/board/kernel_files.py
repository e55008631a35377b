"""What a board's kernel says of the board: files of ``/proc`` and ``/sys``, read over RPC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tvmdet.board.session import BoardAddress
from tvmdet.errors import TargetError

__all__ = ["KernelFiles"]


class KernelFiles:
    """Files as the process sees them that serves one connection, and how fast its machine is."""

    def __init__(self, session: Any, address: BoardAddress) -> None:
        """Takes a connection, as :func:`tvmdet.board.session.connect` makes it.

        Raises:
            TargetError: The server is not that of this version's board kit. TVM's own, in Python,
                serves one connection at a time.
        """
        self._address = address
        try:
            self._read: Callable[[str], bytes] = session.get_function("tvmdet.board.read")
            self._yardstick: Callable[[], float] = session.get_function("tvmdet.board.yardstick")
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise TargetError(
                f"the RPC server at {address} is not that of this version's board kit: measuring "
                "needs two connections at a time, and what the kernel tells; make the kit "
                "(python -m tvmdet.board) and start its rpc_server on the board (docs/arm.md)"
            ) from error

    def read(self, path: str | Path) -> bytes:
        """Returns the first MiB of a file; nothing where there is none, or it may not be read.

        Raises:
            TargetError: It is no file of ``/proc`` or ``/sys``, or the server is gone.
        """
        try:
            return bytes(self._read(str(path)))
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise self._failed(f"does not read {path}", error) from error

    def text(self, path: str | Path) -> str:
        """Returns the same as text; what is no UTF-8 is replaced.

        Raises:
            TargetError: As :meth:`read`.
        """
        return self.read(path).decode(errors="replace")

    def threads(self, _process: int) -> tuple[int, ...]:
        """Returns no threads of a process: the server lists no folders."""
        return ()

    def time_yardstick(self) -> float:
        """Returns the seconds that a fixed piece of arithmetic takes there now.

        Raises:
            TargetError: The server is gone.
        """
        try:
            return float(self._yardstick())
        except Exception as error:  # TVM raises whatever class its C++ side named
            raise self._failed("does not answer", error) from error

    def _failed(self, what: str, error: Exception) -> TargetError:
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        return TargetError(
            f"the RPC server at {self._address} {what}: {reason}; is it still running?"
        )
