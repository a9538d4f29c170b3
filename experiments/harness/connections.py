"""Connections between the processes of a run: one thread serves them, and each begins with a line of JSON."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

WORD = "pgjax"  # the first name in every line
LONGEST = 4096  # bytes of a line
ANSWERS = 10.0  # seconds in which the other side of a connection says its line
SILENT = 8  # seconds without an answer of the other machine after which a connection counts as closed
BYTES = 1 << 16
LOOPBACK = "127.0.0.1"


class Connections:
    """A thread that serves connections until the process ends, or until `close`.

    Attributes:
        opened: the connections that are open, also those that must stay open though nobody reads them.
        on_loss: called in a thread of its own with the number of a process whose connection has ended. Losses that
            come before it is given are told when it is.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task] = set()
        self.opened: set[asyncio.StreamWriter] = set()
        self._on_loss: Callable[[int], None] | None = None
        self._untold: list[int] = []
        self._telling = threading.Lock()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="pgjax door", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Let the thread do some work, and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def serve(self, listener: socket.socket, serve: Callable[..., Coroutine[Any, Any, None]]) -> None:
        """Call `serve` with the reader and the writer of every connection that is made."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.opened.add(writer)
            with contextlib.suppress(Exception, asyncio.CancelledError):  # strangers may say anything
                await serve(reader, writer)

        self._server = self.do(asyncio.start_server(accept, sock=listener, limit=LONGEST))

    @property
    def on_loss(self) -> Callable[[int], None] | None:
        return self._on_loss

    @on_loss.setter
    def on_loss(self, called: Callable[[int], None]) -> None:
        with self._telling:
            self._on_loss = called
            untold, self._untold = self._untold, []
        for index in untold:
            self.tell_loss(index)

    def tell_loss(self, index: int) -> None:
        """Call `on_loss`, or wait until it is given."""
        with self._telling:
            called = self._on_loss
            if called is None:
                self._untold.append(index)
                return
        threading.Thread(target=called, args=(index,), daemon=True).start()

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let the thread do some work besides what it does."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def shut(self, writer: asyncio.StreamWriter) -> None:
        """Close one connection."""
        self.opened.discard(writer)
        writer.close()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, shut: bool = True) -> None:
        """Carry bytes from one connection to another until the first one ends."""
        with contextlib.suppress(OSError):
            while some := await reader.read(BYTES):
                writer.write(some)
                await writer.drain()
        if shut:
            self.shut(writer)

    def close(self) -> None:
        """Close every connection, and end the thread."""

        async def end() -> None:
            if self._server is not None:
                self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            for writer in tuple(self.opened):
                self.shut(writer)
            await asyncio.sleep(0)

        self.do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def listening(port: int) -> socket.socket:
    """A socket that listens on the port of every interface. Two processes of one machine cannot both have it.

    Raises:
        OSError: another program listens on the port, or the port is not allowed.
    """
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", port), backlog=1024)


def line(values: Mapping[str, Any]) -> bytes:
    """The line that says these values."""
    return json.dumps({WORD: 1, **values}).encode() + b"\n"


def read(text: bytes) -> dict[str, Any]:
    """The values of a line. An empty line is that of a connection which was closed.

    Raises:
        ValueError: another program has written the line.
        ConnectionError: there is no line.
    """
    if not text:
        raise ConnectionError("the connection was closed without an answer")
    said = json.loads(text)  # whose errors are ValueErrors
    if not isinstance(said, dict) or said.get(WORD) != 1:
        raise ValueError("another program")
    return said


def line_of(one: socket.socket) -> bytes:
    """The line that the other side says, or the beginning of something else."""
    found = b""
    while found[:1] in (b"", b"{") and not found.endswith(b"\n") and (more := one.recv(LONGEST)):
        found += more
    return found


async def say(writer: asyncio.StreamWriter, values: Mapping[str, Any]) -> None:
    """Send the line that says these values."""
    writer.write(line(values))
    await writer.drain()


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let the operating system close the connection if the other machine does not answer for `SILENT` seconds."""
    one, quarter = writer.get_extra_info("socket"), SILENT // 4
    settings = {"TCP_KEEPIDLE": quarter, "TCP_KEEPINTVL": quarter, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 1000 * SILENT}
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in settings.items():
            if hasattr(socket, name):  # they differ between operating systems
                one.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
