"""The loop on text continues bit for bit after every stage; the gold score, a person's labels, and pretraining."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import pretraining, rlhf
from experiments.harness import runner
from experiments.rlhf import gold, loop, preparing, report, stages
from experiments.rlhf.problem import make_features, make_problem
from experiments.shared import language
from pgjax import networks
from pgjax.datasets.text import Document
from pgjax.environments.text import TextBuffer
from pgjax.preferences import Preference, records

WORDS = ("cat", "dog", "sat", "ran", "the", "mat", "far", "red")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file of many short documents of sentences."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("text") / "small.jsonl"
    sentence = lambda: f"The {' '.join(generator.choice(WORDS, 6))}."
    lines = [json.dumps({"text": " ".join(sentence() for _ in range(3))}) for _ in range(40)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def small(written):
    """The stages of two small runs, with β = 0.1 and 0 and 4 and 2 pairs of a round; θ, the problem, the options."""
    config = dataclasses.replace(
        rlhf.TINY, text=(written,), prompt_bytes=8, max_new_tokens=5, estimator="ppo_gae", epochs=2
    )
    split = config.split()
    model = networks.LlamaConfig(vocabulary=256, width=8, layers=1, heads=2, inner=8, context=32)
    params = networks.make_language_model(model).init(jax.random.key(0))
    prompts = [language.make_prompts(part, 8, 4, whole_words=True) for part in (split.valid, split.test)]
    words = [word.encode() for word in WORDS]
    problem = make_problem(model, tuple(prompts), split.test[:2], gold.good_sentence(words), 5)
    keys = jax.vmap(jax.random.key)(jnp.zeros(2, jnp.int32))
    one_run = lambda: loop.Loop(problem, config.sizes(), labelled=False)
    make = lambda: stages.Runs(one_run(), keys, np.array([0.1, 0.0]), np.array([4, 2]))
    return make, params, problem, config


@pytest.fixture(scope="module")
def runs(small):
    """The stages compiled once."""
    return small[0]()


def equal(got, wanted):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        as_numbers = lambda x: np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        np.testing.assert_array_equal(as_numbers(a), as_numbers(b))


def test_a_run_continues_bit_for_bit_after_a_kill_between_any_two_stages(small, runs, tmp_path):
    make, params, *_ = small
    options = {"seed": 0, "text": ("a",)}
    order = stages.plan(2)
    like = saved = runs.begin(params, None)
    for done in range(1, len(order) + 1):
        stages.save(tmp_path / f"{done}.safetensors", saved, done, options)
        saved = runs.advance(saved, order[done]) if done < len(order) else saved
    whole = saved
    assert [stage.name for stage in order].count("evaluate") == 3
    for done in range(1, len(order)):
        saved, found = stages.restore(tmp_path / f"{done}.safetensors", like, options)
        assert found == done
        for stage in order[done:]:
            saved = runs.advance(saved, stage)
        equal(saved, whole)
    # A new process compiles anew: the last stages by other programs.
    saved, _ = stages.restore(tmp_path / "9.safetensors", like, options)
    equal(make().advance(saved, order[9]), whole)
    with pytest.raises(ValueError, match="other options: seed"):
        stages.restore(tmp_path / "3.safetensors", like, options | {"seed": 1})
    # Both runs begin alike and differ by β alone.
    np.testing.assert_array_equal(whole.numbers["gold"][0, 0], whole.numbers["gold"][1, 0])
    assert np.abs(whole.numbers["kl"][:, 0]).max() < 1e-5 and np.isfinite(whole.curves["kl"]).all()
    # Of the five comparisons of a round the first run is fitted to four and the second to two; the last is held out.
    np.testing.assert_array_equal(whole.states.weights, [[1, 1, 1, 1, 0] * 2, [1, 1, 0, 0, 0] * 2])
    np.testing.assert_array_equal(whole.states.held_out, [[0, 0, 0, 0, 1] * 2] * 2)
    # The value was learnt in each update, and its fit began at the body of θ_ref with a head of its own.
    learnt = whole.states.train.estimator_state
    assert learnt.num_updates.tolist() == [4, 4] and (learnt.scale > 0).all()
    assert np.abs(learnt.params["tokens"][0] - params["tokens"]).max() > 1e-4
    np.testing.assert_array_equal(like.states.train.estimator_state.params["tokens"][0], params["tokens"])
    # All rounds, both β and all reward models use one program for each stage.
    assert {name: program._cache_size() for name, program in runs._programs.items()} == dict.fromkeys(runs._programs, 1)


def test_the_loss_of_a_reward_model_is_measured_on_held_out_labels_above_the_floor(small, runs):
    _, params, problem, _ = small
    saved = runs.begin(params, None)
    for stage in stages.plan(1)[2:4]:
        saved = runs.advance(saved, stage)
    labels, held_out = saved.states.comparisons, 4
    gold = lambda buffers: problem.gold.score(jax.tree.map(lambda x: x[0, held_out], buffers), problem.gold.params)
    p = 1 / (1 + np.exp(-(float(gold(labels.first)) - float(gold(labels.second))) / rlhf.TINY.temperature))
    wanted = -p * np.log(p) - (1 - p) * np.log(1 - p) if 0 < p < 1 else 0.0
    np.testing.assert_allclose(saved.fits["entropy_floor"][0, 0], wanted, atol=1e-5)
    assert (saved.fits["excess_loss"][:, 0] >= 0).all() and np.isfinite(saved.fits["held_out_loss"][:, 0]).all()
    # The labels of the fit are others: the held-out one has no influence on the fit.
    assert (
        set(saved.fits) == set(report.OF_FITS) and (saved.fits["loss"][:, 0] != saved.fits["held_out_loss"][:, 0]).all()
    )


QUICK = ("reinforce_moving_average", "grpo")
LONG = ("rloo", "dr_grpo", "reinforce_plus_plus", "ppo")
ESTIMATORS = (*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_of_answers_trains_in_the_loop_by_its_name(name, small):
    _, params, problem, config = small
    config = dataclasses.replace(config, estimator=name, epochs=1, updates=1)
    config.validate()
    one_run = loop.Loop(problem, config.sizes(), labelled=False)

    @jax.jit
    def update(key):
        state = one_run.begin(key, jnp.float32(0.1), jnp.int32(4), params, None)
        state, found = one_run.optimise(state, jnp.int32(0))
        return state.train.params, found["kl"]

    new, kl = update(jax.random.key(0))
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), new, params)
    # Adam's first step is the learning rate wherever the gradient is not 0.
    assert max(jax.tree.leaves(moved)) == pytest.approx(config.learning_rate, rel=0.1)
    assert np.isfinite(kl).all()


def test_the_gold_score_is_what_it_says():
    found = gold.good_sentence([b"the", b"cat", b"sat"])
    buffer = lambda prompt, answer: TextBuffer(
        tokens=np.frombuffer((prompt + answer).ljust(64, b"\0"), np.uint8),
        length=np.int32(len(prompt + answer)),
        prompt_length=np.int32(len(prompt)),
    )
    judge = jax.jit(found.parts)
    parts = lambda answer: {k: float(v) for k, v in judge(buffer(b"\xfethe ", answer), found.params).items()}
    assert parts(b"the cat sat the cat sat.\xff")["words"] == 1.0
    assert parts(b"the cat sat the cat sat.\xff")["closed"] == 1.0
    assert parts(b"the dog sat.")["words"] == pytest.approx(2 / 6) and parts(b"the dog sat.")["closed"] == 0.0
    assert parts(b"one two three four five six the the")["words"] == pytest.approx(2 / 8)
    assert parts(b"abcdabcd")["fresh"] == pytest.approx(1 - 1 / 5) and parts(b"aaaaaa")["fresh"] == pytest.approx(1 / 3)
    # The prompt has no influence, and the score is the sum.
    other = judge(buffer(b"\xfexyz xyz ", b"the cat.\xff"), found.params)
    assert {k: float(v) for k, v in other.items()} == parts(b"the cat.\xff")
    total = float(jax.jit(found.score)(buffer(b"\xfe", b"the cat.\xff"), found.params))
    assert total == pytest.approx(sum(parts(b"the cat.\xff").values()))


def test_a_score_of_a_user_is_imported_and_a_wrong_one_refused(tmp_path, monkeypatch):
    (tmp_path / "my_score.py").write_text("def length(buffer):\n    return buffer.length - buffer.prompt_length\n")
    monkeypatch.syspath_prepend(tmp_path)
    buffer = TextBuffer(tokens=jnp.zeros(4), length=jnp.int32(3), prompt_length=jnp.int32(1))
    assert gold.of_user("my_score:length").score(buffer, ()) == 2
    for wrong in ("my_score:no", "no_module:x", "sentences"):
        with pytest.raises(ValueError, match=f"--gold {wrong}"):
            gold.of_user(wrong)


def test_features_tell_classes_of_bytes_apart():
    features = make_features(10)
    count = lambda text: np.asarray(
        features(TextBuffer(np.frombuffer(text.ljust(12), np.uint8), np.int32(len(text)), np.int32(0)))
    )
    assert count(b"ab.").shape == (1025,)
    np.testing.assert_array_equal(count(b"AB1 x"), count(b"QZ7 x"))
    assert (count(b"ab.") != count(b"ac.")).any() and (count(b"ab.") != count(b"ab,")).any()


def test_labels_of_a_person_become_comparisons(tmp_path, written):
    path = tmp_path / "mine.jsonl"
    records.append(path, Preference(prompt="The ", chosen="cat.", rejected="dg", annotator="ada"))
    records.append(path, Preference(prompt="The ", chosen="a" * 99, rejected="b"))
    config = dataclasses.replace(rlhf.TINY, text=(written,), preferences=path)
    labels, weights, _ = preparing.read_labels(config)
    assert labels.outcomes.tolist() == [0] and weights.tolist() == [1] and config.sizes().rounds == 1
    first = np.asarray(labels.first.tokens[0])
    assert bytes(first[: int(labels.first.length[0])]) == b"\xfeThe cat.\xff"
    assert labels.first.tokens.shape == (1, config.places)
    # A ranking is one label, however many pairs it has.
    records.append(path, Preference(prompt="The ", chosen="a.", rejected="c.", ranking=["a.", "b.", "c."]))
    np.testing.assert_allclose(preparing.read_labels(config)[1], [1, 1 / 3, 1 / 3, 1 / 3])
    # Of several prompts some are held out whole, with all their answers.
    for n in range(7):
        records.append(path, Preference(prompt=f"{n} ", chosen="a.", rejected="c.", ranking=["a.", "b.", "c."]))
    _, weights, held_out = preparing.read_labels(dataclasses.replace(config, held_out=0.25))
    prompts = np.repeat(np.arange(8), [4, *[3] * 7])
    of_prompt = [set((held_out[prompts == n] > 0).tolist()) for n in range(8)]
    assert of_prompt.count({True}) == 2 and of_prompt.count({False}) == 6
    assert ((weights > 0) ^ (held_out > 0)).all()
    assert (preparing.read_labels(dataclasses.replace(config, held_out=0.0)).held_out == 0).all()


def test_prompts_begin_with_bos_and_end_with_a_word():
    documents = [
        Document(str(n), text) for n, text in enumerate(("One two three.", "One two four.", "Short.", "Nospacehere"))
    ]
    found = language.make_prompts(documents, 9, whole_words=True)
    assert found.tokens.shape == (1, 10) and found.lengths.tolist() == [9]
    assert bytes(found.tokens[0]) == b"\xfeOne two \0"
    assert len(language.make_prompts(documents, 9).lengths) == 3
    with pytest.raises(ValueError, match="documents of more than 99 bytes"):
        language.make_prompts(documents, 99)


def test_distinct_counts_pairs_of_words():
    assert report.distinct(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert report.distinct(["a", ""], 2) == 0.0


@pytest.mark.slow
def test_a_pretrained_policy_starts_the_loop_and_the_loop_writes_pairs(written, tmp_path):
    tiny = dataclasses.replace(pretraining.TINY, text=(written,), unit="sentences", context=40, batch_size=256)
    directory = runner.execute("pretraining", tiny, pretraining.run, pretraining.plot, output_dir=tmp_path)
    summary = json.loads((directory / "summary.json").read_text())
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    assert rows["bits per byte, test", pretraining.MODEL]["verdict"].startswith("not as expected: aim below")
    assert rows["bits per byte, test", pretraining.LZMA_AFTER]["ours"] < rows["bits per byte, test", "lzma"]["ours"]
    assert (directory / "pretraining.png").is_file() and len(rows) == 5
    model, params = language.load_language_model(directory)
    policy = networks.make_language_policy(language.make_reader(model.context), model)
    again = language.bits_per_byte(policy, params, tiny.split().test, model.context)
    assert again == rows["bits per byte, test", pretraining.MODEL]["ours"]


@pytest.mark.slow
def test_the_whole_loop_is_reported(written, tmp_path):
    config = dataclasses.replace(rlhf.TINY, text=(written,), seeds=2, pairs=(2, 4))
    directory = runner.execute("rlhf", config, rlhf.run, rlhf.plot, output_dir=tmp_path)
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    variants = {row["variant"] for row in rows if row["quantity"] == "gold score"}
    combinations = {f"β = {b}, {n} pairs" for b in ("0.1", "0") for n in (2, 4)}
    others = {f"{name}, {n} pairs" for name in ("best of 2, KL at most 0.19", "DPO") for n in (2, 4)}
    assert variants == {"reference"} | combinations | others
    # Errors are over seeds, and every quantity of a reward model has a row for each combination.
    assert all(row["stderr"] is not None for row in rows if row["variant"] != "reference")
    assert {row["quantity"] for row in rows} >= set(report.OF_FITS.values())
    pairs = [json.loads(line) for line in (directory / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 10 and set(pairs[0]) == {"prompt", "answers", "policy", "seed", "step", "logp"}
    assert (directory / "rlhf.png").is_file() and (directory / "policy.safetensors").is_file()
    # A complete run that is resumed has nothing left to do, and says the same.
    resumed = dataclasses.replace(rlhf.TINY, resume=directory)
    other = runner.execute("rlhf", resumed, rlhf.run, rlhf.plot, output_dir=tmp_path)
    assert json.loads((other / "summary.json").read_text())["rows"] == rows


def test_wrong_options_are_refused(written):
    for change, message in (
        ({"episodes": 3}, "--episodes 3"),
        ({"kl_coefs": (0.1, 0.1)}, "--kl-coefs"),
        ({"estimator": "rlo"}, "rloo"),
        ({"epochs": 2}, "--epochs 2: must be 1 with --estimator rloo"),
        ({"pairs": (4, 4)}, "--pairs 4 4: must be different numbers"),
        ({"pairs": (4, 2), "preferences": written}, "--pairs 4 2: must be one number with --preferences"),
        ({"held_out": 0.6}, "--held-out 0.6"),
        ({"width": 33}, "--width 33"),
    ):
        with pytest.raises(runner.UsageError, match=message):
            dataclasses.replace(rlhf.TINY, text=(written,), **change).validate()


@pytest.mark.slow
def test_labels_of_a_person_train_a_policy(written, tmp_path):
    path = tmp_path / "mine.jsonl"
    for word in WORDS:
        records.append(path, Preference(prompt="The ", chosen=f"{word}.", rejected="xxxx", annotator="ada"))
    config = dataclasses.replace(rlhf.TINY, text=(written,), preferences=path, kl_coefs=(0.1,))
    directory = runner.execute("rlhf", config, rlhf.run, rlhf.plot, output_dir=tmp_path)
    summary = json.loads((directory / "summary.json").read_text())
    rows = {(row["quantity"], row["variant"]): row["ours"] for row in summary["rows"]}
    assert np.isfinite(rows["proxy score", "β = 0.1"])
    assert len((directory / "pairs.jsonl").read_text().splitlines()) == 4
    assert not any("simulates the labels" in note for note in summary["notes"])
