"""Addresses of boards, and what answers there."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tvmdet.board.session import BoardAddress, connect
from tvmdet.errors import InputError, TargetError


@contextlib.contextmanager
def server(answer: bytes | None) -> Iterator[BoardAddress]:
    """Answers every greeting with some bytes, hangs up without one, or says nothing (None)."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stop = threading.Event()

    def serve() -> None:
        open_connections = []
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.recv(4096)
                if answer is None:
                    open_connections.append(connection)
                    continue
                connection.sendall(answer)
                connection.close()
        for connection in open_connections:
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield BoardAddress(host="127.0.0.1", port=listener.getsockname()[1], key="pi")
    finally:
        stop.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize("text", ["", "board", "board:", ":9090", "board:x", "board:0", "b:70000"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="is no address of an RPC server; give host and port"):
        BoardAddress.parse(text)


def test_addresses() -> None:
    parsed = BoardAddress.parse("[::1]:9090", "pi")
    assert (parsed.host, parsed.port, parsed.key) == ("::1", 9090, "pi")
    assert str(BoardAddress.parse("board.local:1")) == "board.local:1"


def test_a_port_that_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TargetError, match=f"at 127.0.0.1:{port}: the connection is refused; start"):
        connect(BoardAddress(host="127.0.0.1", port=port))


def test_a_name_that_nobody_has() -> None:
    with pytest.raises(TargetError, match=r"be reached at no-such-host\.invalid:1"):
        connect(BoardAddress(host="no-such-host.invalid", port=1))


@pytest.mark.parametrize("answer", [b"", b"SSH", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=repr)
def test_another_kind_of_server(answer: bytes) -> None:
    with (
        server(answer) as address,
        pytest.raises(TargetError, match=f"what answers at {address} is no TVM RPC server"),
    ):
        connect(address)


def test_another_key() -> None:
    with (
        server(struct.pack("<i", 0xFF271 + 2)) as address,
        pytest.raises(TargetError, match="does not serve the key 'pi'; give the --key"),
    ):
        connect(address)


def test_a_server_that_says_nothing() -> None:
    with (
        server(None) as address,
        pytest.raises(TargetError, match=r"does not answer within 0.2 s; check the address"),
    ):
        connect(address, timeout_s=0.2)
