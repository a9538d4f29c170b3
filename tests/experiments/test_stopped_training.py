"""A training that is killed or stopped by a signal: nothing that was saved is lost, and the end is the same."""

import dataclasses
import os
import re
import signal
import time

import pytest
from trainings import command, returns_in, same_checkpoint, signalled, tiny_training, without_times

from experiments import train
from experiments.harness import directories, runner
from experiments.shared.training import build
from experiments.train import keeping, report
from pgjax import writing
from pgjax.saving import rotation


@pytest.fixture(scope="module")
def train_run(tmp_path_factory):
    return tiny_training(tmp_path_factory.mktemp("results"))


class Killed(BaseException):
    """The end of the process, before a system call."""


# The last call that is not made: in the middle of a log, of a checkpoint, of the summary, and of the last renaming.
PHASES = [
    ("replace", r"state-0\.safetensors"),
    ("write", r"metrics\.jsonl"),
    ("fsync", r"metrics\.jsonl"),
    ("unlink", r"state-0\.safetensors"),
    ("write", r"\.state-\d+.*\.partial"),
    ("replace", r"policy\.safetensors"),
    ("replace", r"summary\.json"),
    ("rename", "killed"),
]


def test_a_training_killed_at_one_phase_after_another_ends_bit_for_bit(train_run, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "CHUNK_SECONDS", 1e-9)  # one update in each
    config = dataclasses.replace(train.TINY, checkpoint_every=0.0)
    run = lambda: runner.execute("train", config, train.run, report.plot, output_dir=tmp_path, run_name=name)
    begun, start = [], keeping.Keeper.start
    monkeypatch.setattr(keeping.Keeper, "start", lambda self, x: (begun.append(self.thinned.done), start(self, x)))
    went_on = 0
    for (phase, file), name in zip(PHASES, ["killed", *[None] * len(PHASES)]):
        dead, saved = [], max(rotation.numbered(directories.found(tmp_path / "train" / "killed")), default=0)
        begun.clear()

        def step(call, path, phase=phase, file=file, dead=dead):
            if dead or (call == phase and re.fullmatch(file, path.name)):
                dead.append(call)
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(writing, "on_step", step)
            run()
        assert begun and begun[0] >= saved, (phase, file)
        went_on += saved > 0
        config, name = train.Config(resume=tmp_path / "train" / "killed", checkpoint_every=0.0), None
    assert went_on >= 3
    directory = run()  # everything was done: the folder gets its name
    assert directory == tmp_path / "train" / "killed" and not list(directory.parent.rglob("*.partial"))
    same_checkpoint(train_run, directory)
    assert without_times(directory) == without_times(train_run)
    assert returns_in(directory) == returns_in(train_run)
    (directory / "learning_curve.png").stat()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_keeps_the_chunk_and_says_the_command(train_run, tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(build, "CHUNK_SECONDS", 1e-9)
    hear = keeping.Keeper.hear

    def hear_and_signal(self, metrics, states):
        if self.thinned.done == 2:
            os.kill(os.getpid(), number)
            time.sleep(0.2)  # the signal is seen now, and the run goes on to the end of its chunk
        hear(self, metrics, states)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(keeping.Keeper, "hear", hear_and_signal)
        arguments = ["--tiny", "--run-name", "one", "--output-dir", str(tmp_path)]
        runner.main(
            train.__file__, train.__doc__, train.Config, train.run, train.plot, arguments=arguments, tiny=train.TINY
        )
    kept = tmp_path / "train" / "one-incomplete"
    error = capsys.readouterr().err
    assert stop.value.code == 75 and f"interrupted by {signal.Signals(number).name}\n" in error
    assert error.splitlines()[-1].startswith(f"To resume it: python -m experiments.train --resume {kept}")
    assert max(rotation.numbered(kept)) == 3 and len(without_times(kept)) == 3
    if number == signal.SIGTERM:
        resumed = runner.execute("train", train.Config(resume=kept), train.run)
        same_checkpoint(train_run, resumed)


def test_a_signal_before_the_first_state_and_one_at_the_end(train_run, tmp_path, monkeypatch, capsys):
    place = ["--output-dir", str(tmp_path)]
    kept = tmp_path / "train" / "one-incomplete"
    with monkeypatch.context() as patch:
        signalled(patch, build, "training_of")
        assert command("--tiny", "--run-name", "one", *place) == 75
    assert f"To resume it: python -m experiments.train --resume {kept}" in capsys.readouterr().err
    assert not rotation.numbered(kept)
    with monkeypatch.context() as patch:  # while the run gets its name: it is complete
        signalled(patch, directories.Workplace, "close")
        assert command("--resume", str(kept), *place) == 0
    same_checkpoint(train_run, tmp_path / "train" / "one")


def test_a_signal_while_the_last_states_are_saved_stops_the_run_after_it(train_run, tmp_path, monkeypatch):
    kept, save = tmp_path / "train" / "one-incomplete", rotation.save

    def save_and_signal(directory, number, *arguments, **more):
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        save(directory, number, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "save", save_and_signal)
        assert command("--tiny", "--run-name", "one", "--output-dir", str(tmp_path)) == 75
    assert max(rotation.numbered(kept)) == 4 and not (kept / "policy.safetensors").exists()
    same_checkpoint(train_run, kept)
