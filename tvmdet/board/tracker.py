"""Asks TVM's RPC tracker for a board: which there are of a key, and one that is free.

TVM's own client waits without an end for a board that nobody has registered.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from typing import Any, Final

from tvmdet.counted import counted
from tvmdet.errors import TargetError

__all__ = ["request_board"]

# python/tvm/rpc/base.py and tracker.py of TVM.
_MAGIC: Final = 0x2F271
_SUCCESS, _REQUEST, _SUMMARY = 0, 4, 6
_PRIORITY: Final = 1
_SIZE: Final = struct.Struct("<i")
_MOST_BYTES: Final = 1 << 20


def request_board(host: str, port: int, key: str, timeout_s: float) -> tuple[str, int, str]:
    """Waits until a board is free.

    Args:
        host: Of the tracker.
        port: Of the tracker.
        key: That the boards were registered with.
        timeout_s: How long to wait.

    Returns:
        Host and port of the board's server, and the key that it takes from us alone.

    Raises:
        TargetError: No tracker answers there, it has no board of that key, or none gets free.
    """
    where = f"the RPC tracker at {host}:{port}"
    end = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, port), timeout_s) as connection:
            connection.sendall(_SIZE.pack(_MAGIC))
            if _SIZE.unpack(_receive(connection, _SIZE.size))[0] != _MAGIC:
                raise TargetError(f"what answers at {host}:{port} is no RPC tracker of TVM")
            servers = _ask(connection, [_SUMMARY])["server_info"]
            keys = [str(server["key"]).removeprefix("server:") for server in servers]
            if key not in keys:
                raise TargetError(
                    f"{where} has no board of the key {key!r}; it has: "
                    f"{', '.join(sorted(set(keys))) or 'none at all'}. Start the server on the "
                    f"board with --tracker HOST:{port} --key {key} (docs/arm.md)"
                )
            connection.settimeout(max(end - time.monotonic(), 0.1))
            try:
                found = _ask(connection, [_REQUEST, key, "", _PRIORITY])
            except TimeoutError as error:
                raise TargetError(
                    f"of {counted(keys.count(key), 'board')} of the key {key!r} at {where} none "
                    f"gets free within {timeout_s:g} s; try again when whoever has it is done"
                ) from error
            return str(found[0]), int(found[1]), str(found[2])
    except ConnectionRefusedError as error:
        raise TargetError(
            f"no RPC tracker answers at {host}:{port}: the connection is refused; start it: "
            "python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port 9190 (docs/arm.md)"
        ) from error
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TargetError(f"{where} cannot be asked for a board: {error}") from error


def _ask(connection: socket.socket, message: list[Any]) -> Any:
    sent = json.dumps(message).encode()
    connection.sendall(_SIZE.pack(len(sent)) + sent)
    size = _SIZE.unpack(_receive(connection, _SIZE.size))[0]
    if not 0 < size <= _MOST_BYTES:
        raise ValueError(f"its answer has {size} bytes")
    status, answer = json.loads(_receive(connection, size))
    if status != _SUCCESS:
        raise ValueError(f"it answers with code {status}")
    return answer


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionResetError("it hangs up")
        data += part
    return data
