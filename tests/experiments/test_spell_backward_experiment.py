"""The experiment on spelling backward: its table and figure, its aims, whose words it asks, and what it refuses."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import spell_backward
from experiments.harness import runner
from experiments.shared import learning_curves
from experiments.spell_backward import ANSWER, LETTER
from pgjax import networks
from pgjax.environments.spell_backward import make_spell_backward
from pgjax.types import Policy


def rows_of(directory):
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    return {(row["quantity"], row["variant"]): row for row in rows}


def test_a_tiny_run_writes_its_table_and_its_figure(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("# a comment\n" + "\n".join(("ab", "abc", "bca", "cab", "acb", "bac", "cba", "aab", "abb", "bcc")))
    config = dataclasses.replace(spell_backward.TINY, words=str(words))
    directory = runner.execute("spell_backward", config, spell_backward.run, spell_backward.plot, output_dir=tmp_path)
    rows = rows_of(directory)
    assert ("seeds solved", LETTER) in rows and ("CPU seconds until 99%, median", LETTER) in rows
    assert [path.stem for path in directory.glob("*.png")] == ["spell_backward"]
    curves = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [(curve["run"], curve["updates"]) for curve in curves] == [(0, [0, 1, 2]), (1, [0, 1, 2])]


def test_every_held_out_word_is_asked_once():
    """A policy that writes the mirrored place is right; one that writes a for every letter is right on words of a."""
    environment = make_spell_backward(("abc", "aa", "aaaa", "ba"), max_letters=4)
    known = networks.make_policy(environment, network="transformer", hidden=(4,), network_options={"heads": 2})

    def logits(mirrored: bool):
        def apply(params, obs):
            token = obs.tokens[jnp.clip(9 - obs.length, 0, 4)].astype(jnp.int32)
            letter = token if mirrored else 0
            return jax.nn.one_hot(jnp.where(token > 25, 26, letter), 28) + params

        return Policy(init=known.init, apply=apply, distribution=known.distribution)

    for mirrored, right in ((True, 1.0), (False, 0.5)):
        share = spell_backward.make_share(environment, logits(mirrored))
        state = type("State", (), {"params": jnp.zeros(())})
        assert float(share(state)) == right


class Rows(list):
    def row(self, **fields):
        self.append(fields)

    def metrics(self, record):
        pass


@pytest.mark.parametrize(
    ("second", "slow", "verdicts", "updates"),
    [
        ([0.0, 0.5, 1.0], 2.0, ("agrees", "agrees"), 7.5),
        ([0.0, 0.5, 0.9], 2.0, ("not as expected", "not as expected"), np.inf),
        ([0.0, 1.0, 0.9], 2.0, ("not as expected", "agrees"), 5.0),
        ([0.0, 0.5, 1.0], 61.0, ("agrees", "not as expected"), 7.5),
    ],
)
def test_aims_are_met_by_all_seeds_or_missed_and_only_one_way_has_aims(second, slow, verdicts, updates):
    seconds, shares = np.array([[0, 1, 2], [0, 1, slow]], float), np.array([[0.0, 0.99, 1.0], second])
    times = {"seconds": seconds, "cpu_seconds": 2 * seconds, "compile_seconds": 1.0}
    found = learning_curves.Learnt(shares=shares, updates=5 * np.arange(3), **times)
    for way, wanted in ((LETTER, verdicts), (ANSWER, ("not judged", "not judged"))):
        rows = Rows()
        spell_backward.record(way, found, rows)
        by_quantity = {row["quantity"]: row for row in rows}
        judged = (by_quantity["seeds solved"], by_quantity["seconds until 99%, median"])
        assert tuple(row["verdict"].partition(":")[0] for row in judged) == wanted
        assert by_quantity["updates until 99%, median"]["ours"] == updates


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ways": (LETTER, LETTER)}, r"--ways letter letter: must be among letter, letters to go, answer, each once"),
        ({"words": "nowhere.txt"}, r"--words nowhere.txt: must be a file with one word a line"),
        ({"seeds": 1}, r"--seeds 1: must be at least 2"),
        ({"updates": 15}, r"--updates 15: must be a multiple of --evaluate-every 10"),
        ({"episodes": 30}, r"--episodes 30: must be a multiple of --group-size 4"),
        ({"hidden": (8, 4)}, r"--hidden 8 4: must be one width"),
        ({"heads": 3}, r"--heads 3: must be a divisor of the width 64"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, words):
    with pytest.raises(runner.UsageError, match=words):
        runner.execute("spell_backward", spell_backward.Config(**options), spell_backward.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_of_words_with_another_character_is_refused(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("house\nnaïve\n", encoding="utf-8")
    with pytest.raises(runner.UsageError, match="must use the characters"):
        spell_backward.word_lists(spell_backward.Config(words=str(words)))


@pytest.mark.slow
def test_at_its_defaults_words_are_spelled_backward(tmp_path):
    config = spell_backward.Config(ways=(LETTER,), seeds=3)
    rows = rows_of(runner.execute("spell_backward", config, spell_backward.run, output_dir=tmp_path))
    assert rows["seeds solved", LETTER]["ours"] == 3
