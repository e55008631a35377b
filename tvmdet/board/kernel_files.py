"""What a board's kernel says of the board: files of ``/proc`` and ``/sys``, read over RPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from tvmdet.board.session import BoardAddress
from tvmdet.errors import TargetError

__all__ = ["KernelFiles"]

_REFUSED: Final = "rpc_server: a file name may have no /"


class KernelFiles:
    """Files as the process sees them that serves one connection."""

    def __init__(self, session: Any, address: BoardAddress) -> None:
        """Takes a connection, as :func:`tvmdet.board.session.connect` makes it."""
        self._download = session.get_function("tvm.rpc.server.download")
        self._address = address

    def read(self, path: str | Path) -> bytes:
        """Returns the first MiB of a file; nothing where there is none, or it may not be read.

        Raises:
            TargetError: The server does not read such files, or is gone.
        """
        try:
            return bytes(self._download(str(path)))
        except Exception as error:  # TVM raises whatever class its C++ side named
            said = str(error)
            if _REFUSED in said:
                raise TargetError(
                    f"the RPC server at {self._address} is of an earlier version of tvmdet; make "
                    "the board kit again (python -m tvmdet.board) and copy it to the board"
                ) from error
            reason = (said.strip() or "no reason given").splitlines()[-1]
            raise TargetError(
                f"the RPC server at {self._address} does not read {path}: {reason}; is it still "
                "running?"
            ) from error

    def text(self, path: str | Path) -> str:
        """Returns the same as text; what is no UTF-8 is replaced.

        Raises:
            TargetError: As :meth:`read`.
        """
        return self.read(path).decode(errors="replace")

    def threads(self, _process: int) -> tuple[int, ...]:
        """Returns no threads of a process: the server lists no folders."""
        return ()
