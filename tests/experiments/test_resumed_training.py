"""A training that was interrupted, killed or made longer ends as if nothing had happened."""

import dataclasses
import importlib
import json
import os
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import save as serialise
from trainings import (
    command,
    newest_arrays,
    returns_in,
    same_checkpoint,
    signalled,
    summary,
    tiny_training,
    without_times,
)

from experiments import train
from experiments.harness import runner
from experiments.shared.training import build
from experiments.train import keeping, report, resume
from pgjax import _sealed, registry
from pgjax.saving import checkpoints, identity, rotation


@pytest.fixture(scope="module")
def train_run(tmp_path_factory):
    return tiny_training(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """(folder, last words) of a run that ended after its third update was logged and before it was saved."""
    hear = keeping.Keeper.hear

    def hear_two(self, metrics, states):
        if self.thinned.done == 2:
            self._write(self.thinned.add(metrics))
            raise KeyboardInterrupt
        hear(self, metrics, states)

    output = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(keeping.Keeper, "hear", hear_two)
        patch.setattr(build, "CHUNK_SECONDS", 1e-9)  # one update in each
        config = dataclasses.replace(train.TINY, checkpoint_every=0.0)
        runner.execute("train", config, train.run, output_dir=output, run_name="cut")
    return output / "train" / "cut-incomplete", caught.value.__notes__[-1]


@pytest.fixture
def cut(interrupted, tmp_path):
    """A copy of the interrupted run."""
    return shutil.copytree(interrupted[0], tmp_path / "train" / "cut-incomplete")


def test_an_interrupted_training_says_the_command_that_goes_on(interrupted):
    directory, words = interrupted
    output = directory.parent.parent
    assert words == f"To resume it: python -m experiments.train --resume {directory} --output-dir {output}"


def test_a_resumed_run_covers_the_whole_training(train_run, cut):
    assert [line["update"] for line in without_times(cut)] == [1, 2, 3] and list(rotation.numbered(cut)) == [1, 2]
    seen = {}
    config = train.Config(resume=cut.with_name("cut"))
    resumed = runner.execute("train", config, train.run, lambda found, _: seen.update(found))
    assert without_times(resumed) == without_times(train_run) and len(without_times(resumed)) == 4
    times = [json.loads(line)["elapsed_seconds"] for line in (resumed / "metrics.jsonl").read_text().splitlines()]
    assert times == sorted(times)
    same_checkpoint(train_run, resumed)
    curve = seen["curve"]
    assert curve.updates == [1, 2, 3, 4] and np.array(curve.returns).shape == (4, 4)
    assert np.array(curve.returns).T.tolist() == [
        list(run) for run in zip(*[line["mean_return"] for line in without_times(train_run)], strict=True)
    ]
    assert returns_in(resumed) == returns_in(train_run)
    assert summary(resumed)["seconds"] > json.loads((resumed / "earlier/1/summary.json").read_text())["seconds"]


def test_a_damaged_checkpoint_gives_way_to_the_older_one(train_run, cut, capsys):
    _, newer = rotation.numbered(cut).values()
    newer.write_bytes(newer.read_bytes()[:-7])
    resumed = runner.execute("train", train.Config(resume=cut), train.run)
    assert f"warning: {newer.name} is damaged, so the run goes on from an older one" in capsys.readouterr().out
    assert without_times(resumed) == without_times(train_run)
    same_checkpoint(train_run, resumed)


def test_a_log_that_was_changed_is_cut_where_it_can_no_longer_be_read(cut, capsys):
    (cut / "metrics.jsonl").write_bytes(b"{}\n" + (cut / "metrics.jsonl").read_bytes())
    resumed = runner.execute("train", train.Config(resume=cut), train.run)
    said = "metrics.jsonl is not as the run left it; the lines before the first damaged one are kept"
    assert said in " ".join(capsys.readouterr().out.split())
    assert [line["update"] for line in without_times(resumed)] == [3, 4]


def test_a_resumed_run_keeps_its_options_unless_they_are_given_anew(interrupted):
    directory, _ = interrupted
    options = train.resolve(train.Config(resume=directory))
    assert (options["eval_episodes"], options["num_updates"], options["lr"]) == (4, 4, (0.01, 0.1))
    options = train.resolve(train.Config(resume=directory, eval_episodes=100, num_updates=7, gif=False))
    assert (options["eval_episodes"], options["num_updates"], options["gif"]) == (100, 7, False)
    with pytest.raises(ValueError, match=r"--discount 0.5: a resumed run keeps its own value, 1.0; --allow discount"):
        train.resolve(train.Config(resume=directory, discount=0.5))
    with pytest.raises(ValueError, match=r"--env CartPole-v1: a resumed run keeps its own value, corridor"):
        train.resolve(train.Config(resume=directory, env="CartPole-v1"))
    options = train.resolve(train.Config(resume=directory, discount=0.5, lambda_=None, allow=("discount",)))
    assert options["discount"] == 0.5


def test_other_settings_are_refused_by_name_and_allowed_by_name(cut, capsys):
    resume_with = lambda **more: runner.execute("train", train.Config(resume=cut, **more), train.run)
    options = json.loads((cut / "options.json").read_text())
    (cut / "options.json").write_text(json.dumps(options | {"discount": 0.5}))
    with pytest.raises(runner.UsageError, match=r"discount \(saved 1.0, now 0.5\). .* add --allow discount"):
        resume_with()
    (cut / "options.json").write_text(json.dumps(options))
    with (
        jax.threefry_partitionable(False),
        pytest.raises(runner.UsageError, match=r"jax_threefry_part.*--allow numerics"),
    ):
        resume_with()
    assert cut.name == "cut-incomplete" and "earlier" not in {path.name for path in cut.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity.jaxlib.version, "__version__", "0.0.1")
        with pytest.raises(runner.UsageError, match=r'jaxlib \(saved "[\d.]+", now "0.0.1"\).*--allow versions'):
            resume_with()
        resumed = resume_with(lr=(0.001, 0.002), allow=("lr", "versions"))
    said = capsys.readouterr().out
    assert "changed: lr (saved [0.01, 0.1], now [0.001, 0.002])" in said and "changed: jaxlib" in said
    assert json.loads((resumed / "options.json").read_text())["lr"] == [0.001, 0.002]
    assert {row["variant"] for row in summary(resumed)["rows"]} >= {"lr 0.001", "lr 0.002"}


def test_what_is_resumed_is_found_by_its_name(tmp_path):
    asked = tmp_path / "name"
    for age, name in enumerate(("name", "name-incomplete-2", ".name.partial", "name-incomplete")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "options.json").write_text("{}")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    for name in ("name", "name-incomplete-2", ".name.partial", "name-incomplete"):
        assert resume.find(asked) == tmp_path / name
        assert resume.find(tmp_path / name) == tmp_path / name
        shutil.rmtree(tmp_path / name)
    with pytest.raises(
        ValueError, match=r"--resume .*name: this folder holds no run .*name-incomplete and \.name\.partial"
    ):
        resume.find(asked)


def test_a_run_whose_updates_are_all_done_is_evaluated_unless_it_has_been(train_run, tmp_path):
    with pytest.raises(runner.UsageError, match="--num-updates 4: the run has made 4 updates already"):
        runner.execute("train", train.Config(resume=train_run), train.run, output_dir=tmp_path)
    cut = tmp_path / "train" / "cut-incomplete"
    shutil.copytree(train_run, cut)
    (cut / "summary.json").write_text(json.dumps({"status": "interrupted"}))
    resumed = runner.execute("train", train.Config(resume=cut), train.run, report.plot)
    assert returns_in(resumed) == returns_in(train_run) and without_times(resumed) == without_times(train_run)


def test_a_complete_run_without_its_name_gets_it_and_nothing_runs(train_run, tmp_path, capsys):
    killed = tmp_path / "train" / ".done.partial"
    shutil.copytree(train_run, killed)
    runner.execute("train", train.Config(resume=killed.with_name("done")), None, dry_run=True)
    assert killed.is_dir() and not killed.with_name("done").exists()
    made = runner.execute("train", train.Config(resume=killed.with_name("done")), None)
    assert f"complete: {made}" in capsys.readouterr().out
    assert made == killed.with_name("done") and summary(made) == summary(train_run) and not killed.exists()


def test_a_longer_run_ends_where_an_uninterrupted_one_does_bit_for_bit(train_run, tmp_path):
    half = dataclasses.replace(train.TINY, num_updates=2, schedule_updates=4)
    first = runner.execute("train", half, train.run, output_dir=tmp_path, run_name="half")
    config = train.Config(resume=first, num_updates=4, eval_episodes=4)
    second = runner.execute("train", config, train.run, report.plot, output_dir=tmp_path, run_name="rest")
    assert (newest_arrays(second)["['states'].update"] == 4).all()
    same_checkpoint(train_run, second)
    assert without_times(second) == without_times(train_run)


def test_a_run_of_the_former_layout_is_resumed_bit_for_bit(train_run, cut):
    options = json.loads((cut / "options.json").read_text())
    options = {name: value for name, value in options.items() if name not in ("estimator", *registry.SETTINGS)}
    options |= {"returns": "total_return", "baseline": "moving_average", "loss": "score_function", "natural": None}
    options |= {"discount": 1.0, "lambda_": 0.95, "decay": 0.9, "clip": 0.2}
    options |= {"entropy_coef": 0.0, "over_time": "sum", "standardise": "none"}
    (cut / "options.json").write_text(json.dumps(options))
    # One file held the states, another one the measurements of every update.
    found, done = rotation.newest(cut), without_times(cut)
    states = found._replace(arrays={n: x for n, x in found.arrays.items() if n.startswith("['states']")})
    generators = {name.removeprefix("['states']"): kind for name, kind in found.generators.items()}
    arrays = {name.removeprefix("['states']"): x for name, x in states.arrays.items()}
    count = int(arrays[".update"][0])
    covered = {"format": 2, "generators": generators, "metadata": {}}
    header = covered | {"sha256": _sealed.digest(arrays, covered)}
    (cut / "state.safetensors").write_bytes(serialise(arrays, {"pgjax": json.dumps(header)}))
    columns = [np.array([line[name] for line in done[:count]]).T for name in ("num_steps", "mean_return")]
    history = {"num_steps": columns[0].astype(np.int32), "mean_return": columns[1].astype(np.float32)}
    checkpoints.save(cut / "history.safetensors", history, {"shape": [4, count]})
    for path in rotation.numbered(cut).values():
        path.unlink()
    resumed = runner.execute("train", train.Config(resume=cut), train.run)
    assert without_times(resumed) == without_times(train_run)


def test_the_file_of_the_user_is_part_of_the_identity(tmp_path, monkeypatch):
    (tmp_path / "own_resumed.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_resumed")
    first = build.own_code({"env": "own_resumed:make", "estimator": "gae"})
    (tmp_path / "own_resumed.py").write_text("x = 2")
    second = build.own_code({"env": "maze", "estimator": "own_resumed:make"})
    assert first.keys() == second.keys() == {"code of own_resumed"} and first != second
    assert build.own_code({"env": "gymnasium:CartPole-v1", "estimator": "gae"}) == {}
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package/__init__.py").write_text("x = 1")
    importlib.import_module("own_package")
    assert build.own_code({"env": "own_package:make", "estimator": "gae"}).keys() == {"code of own_package"}


@pytest.mark.parametrize("after", [False, True])
def test_what_was_allowed_stays_allowed_until_it_is_saved(cut, monkeypatch, capsys, after):
    with monkeypatch.context() as patch:
        signalled(patch, rotation, "save", after=after)
        assert command("--resume", str(cut), "--allow", "lr", "--lr", "0.001", "0.002") == 75
    assert f"To resume it: python -m experiments.train --resume {cut}" in capsys.readouterr().err
    assert command("--resume", str(cut)) == 0
    options = json.loads((cut.with_name("cut") / "options.json").read_text())
    assert options["lr"] == [0.001, 0.002] and options["allow"] == []
    assert ("changed: lr" in capsys.readouterr().out) != after


def test_an_option_that_is_typed_applies_even_if_it_is_the_default(cut, capsys):
    saved = json.loads((cut / "options.json").read_text())
    (cut / "options.json").write_text(json.dumps(saved | {"gif": False, "seed": 3, "checkpoint_every": 7.0}))
    plain = train.resolve(train.Config(resume=cut))
    assert (plain["gif"], plain["seed"], plain["checkpoint_every"], plain["references"]) == (False, 3, 7.0, False)
    words = ["--gif", "--references", "--checkpoint-every=60", "--allow", "seed", "--seed", "0"]
    assert command("--dry-run", "--resume", str(cut), *words) == 0
    said = capsys.readouterr().out.splitlines()
    assert {"--gif True", "--references True", "--checkpoint-every 60.0", "--seed 0"} <= set(said)
    assert command("--dry-run", "--resume", str(cut), "--seed", "0") == 2
    assert "--seed 0: a resumed run keeps its own value, 3; --allow seed lets it change" in capsys.readouterr().err


def test_a_folder_in_the_way_that_can_be_resumed_is_named(cut, capsys):
    killed = cut.rename(cut.with_name(".cut.partial"))
    assert command("--tiny", "--run-name", "cut", "--output-dir", str(killed.parents[1])) == 2
    assert f"go on with its run by --resume {killed}, or choose another name" in capsys.readouterr().err


def test_a_dry_run_refuses_what_the_resumed_run_would(cut, capsys):
    assert command("--dry-run", "--resume", str(cut)) == 0
    saved = json.loads((cut / "options.json").read_text())
    (cut / "options.json").write_text(json.dumps(saved | {"seed": 3}))
    for words in (["--dry-run"], []):
        assert command(*words, "--resume", str(cut)) == 2
        assert "was saved with other settings: seed (saved 0, now 3)" in capsys.readouterr().err
