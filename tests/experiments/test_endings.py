"""How the processes of a run (--distributed) end together, and what they agree on."""

import json
import re
import threading

import jax
import pytest
from teams import Messages

from experiments.harness import endings, interruption, runner, team


class Left(BaseException):
    """The end of the process, with its code."""


@pytest.fixture
def three(monkeypatch):
    """Three processes that exchange messages. What one would do at its end becomes `Left`."""

    def leave(code):
        raise Left(code)

    monkeypatch.setattr(endings, "exit_now", leave)
    monkeypatch.setattr(endings, "GRACE", 0.05)
    monkeypatch.setattr(endings, "ANSWER", 0.05)
    monkeypatch.setattr(endings, "TOGETHER", 0.05)
    messages = Messages(count=3)
    return [team.Team(messages, index, 3) for index in range(3)]


def test_the_processes_must_have_the_same_options(three):
    refused = []

    def first():
        try:
            three[0].require_same("options", {"--seed": 0, "--lr": (0.1, 0.2)})
        except runner.UsageError as error:
            refused.append(str(error))

    waiting = threading.Thread(target=first)
    waiting.start()
    three[1].require_same("options", {"--seed": 0, "--lr": [0.1, 0.2]})
    words = "the same options, and process 2 has --seed 1 (process 0: 0)"
    with pytest.raises(runner.UsageError, match=re.escape(words)) as error:
        three[2].require_same("options", {"--seed": 1, "--lr": (0.1, 0.2)})
    with pytest.raises(Left, match="2"):
        three[2].end(2, str(error.value))
    assert waiting.is_alive() and not refused
    three[0]._leaving = True
    three[0]._listen()
    waiting.join(5)
    assert refused and words in refused[0] and "process 2 of 3 has ended with" in refused[0]


def test_an_end_is_told_and_process_0_speaks_for_all(three, capsys):
    for index in (1, 2):
        three[index]._leaving = True  # the main thread ends this process
        threading.Thread(target=three[index]._listen, daemon=True).start()
    with pytest.raises(Left, match="2"):
        three[0].end(2, "error: all runs failed")
    assert capsys.readouterr().err == "error: all runs failed\n"
    three[1]._ended.wait(5)
    with pytest.raises(Left, match="2"):
        three[1].end(2, "error: all runs failed")
    assert not capsys.readouterr().err, "process 0 has said it"
    three[2]._ended.wait(5)
    with pytest.raises(Left, match="2"):  # it was complete, and is no more
        three[2].end(0, "")


def test_an_error_of_one_process_is_printed_and_named_by_the_others(three, capsys):
    with pytest.raises(Left, match="70"):
        three[1].end(70, "internal error: 'x'\nmore lines")
    assert "internal error: 'x'" in capsys.readouterr().err
    three[2]._leaving = True  # the main thread ends this process
    three[2]._listen()
    with (
        pytest.raises(endings.Lost, match="process 1 of 3 has ended with: internal error: 'x'") as lost,
        three[2].watching(),
    ):
        raise jax.errors.JaxRuntimeError("Gloo all-reduce failed: Connection closed by peer")
    assert lost.value.code == 70 and isinstance(lost.value, interruption.Interrupted)


FAILED = "UNKNOWN: Gloo AllGather failed: Connection closed by peer"


def test_a_process_that_is_lost_without_a_word_is_named(three, capsys):
    for member in three[:2]:
        member._leaving = True  # the main thread ends this process
    three[0].lose(2)
    assert json.loads(three[0]._client.held["pgjax/end"]) == [2, 75, "was lost"]
    for member in three[:2]:
        member._listen()
        words = "the end of another process: process 2 of 3 was lost"
        with pytest.raises(endings.Lost, match=words) as lost, member.watching():
            raise ValueError(FAILED)
        assert lost.value.code == 75
    three[0].lose(1)  # which ends because of that
    three[0]._let_others_leave()
    assert not capsys.readouterr().err


def test_a_process_that_has_said_its_end_is_not_lost(three):
    with pytest.raises(Left, match="70"):
        three[2].end(70, "internal error: 'x'")
    three[0].lose(2)
    three[0]._leaving = True
    three[0]._listen()
    assert three[0].sentence() == "process 2 of 3 has ended with: internal error: 'x'"


def test_without_process_0_nothing_is_asked_of_its_server(three, monkeypatch, capsys):
    monkeypatch.setattr(interruption.current, "last_words", "To resume it: COMMAND")
    three[1]._leaving = True
    three[1].lose(0)
    asked = []
    monkeypatch.setattr(three[1]._client, "key_value_set", lambda *given: asked.append(given))
    with pytest.raises(endings.Lost, match="process 0 of 3 was lost") as lost, three[1].watching():
        raise ValueError(FAILED)
    assert lost.value.__notes__ == ["To resume it: COMMAND"]
    with pytest.raises(Left, match="75"):
        three[1].end(0, "")  # its work was complete, and process 0 has not written the results
    assert capsys.readouterr().err == "error: process 0 of 3 was lost\n" and not asked


def test_two_processes_that_cannot_reach_each_other_end_all(three):
    three[1]._leaving = three[2]._leaving = True
    threading.Thread(target=three[1]._listen, daemon=True).start()
    words = f"the connection to another process was lost: process 1 of 3: {FAILED}"
    with pytest.raises(endings.Lost, match=words), three[1].watching():
        raise ValueError(FAILED)
    three[2]._listen()
    assert three[2]._end[:2] == (None, 75) and three[2].sentence() == words


def test_errors_of_a_process_itself_stay_as_they_are(three):
    with pytest.raises(ValueError, match="--lr"), three[0].watching():
        raise ValueError("--lr")
    with pytest.raises(ValueError, match="Gloo"), team.Team().watching():
        raise ValueError("Gloo")


def test_a_process_that_waits_for_a_value_ends_with_the_run(three, capsys):
    three[0]._set("end", json.dumps(endings.End(0, 0, "has ended")))
    three[1]._leaving = True
    three[1]._listen()
    with pytest.raises(Left, match="0"):
        three[1].read("inputs")
    assert not capsys.readouterr().err


def test_the_watchdog_ends_a_process_whose_chunk_takes_too_long(three, monkeypatch, capsys):
    left = threading.Event()
    monkeypatch.setattr(endings, "exit_now", lambda code: left.set())
    three[1].heard()
    assert three[1]._watchdog is None, "there is none by default"
    three[1].patience = 0.2
    for _ in range(4):
        three[1].heard()
        assert not left.wait(0.1)
    three[1].heard(last=True)
    assert not left.wait(0.3)
    three[1].heard()
    assert left.wait(5) and "no chunk of updates has ended for 0.2 s" in capsys.readouterr().err
    assert json.loads(three[0]._client.held["pgjax/end"])[:2] == [1, 75]
    left.clear()
    three[2]._leaving = True  # the main thread ends this process
    three[2]._listen()
    three[2].patience = 0.0
    three[2]._bite()
    assert not left.is_set(), "another process has bitten, and this one ends in its own order"


def test_processes_that_meet_wait_for_the_slowest(three):
    passed = []
    threads = [threading.Thread(target=lambda us=us: (us.meet(), passed.append(us.index))) for us in three[:2]]
    for thread in threads:
        thread.start()
    threads[0].join(0.1)
    assert not passed
    three[2].meet()
    for thread in threads:
        thread.join(5)
    assert sorted(passed) == [0, 1]
    assert team.Team().meet() is None
