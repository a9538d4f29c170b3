"""--distributed: what it reads and refuses, who writes, and what the processes tell each other."""

import dataclasses
import json
import pathlib
import re
import shutil
import threading
import types

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from experiments import train
from experiments.harness import (
    bystander,
    command_line,
    distributed,
    endings,
    interruption,
    runner,
    runtime,
    sent_files,
    team,
)
from experiments.train import keeping, resume
from experiments.train.thinning import Thinned
from pgjax.saving import rotation


def test_the_option_is_read():
    assert distributed.parsed("auto") == distributed.Cluster("auto")
    read = distributed.parsed("node-1.cluster:1234,4,3")
    assert (read.address, read.count, read.index) == ("node-1.cluster:1234", 4, 3)
    assert distributed.parsed("[::1]:80,1,0").address == "[::1]:80"
    assert "process 0 at node-1.cluster:1234" in read.others


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be auto or HOST:PORT,N,I"),
        ("host:1234", "must be auto or HOST:PORT,N,I"),
        ("host:1234,2,-1", "must be auto or HOST:PORT,N,I"),
        ("a b:1234,2,0", "must be auto or HOST:PORT,N,I"),
        ("::1:1234,2,0", "must be auto or HOST:PORT,N,I"),
        ("host:0,2,0", "port must be from 1 to 65535, got 0"),
        ("host:65536,2,0", "port must be from 1 to 65535, got 65536"),
        ("host:1234,0,0", "number of processes must be from 1 to 65536, got 0"),
        ("host:1234,2,2", "number of this process must be from 0 to 1"),
    ],
)
def test_other_forms_are_refused_in_one_line_before_jax_starts(text, words, capsys, monkeypatch):
    monkeypatch.setattr(runtime, "start", None)
    with pytest.raises(SystemExit, match="2"):
        runner.start(train, arguments=["--tiny", "--distributed", text])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m experiments.train: error: --distributed {text}".rstrip()) and words in line


def test_only_a_question_that_can_share_its_work_has_the_option(capsys):
    arguments = ("p", "d", train.Config, ["--distributed", "auto"])
    assert command_line.parse(*arguments, shares=True).distributed == "auto"
    with pytest.raises(SystemExit):
        command_line.parse(*arguments)
    assert "nrecognized" in capsys.readouterr().err
    assert command_line.parse("p", "d", train.Config, []).distributed is None
    assert train.SHARES
    with pytest.raises(runner.UsageError, match="--distributed-timeout 0: must be from 1 to 86400 seconds"):
        distributed.starting(
            types.SimpleNamespace(distributed="auto", distributed_timeout=0.0, distributed_watchdog=None)
        )


def test_processes_together_have_no_more_cpu_devices_than_can_share(monkeypatch):
    monkeypatch.setattr(runtime, "usable_cores", lambda: 6)
    assert [runtime._cpu_devices(count) for count in (1, 2, 4, 8, 100)] == [6, 4, 2, 1, 1]


class Messages:
    """The messages of several processes in one: what one sets, all others may get."""

    def __init__(self):
        self.held, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value):
        with self.changed:
            if key in self.held:
                raise RuntimeError("ALREADY_EXISTS")
            self.held[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.held, min(milliseconds, 10_000) / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self.held[key]

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.held.items() if key.startswith(prefix)]


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
    messages = Messages()
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
    monkeypatch.setattr(three[1]._client, "key_value_set", None)
    with pytest.raises(endings.Lost, match="process 0 of 3 was lost") as lost, three[1].watching():
        raise ValueError(FAILED)
    assert lost.value.__notes__ == ["To resume it: COMMAND"]
    with pytest.raises(Left, match="75"):
        three[1].end(0, "")  # its work was complete, and process 0 has not written the results
    assert capsys.readouterr().err == "error: process 0 of 3 was lost\n"


def test_two_processes_that_cannot_reach_each_other_end_all(three):
    three[1]._leaving = three[2]._leaving = True
    threading.Thread(target=three[1]._listen, daemon=True).start()
    with pytest.raises(endings.Lost, match="the connection to another process was lost"), three[1].watching():
        raise ValueError(FAILED)
    three[2]._listen()
    assert three[2]._end == (None, 75, "")


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


def test_alone_nothing_is_asked_and_nothing_ends():
    alone = team.Team()
    assert alone.agreed("SIGTERM") == "SIGTERM" and alone.agreed(None) is None
    assert alone.writes and not alone.joined and alone.end(2, "error") is None
    alone.publish("name", 1)
    config = train.Config(seed=3)
    assert distributed.agreed(config) is config


def test_a_bystander_keeps_nothing_and_says_nothing(tmp_path, monkeypatch, capfd):
    messages = Messages()
    first, second = (team.Team(messages, index, 2) for index in range(2))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(team, "current", second)
    first.publish("to resume", "To resume it: COMMAND")
    with bystander.Bystander("train", train.TINY, tiny=True) as recorder:
        recorder.resumable()
        assert interruption.current.last_words == "To resume it: COMMAND"
        recorder.say("words")
        recorder.metrics({"update": 1})
        recorder.note("a note")
        keeper = keeping.Keeper(recorder, Thinned(1), {}, 0.0, {})
        monkeypatch.setattr(rotation, "save", None)
        keeper.save(None)
        assert keeper.saved == 0
        with recorder.progress(3, "training", "updates") as progress:
            progress.advance(3)
        assert recorder.write("options.json", "{}").is_relative_to(second.folder())
    assert not any(tmp_path.iterdir()) and capfd.readouterr() == ("", "")
    monkeypatch.setattr(endings, "exit_now", lambda code: None)
    folder = second.folder()
    second._exit(0)
    assert not folder.exists()


def test_the_files_of_process_0_reach_the_others(tmp_path, monkeypatch):
    messages, sent = Messages(), []
    first, second = (team.Team(messages, index, 2) for index in range(2))
    monkeypatch.setattr(sent_files, "PIECE", 4)
    (tmp_path / "one").write_bytes(b"0123456789")
    (tmp_path / "none").write_bytes(b"")
    (tmp_path / "policy").write_bytes(b"abcd")
    files = {"resume": [tmp_path / "one", tmp_path / "none"], "start_from": tmp_path / "policy"}

    def broadcast(piece, is_source):
        sent.extend([piece] if is_source else [])
        return piece if is_source else sent.pop(0)

    monkeypatch.setattr(multihost_utils, "broadcast_one_to_all", broadcast)
    monkeypatch.setattr(team, "current", first)
    assert sent_files.share(files) == {} and [len(piece) for piece in sent] == [4, 4, 2, 4]
    monkeypatch.setattr(team, "current", second)
    with pytest.raises(runner.UsageError, match="process 1 was started with --resume, but process 0 with --resume"):
        sent_files.share({"resume": ()})
    got = sent_files.share({"resume": (), "start_from": ()})
    assert (got["resume"] / "one").read_bytes() == b"0123456789" and (got["resume"] / "none").read_bytes() == b""
    assert got["start_from"].read_bytes() == b"abcd"
    shutil.rmtree(second.folder())


def test_a_run_that_is_resumed_is_carried_with_its_newest_whole_checkpoint(tmp_path):
    for number in (1, 2, 3):
        rotation.save(tmp_path, number, {"x": np.arange(number)}, {})
    with pytest.raises(ValueError, match="holds no run"):
        resume.carried(tmp_path)
    (tmp_path / "options.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    damaged = tmp_path / "state-3.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert [path.name for path in resume.carried(tmp_path)] == ["state-2.safetensors", "options.json"]
    inputs = dataclasses.replace(train.TINY, resume=tmp_path).inputs()
    assert list(inputs) == ["resume"] and inputs["resume"]() == resume.carried(tmp_path)
    assert train.TINY.inputs() == {}


def test_what_one_process_must_do_alone_is_refused(three, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(team, "current", three[0])
    with pytest.raises(runner.UsageError, match=r"--render policy: must be used without --distributed"):
        train.run(train.Config(render=pathlib.Path("policy")), None)
