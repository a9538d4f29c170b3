"""The door of a run in several processes: where they meet before JAX starts, and how the loss of one is noticed.

JAX's coordination service ends all processes of a run, with exit code 134, as soon as a process of another run connects
to it; and when process 0 is lost, JAX ends the others in the same way. So no process connects to it directly:

    JAX in process I  →  loopback of its machine  →  the door, at HOST:PORT  →  loopback of process 0  →  the service

Process 0 opens the door. A process enters with its number, once; a second one of the same number belongs to another
run, and is turned away with a sentence. Each process that has entered keeps one connection open, which the operating
system closes when either end of it is gone. JAX's own connection at loopback stays open, so JAX does not see the loss,
and the run ends in its own order (`endings.py`).

Every connection to the door begins with one line of JSON from each side, see `connections.py`.
"""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from experiments.harness import connections

AGAIN = 0.3  # seconds until a process tries to enter again


class Refused(Exception):
    """This process is not let in; the message gives the reason."""


class Door(connections.Connections):
    """The door, in process 0.

    Attributes:
        inner: the address at which JAX's coordination service listens, on the loopback interface.
        entered: the numbers of the processes that have come in.
        on_loss: called with the number of a process whose connection has ended.

    Raises:
        OSError: another program listens on the port, or the port is not allowed.
    """

    def __init__(self, port: int, count: int):
        listener = connections.listening(port)
        super().__init__()
        self.count, self.entered = count, set[int]()
        self._passes: set[str] = set()
        self._ends = False
        # Bound and not listening, so that nobody else gets the port. JAX shares it, because it asks for the same.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR), 1)
        self._reserved.bind((connections.LOOPBACK, 0))
        self._port = self._reserved.getsockname()[1]
        self.inner = f"{connections.LOOPBACK}:{self._port}"
        self.serve(listener, self._answer)

    def close(self) -> None:
        super().close()
        self._reserved.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            said = connections.read(await asyncio.wait_for(reader.readline(), connections.ANSWERS))
            if "pass" in said:
                known = str(said["pass"]) in self._passes
                await connections.say(writer, {"known": known})
                if known:
                    await self._forward(reader, writer)
            else:
                await self._let_in(said, reader, writer)
        finally:
            self.shut(writer)

    async def _let_in(self, said: Mapping, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a process that wants to enter; if it may, wait for its end."""
        index, count = int(said.get("index", -1)), said.get("count")
        if self._ends:
            return await connections.say(writer, {"later": True})
        if count != self.count or not 0 < index < self.count:
            other = f"the run there has {self.count} processes, and not {count}"
            return await connections.say(writer, {"refused": other})
        if index in self.entered:
            another = f"the run there has a process {index} already, so this one belongs to another run"
            return await connections.say(writer, {"refused": f"{another}; give every run a port of its own"})
        self.entered.add(index)
        made = secrets.token_hex(16)
        self._passes.add(made)
        with contextlib.suppress(OSError):
            connections.keep_alive(writer)
            await connections.say(writer, {"pass": made})
            await reader.read(1)
        self._ends = True  # a process that starts again now enters the next run
        self.tell_loss(index)
        return None

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between a process and JAX's coordination service, which may not have started yet."""
        late = time.monotonic() + connections.ANSWERS
        while True:
            try:
                inner_reader, inner_writer = await asyncio.open_connection(connections.LOOPBACK, self._port)
                break
            except OSError:
                if time.monotonic() > late:
                    raise
                await asyncio.sleep(0.05)
        self.opened.add(inner_writer)
        connections.keep_alive(writer)
        self.later(self.carry(inner_reader, writer))
        await self.carry(reader, inner_writer)


class Entrance(connections.Connections):
    """The way of another process to JAX's coordination service, after `enter` has let it in.

    Attributes:
        inner: the address to which JAX connects, on the loopback interface of this machine.
        on_loss: called with 0 when the connection to process 0 has ended.
    """

    def __init__(self, place: tuple[str, int], held: socket.socket, made: str):
        super().__init__()
        self._place, self._pass = place, made
        listener = socket.create_server((connections.LOOPBACK, 0))
        self.inner = f"{connections.LOOPBACK}:{listener.getsockname()[1]}"
        self.serve(listener, self._carry_out)
        self.do(self._begin(held))

    async def _begin(self, held: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=held)
        connections.keep_alive(writer)
        self.opened.add(writer)
        self.later(self._live(reader))

    async def _live(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1)
        self.tell_loss(0)

    async def _carry_out(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes between JAX and the door. When the door is gone, JAX is left waiting for as long as it likes."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            await self._carry_to_door(reader, writer)
        with contextlib.suppress(OSError):
            while await reader.read(connections.BYTES):
                pass  # nobody is there to get what JAX says
        self.shut(writer)

    async def _carry_to_door(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until JAX closes its connection, or the door is gone."""
        out_reader, out_writer = await asyncio.open_connection(*self._place, limit=connections.LONGEST)
        self.opened.add(out_writer)
        try:
            connections.keep_alive(out_writer)
            await connections.say(out_writer, {"pass": self._pass})
            if connections.read(await out_reader.readline())["known"]:
                self.later(self.carry(out_reader, writer, shut=False))
                await self.carry(reader, out_writer, shut=False)
        finally:
            self.shut(out_writer)


def enter(address: str, count: int, index: int, tell: Callable[[str], None] = lambda reason: None) -> Entrance:
    """Enter a run at the door of its process 0, and wait for as long as nobody answers there.

    Args:
        address: the host and the port of process 0.
        count: the number of processes.
        index: the number of this one.
        tell: called with the reason for which it waits after every try, and with an empty one when it has entered.

    Raises:
        Refused: process 0 does not let this process in, or what listens there is another program.
    """
    host, _, port = address.rpartition(":")
    place = (host.strip("[]"), int(port))
    while True:
        try:
            one, answer = _ask(place, {"index": index, "count": count})
        except OSError as error:
            tell(error.strerror or str(error))
        else:
            if "pass" in answer:
                tell("")
                one.setblocking(False)
                return Entrance(place, one, answer["pass"])
            one.close()
            if "refused" in answer:
                raise Refused(answer["refused"])
            tell("the run there has lost a process and is ending")
        time.sleep(AGAIN)


def _ask(place: tuple[str, int], said: Mapping[str, Any]) -> tuple[socket.socket, dict[str, Any]]:
    """A new connection to the door, and what the door answers there. The connection is closed if no answer comes.

    Raises:
        OSError: nobody listens there, or no answer came.
        Refused: what listens there is another program.
    """
    one = socket.create_connection(place, timeout=connections.ANSWERS)
    try:
        one.sendall(connections.line(said))
        return one, connections.read(connections.line_of(one))
    except ValueError as error:
        one.close()
        host, port = place
        raise Refused(f"another program listens on port {port} of {host}; choose another port") from error
    except OSError:
        one.close()
        raise
