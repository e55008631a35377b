"""A connection to a board: TVM's RPC, with errors that say what is wrong at the other end."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from tvmdet.board.tracker import request_board
from tvmdet.errors import InputError, TargetError

__all__ = ["BoardAddress", "board_threads", "connect", "lease", "use_lease"]

# python/tvm/rpc/base.py of TVM.
_MAGIC: Final = 0xFF271
_MISMATCH: Final = _MAGIC + 2
_GREETING: Final = struct.Struct("<i")
_SCHEME: Final = "tracker://"
_ANSWER_S: Final = 10.0  # of a server
_FREE_S: Final = 60.0  # until a tracker has a board to give
_REQUESTS: Final = 3  # of a tracker, which may give a board that has just died


@dataclass(frozen=True, kw_only=True)
class BoardAddress:
    """Where a board's RPC server is.

    Attributes:
        host: Name or address.
        port: Its port.
        key: What the server was started with; empty where it asks for none.
        tracked: Whether an RPC tracker is there instead, which gives boards of this key.
    """

    host: str
    port: int
    key: str = ""
    tracked: bool = False

    @classmethod
    def parse(cls, text: str, key: str = "") -> BoardAddress:
        """Reads ``HOST:PORT`` of a server, or ``tracker://HOST:PORT`` of a tracker.

        Raises:
            InputError: It is neither, or of a tracker and without a key.
        """
        tracked = text.startswith(_SCHEME)
        host, colon, port = text.removeprefix(_SCHEME).rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
            raise InputError(
                f"{text!r} is no address of an RPC server; give host and port, such as "
                "192.168.1.20:9090, or those of a tracker, such as tracker://192.168.1.2:9190"
            )
        if tracked and not key:
            raise InputError(
                f"a tracker knows boards by their keys: give the one to ask {text} for (--key)"
            )
        return cls(host=host.strip("[]"), port=int(port), key=key, tracked=tracked)

    def __str__(self) -> str:
        """Returns ``HOST:PORT``, in front of which a tracker has ``tracker://``."""
        return f"{_SCHEME if self.tracked else ''}{self.host}:{self.port}"

    def check(self, timeout_s: float | None = None) -> None:
        """Greets the server and hangs up; of a tracker, gets a board that answers.

        Args:
            timeout_s: To wait; by default 10 s for a server, 60 s for a board that is free.

        Raises:
            TargetError: Nobody answers there, or no TVM RPC server with this key, or the tracker
                has no board to give.
        """
        if self.tracked:
            lease(self, timeout_s or _FREE_S)
            return
        timeout_s = timeout_s or _ANSWER_S
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


# Boards that trackers gave to this process, and whether somebody has connected since.
_leases: dict[BoardAddress, tuple[BoardAddress, bool]] = {}


def lease(address: BoardAddress, timeout_s: float = _FREE_S) -> BoardAddress:
    """Returns the board behind an address: itself, or the one that a tracker gives.

    A tracker is asked once, and again when that board no longer takes us. The kit's server takes
    who was given it until nobody has been connected for some seconds; TVM's own takes one
    connection, and is asked for anew for each.

    Args:
        address: Of a server or a tracker.
        timeout_s: To wait for a board that is free.

    Raises:
        TargetError: No tracker answers there, or it has no board to give.
    """
    if not address.tracked:
        return address
    given, used = _leases.get(address, (None, False))
    if given is not None and used:
        try:
            given.check(min(timeout_s, _ANSWER_S))
        except TargetError:
            given = None  # dead, or no longer ours: the tracker is asked again
    if given is None:
        host, port, key = request_board(address.host, address.port, address.key, timeout_s)
        given, used = BoardAddress(host=host, port=port, key=key), False
    _leases[address] = given, used
    return given


def use_lease(address: BoardAddress) -> BoardAddress:
    """Returns what :func:`lease` does, for a connection that is made at once.

    Raises:
        TargetError: As :func:`lease`.
    """
    given = lease(address)
    if address.tracked:
        _leases[address] = given, True
    return given


def connect(address: BoardAddress, timeout_s: float = _ANSWER_S) -> Any:
    """Returns TVM's RPC session with a board.

    Raises:
        TargetError: There is no TVM RPC server at the address, or not with this key; or the
            tracker there has no board to give.
    """
    if not address.tracked:
        address.check(timeout_s)
    try:
        from tvm import rpc
    except ImportError as error:
        raise TargetError(
            f"TVM's RPC cannot be imported ({error}); install it with: "
            "pip install 'tvmdet[tune]' (tornado)"
        ) from error
    for left in reversed(range(_REQUESTS if address.tracked else 1)):
        server = use_lease(address)
        try:
            return rpc.connect(server.host, server.port, server.key)
        except Exception as error:  # TVM raises anything
            _leases.pop(address, None)
            if not left:
                reason = (str(error).strip() or repr(error)).splitlines()[-1]
                raise TargetError(f"the RPC server at {address} hangs up: {reason}") from error
    raise AssertionError("the last attempt returns or raises")


def board_threads(address: BoardAddress) -> int:
    """Returns how many threads a board computes with, unless told otherwise.

    Raises:
        TargetError: There is no TVM RPC server at the address, or not with this key.
    """
    return int(connect(address).get_function("runtime.NumThreads")())
