"""The smallest training, its files, and commands that a signal stops."""

import json
import os
import signal
import time

import numpy as np

from experiments import train
from experiments.harness import runner
from experiments.train import report
from pgjax.saving import rotation


def summary(directory):
    return json.loads((directory / "summary.json").read_text())


def returns_in(directory):
    """The evaluated returns of every run of a training."""
    return [row["ours"] for row in summary(directory)["rows"] if row["quantity"] == "evaluated return"]


def tiny_training(folder):
    """The folder of a complete tiny training in `folder`."""
    return runner.execute("train", train.TINY, train.run, report.plot, output_dir=folder, run_name="tiny")


def without_times(directory):
    """The lines of the log without their times."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "elapsed_seconds"} for line in lines]


def newest_arrays(directory):
    return rotation.newest(directory).arrays


def same_checkpoint(first, second):
    one, other = newest_arrays(first), newest_arrays(second)
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def command(*arguments):
    """The exit code of the command with these arguments."""
    try:
        runner.main(train.__file__, train.__doc__, train.Config, train.run, arguments=arguments, tiny=train.TINY)
    except SystemExit as stop:
        return stop.code
    return 0


def signalled(patch, owner, name, *, after=False):
    """Let the next call of `owner.name` begin, or end, with a signal."""
    act = getattr(owner, name)

    def with_signal(*arguments, **more):
        patch.undo()
        result = act(*arguments, **more) if after else None
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        return result if after else act(*arguments, **more)

    patch.setattr(owner, name, with_signal)
