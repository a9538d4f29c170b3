"""The door of a run in several processes: who comes in, what is carried, and what a loss is."""

import json
import socket
import threading
import time

import pytest
from teams import free_port

from experiments.harness import connections, distributed, door


class Losses:
    """The numbers of the processes that were lost."""

    def __init__(self):
        self.indices, self._some = [], threading.Event()

    def __call__(self, index):
        self.indices.append(index)
        self._some.set()

    def wait(self):
        assert self._some.wait(5)
        return self.indices


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(door, "AGAIN", 0.05)
    monkeypatch.setattr(connections, "ANSWERS", 1.0)


@pytest.fixture
def opened():
    """The door of three processes, and the address of it."""
    port = free_port()
    made = door.Door(port, 3)
    made.on_loss = Losses()
    yield made, f"127.0.0.1:{port}"
    if not made._loop.is_closed():
        made.close()


@pytest.fixture
def service(opened):
    """What stands for JAX's coordination service: it sends back what it gets."""
    place, _, port = opened[0].inner.rpartition(":")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as JAX does
    listener.bind((place, int(port)))
    listener.listen()

    def serve():
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=lambda one=one: [one.sendall(x) for x in iter(lambda: one.recv(99), b"")]).start()

    threading.Thread(target=serve, daemon=True).start()
    yield
    listener.close()


def connected(entrance):
    host, _, port = entrance.inner.rpartition(":")
    one = socket.create_connection((host, int(port)), timeout=5)
    one.sendall(b"ping")
    assert one.recv(99) == b"ping"
    return one


def test_a_second_run_cannot_open_a_door_on_the_same_port(opened):
    with pytest.raises(OSError, match="in use"):
        door.Door(int(opened[1].rpartition(":")[2]), 2)


def test_a_process_of_another_run_is_turned_away_and_the_run_goes_on(opened, service):
    made, address = opened
    one = door.enter(address, 3, 1)
    through = connected(one)
    with pytest.raises(door.Refused, match="has a process 1 already, so this one belongs to another run"):
        door.enter(address, 3, 1)
    with pytest.raises(door.Refused, match="the run there has 3 processes, and not 4"):
        door.enter(address, 4, 2)
    through.sendall(b"again")
    assert through.recv(99) == b"again" and made.entered == {1} and not made.on_loss.indices
    through.close()
    one.close()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b'{"pgjax": 1, "index": [1]}\n', b"[" * 5000, b""]
)
def test_strangers_are_not_heard(opened, service, said):
    made, address = opened
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as one:
        one.sendall(said)
        one.shutdown(socket.SHUT_WR)
        assert b"pass" not in one.recv(999)
    with socket.create_connection((host, int(port)), timeout=5) as one:
        one.sendall(b'{"pgjax": 1, "pass": "guessed"}\n')
        assert json.loads(one.recv(999)) == {"pgjax": 1, "known": False}
        assert not one.recv(99)
    entrance = door.enter(address, 3, 2)
    connected(entrance).close()
    assert made.entered == {2}
    entrance.close()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n", b"\x00\x00\x18\x04", b"{}\n"])
def test_another_program_on_the_port_is_named(answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with listener.accept()[0] as one:
                one.recv(999)
                one.sendall(answer)
                one.recv(999)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(door.Refused, match="another program listens on port"):
            door.enter(f"127.0.0.1:{listener.getsockname()[1]}", 2, 1)


def test_a_process_waits_for_the_door_and_for_the_end_of_a_run_that_has_lost_one(opened):
    made, address = opened
    first = door.enter(address, 3, 1)
    first.close()
    assert made.on_loss.wait() == [1]
    entered = []
    waiting = threading.Thread(target=lambda: entered.append(door.enter(address, 3, 1)), daemon=True)
    waiting.start()
    time.sleep(0.3)
    assert not entered, "the run that has lost a process ends"
    made.close()
    time.sleep(0.2)
    again = door.Door(int(address.rpartition(":")[2]), 3)
    waiting.join(5)
    assert entered and again.entered == {1}
    entered[0].close()
    again.close()


def test_the_loss_of_process_0_is_told_and_jax_does_not_see_it(opened, service):
    made, address = opened
    entrance = door.enter(address, 3, 1)
    entrance.on_loss = Losses()
    through = connected(entrance)
    made.close()
    assert entrance.on_loss.wait() == [0]
    through.settimeout(0.2)
    with pytest.raises(TimeoutError):  # and no end of the connection
        through.recv(99)
    for _ in range(3):
        through.sendall(b"ping")
        with pytest.raises(TimeoutError):
            through.recv(99)
    through.close()
    entrance.close()


def test_what_jax_closes_is_closed_also_after_a_loss(opened, service):
    made, address = opened
    entrance = door.enter(address, 3, 1)
    through = connected(entrance)
    made.close()
    before = len(entrance.opened)
    through.sendall(b"ping")
    through.close()
    late = time.monotonic() + 5
    while len(entrance.opened) > before - 2 and time.monotonic() < late:  # that of JAX, and its way outwards
        time.sleep(0.02)
    assert len(entrance.opened) == before - 2
    entrance.close()


def test_a_loss_before_anybody_asks_for_it_is_told_once(opened):
    made, address = opened
    entrance = door.enter(address, 3, 1)
    made.close()
    time.sleep(0.3)
    first, second = Losses(), Losses()
    entrance.on_loss = first
    assert first.wait() == [0]
    entrance.on_loss = second
    time.sleep(0.1)
    assert first.indices == [0] and second.indices == []
    entrance.close()


def test_why_a_process_waits_is_told(monkeypatch):
    told, reasons = [], []

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def tell(reason):
        told.append(reason)
        if len(told) == 3:
            raise Enough

    class Enough(Exception):
        pass

    for host, change in (("no-such-host", unknown), ("127.0.0.1", None)):
        with monkeypatch.context() as patch:
            if change is not None:
                patch.setattr(socket, "getaddrinfo", change)
            told.clear()
            with pytest.raises(Enough):
                door.enter(f"{host}:{free_port()}", 2, 1, tell)
            reasons.append(set(told))
    assert reasons == [{"Name or service not known"}, {"Connection refused"}]


@pytest.mark.parametrize(("answers", "reason"), [(True, "closed"), (False, "timed out")])
def test_a_try_without_an_answer_is_closed(monkeypatch, answers, reason):
    monkeypatch.setattr(connections, "ANSWERS", 0.2)
    made, connect = [], socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: made.append(connect(*a, **k)) or made[-1])

    class Enough(Exception):
        pass

    def tell(said):
        assert reason in said
        raise Enough

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with listener.accept()[0] as one:
                one.recv(999)
                if not answers:
                    time.sleep(0.5)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(Enough):
            door.enter(f"127.0.0.1:{listener.getsockname()[1]}", 2, 1, tell)
    assert [one.fileno() for one in made] == [-1]


def test_the_sentences_of_a_process_that_waits_give_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(distributed.endings, "exit_now", lambda code: None)
    waiting = distributed.Waiting(distributed.parsed("nohost:1234,2,1"), 3)
    waiting.say_what_is_missing()
    waiting.reason = "Name or service not known"
    waiting.say_what_is_missing()
    waiting.give_up()
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.endswith("for all of the 2 processes")
    assert second.endswith("for all of the 2 processes; the last try to reach process 0: Name or service not known")
    assert third.endswith("not all of them have come; the last try to reach process 0: Name or service not known")
