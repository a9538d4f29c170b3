"""--distributed: what it reads and refuses, who writes, and what the processes tell each other."""

import dataclasses
import pathlib
import shutil
import types

import numpy as np
import pytest
from jax.experimental import multihost_utils
from teams import Messages

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
    assert "--distributed: there is no such option" in capsys.readouterr().err
    assert command_line.parse("p", "d", train.Config, []).distributed is None
    assert train.SHARES
    with pytest.raises(runner.UsageError, match="--distributed-timeout 0: must be from 1 to 86400 seconds"):
        distributed.starting(
            types.SimpleNamespace(distributed="auto", distributed_timeout=0.0, distributed_watchdog=None)
        )


def test_processes_together_have_no_more_cpu_devices_than_can_share(monkeypatch):
    monkeypatch.setattr(runtime, "usable_cores", lambda: 6)
    assert [runtime._cpu_devices(count) for count in (1, 2, 4, 8, 100)] == [6, 4, 2, 1, 1]


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


def test_what_one_process_must_do_alone_is_refused(monkeypatch):
    monkeypatch.setattr(team, "current", team.Team(Messages(), 0, 3))
    with pytest.raises(runner.UsageError, match=r"--render policy: must be used without --distributed"):
        train.run(train.Config(render=pathlib.Path("policy")), None)
