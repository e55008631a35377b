"""A connection to a board: TVM's RPC, with errors that say what is wrong at the other end."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from tvmdet.errors import InputError, TargetError

__all__ = ["BoardAddress", "board_threads", "connect"]

# python/tvm/rpc/base.py of TVM.
_MAGIC: Final = 0xFF271
_MISMATCH: Final = _MAGIC + 2
_GREETING: Final = struct.Struct("<i")


@dataclass(frozen=True, kw_only=True)
class BoardAddress:
    """Where a board's RPC server is.

    Attributes:
        host: Name or address.
        port: Its port.
        key: What the server was started with; empty where it asks for none.
    """

    host: str
    port: int
    key: str = ""

    @classmethod
    def parse(cls, text: str, key: str = "") -> BoardAddress:
        """Reads ``HOST:PORT``.

        Raises:
            InputError: It is none.
        """
        host, colon, port = text.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise InputError(
                f"{text!r} is no address of an RPC server; give host and port, such as "
                "192.168.1.20:9090"
            )
        return cls(host=host.strip("[]"), port=int(port), key=key)

    def __str__(self) -> str:
        """Returns ``HOST:PORT``."""
        return f"{self.host}:{self.port}"

    def check(self, timeout_s: float = 10.0) -> None:
        """Greets the server and hangs up.

        Raises:
            TargetError: Nobody answers there, or no TVM RPC server with this key.
        """
        try:
            code = self._greet(timeout_s)
        except ConnectionRefusedError as error:
            raise TargetError(
                f"no RPC server answers at {self}: the connection is refused; start it on the "
                "board: ./rpc_server --host 0.0.0.0 --port 9090 /tmp (docs/arm.md)"
            ) from error
        except TimeoutError as error:
            raise TargetError(
                f"{self} does not answer within {timeout_s:g} s; check the address, and that no "
                "firewall is between"
            ) from error
        except OSError as error:
            raise TargetError(f"no RPC server can be reached at {self}: {error}") from error
        if code == _MISMATCH:
            raise TargetError(
                f"the RPC server at {self} does not serve the key {self.key!r}; give the --key "
                "that it was started with"
            )
        if code != _MAGIC:
            raise TargetError(
                f"what answers at {self} is no TVM RPC server; give the address and the port that "
                "rpc_server printed (an RPC tracker has another)"
            )

    def _greet(self, timeout_s: float) -> int | None:
        """Returns the code that a server answers a greeting with; None when it hangs up."""
        mine = f"client:{self.key}".encode()
        with socket.create_connection((self.host, self.port), timeout_s) as connection:
            connection.sendall(struct.pack("<ii", _MAGIC, len(mine)) + mine)
            answer = b""
            while len(answer) < _GREETING.size:
                try:
                    part = connection.recv(_GREETING.size - len(answer))
                except ConnectionResetError:
                    return None
                if not part:
                    return None
                answer += part
            code: int = _GREETING.unpack(answer)[0]
            return code


def connect(address: BoardAddress, timeout_s: float = 10.0) -> Any:
    """Returns TVM's RPC session with a board.

    Raises:
        TargetError: There is no TVM RPC server at the address, or not with this key.
    """
    address.check(timeout_s)
    try:
        from tvm import rpc
    except ImportError as error:
        raise TargetError(
            f"TVM's RPC cannot be imported ({error}); install it with: "
            "pip install 'tvmdet[tune]' (tornado)"
        ) from error
    try:
        return rpc.connect(address.host, address.port, address.key)
    except Exception as error:  # TVM raises anything
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        raise TargetError(f"the RPC server at {address} hangs up: {reason}") from error


def board_threads(address: BoardAddress) -> int:
    """Returns how many threads a board computes with, unless told otherwise.

    Raises:
        TargetError: There is no TVM RPC server at the address, or not with this key.
    """
    return int(connect(address).get_function("runtime.NumThreads")())
