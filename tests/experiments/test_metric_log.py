"""Lines of the log, and copies of them for TensorBoard and W&B, which modules of the test stand in for."""

import json
import re
import sys
import types

import pytest

from experiments.harness import metric_log, runner
from experiments.train import Config


class Writer:
    def __init__(self, directory, purge_step=None):
        self.made = (directory, purge_step)
        self.scalars, self.closed = [], False
        Writer.last = self

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


class Run:
    def __init__(self, **options):
        self.options, self.logged, self.finished = options, [], False
        Run.last = self

    def log(self, numbers, step):
        self.logged.append((numbers, step))

    def finish(self):
        self.finished = True


@pytest.fixture
def fakes(monkeypatch):
    board, bias = types.ModuleType("tensorboardX"), types.ModuleType("wandb")
    board.SummaryWriter, bias.init = Writer, lambda **options: Run(**options)
    for name, module in (("tensorboardX", board), ("wandb", bias)):
        module.__spec__ = types.SimpleNamespace(name=name)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def write(tmp_path, first=1):
    log = metric_log.MetricLog(tmp_path / "metrics.jsonl")
    for destination in ("tensorboard", "wandb"):
        log.copies.append(metric_log.make_copy(destination, tmp_path, "a run", {"lr": [0.1]}, first))
    log.write({"update": 7, "mean_return": [1.0, float("nan")], "word": "w", "flag": True, "loss": 2})
    log.close()


def test_every_line_is_copied_as_numbers_of_its_update(tmp_path, fakes):
    write(tmp_path)
    numbers = {"update": 7.0, "mean_return/0": 1.0, "loss": 2.0}
    assert Writer.last.made == (str(tmp_path / "tensorboard"), None) and Writer.last.closed
    assert Writer.last.scalars == [(name, value, 7) for name, value in numbers.items()]
    assert Run.last.logged == [(numbers, 7)] and Run.last.finished
    options = Run.last.options
    assert (options["mode"], options["resume"], options["config"]) == ("offline", "allow", {"lr": [0.1]})
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["mean_return"] == [1.0, None]


def test_wandb_knows_a_run_again_and_no_other_run_of_its_name(tmp_path, fakes):
    made = []
    for folder in ("one/a run", "one/.a run.partial", "two/a run"):
        metric_log.make_copy("wandb", tmp_path / folder, "a run", {}, 1)
        made.append(Run.last.options["id"])
    assert made[0] == made[1] != made[2] and made[0].startswith("a-run-")


def test_a_resumed_run_replaces_its_later_lines_and_the_user_may_go_online(tmp_path, fakes, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "none")
    write(tmp_path, first=31)
    assert Writer.last.made[1] == 31 and Run.last.options["mode"] is None


@pytest.mark.parametrize(("destination", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(destination, module, monkeypatch):
    monkeypatch.setattr(metric_log.importlib.util, "find_spec", lambda name: None)
    words = re.escape(f'--log-to {destination}: needs {module}; pip install -e ".[{destination}]" installs it')
    with pytest.raises(runner.UsageError, match=words):
        Config(log_to=(destination,)).validate()
