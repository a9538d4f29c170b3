"""The loop on text continues bit for bit after every stage; its hold-out, updates and keys; a person's labels."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import pretraining, rlhf
from experiments.harness import runner
from experiments.rlhf import gold, keys, loop, optimising, preparing, report, stages
from experiments.rlhf.problem import make_problem
from experiments.shared import language
from pgjax import imitation, networks, registry, rollouts
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
    of_runs = jax.vmap(jax.random.key)(jnp.zeros(2, jnp.int32))
    one_run = lambda: loop.Loop(problem, config.sizes(), labelled=False)
    make = lambda: stages.Runs(one_run(), of_runs, np.array([0.1, 0.0]), np.array([4, 2]))
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


def test_no_held_out_label_reaches_the_fit(small, runs):
    sampled = runs.advance(runs.begin(small[1], None), stages.Stage("sample", 0))

    def fitted(changed):
        """φ and the held-out loss when the outcomes where `changed` is true are 0, and when they are 1."""
        labels = sampled.states.comparisons
        for outcome in (0, 1):
            other = labels._replace(outcomes=jnp.where(changed, outcome, labels.outcomes))
            saved = sampled._replace(states=sampled.states._replace(comparisons=other))
            saved = runs.advance(saved, stages.Stage("fit", 0))
            yield jax.tree.map(np.asarray, saved.states.train.reward_state[0]), saved.fits["held_out_loss"][:, 0]

    (first, loss), (second, other_loss) = fitted(sampled.states.held_out > 0)
    equal(first, second)
    assert (loss != other_loss).all()
    # The same change of the labels of the fit changes φ.
    (first, _), (second, _) = fitted(sampled.states.weights > 0)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


def one_update(problem, config, params, reference):
    """θ after the first update of the loop, and θ after a step that is written out here, with θ_ref = `reference`."""
    one_run = loop.Loop(problem, config.sizes(), labelled=False)
    kl_coef, policy = 0.1, problem.policy
    kinds = {"k1": lambda x: x, "k2": lambda x: x**2 / 2, "k3": lambda x: jnp.exp(-x) - 1 + x}

    def at_end(played, x):
        places = jnp.arange(len(played.alive))[:, None]
        return jnp.where(places == jnp.sum(played.alive, axis=0) - 1, x, 0.0)

    def divergence(theta, played):
        """The estimate `[T, B]` of the KL of θ to θ_ref on the actions that were played."""
        buffers = played.final_obs
        of_tokens = lambda theta: imitation.token_log_probs(policy, theta, buffers.tokens)
        place = buffers.prompt_length + jnp.arange(len(played.alive))[:, None] - 1
        ratios = jnp.take_along_axis((of_tokens(theta) - of_tokens(reference)).T, place, axis=0, mode="clip")
        ratios = jnp.where(played.alive, ratios, 0.0)
        if config.kl_level == "token":
            return jnp.where(played.alive, kinds[config.kl_kind](ratios), 0.0)
        return at_end(played, kinds[config.kl_kind](jnp.sum(ratios, axis=0)))

    def by_hand(train):
        of_episodes = jax.random.split(jax.random.fold_in(train.key, train.update), config.episodes)
        how = {"group_size": config.group_size, "record_log_probs": True}
        played = rollouts.episodes(problem.train, policy, params, of_episodes, **how)
        proxies = jax.vmap(one_run.scored.apply, (None, 0))(train.reward_state[0].params, played.final_obs)
        paid = at_end(played, proxies)
        if config.kl_placement != "loss":
            paid = paid - kl_coef * divergence(params, played)
        needs_value = "value" in registry.find(config.estimator).needs
        value = optimising.make_value(problem, config.value_learning_rate) if needs_value else None
        parts = registry.Parts(policy=policy, value=value, group_size=config.group_size)
        state = train.estimator_state if config.kl_placement == "reward" else train.estimator_state[0]
        estimator = registry.make(config.estimator, parts)
        gradient = estimator.gradient(params, state, played._replace(rewards=paid))[0]
        if config.kl_placement != "reward":
            lost = lambda theta: -kl_coef * jnp.mean(jnp.sum(divergence(theta, played), axis=0))
            gradient = jax.tree.map(jnp.add, gradient, jax.grad(lost)(params))
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(config.learning_rate))
        steps, _ = optimizer.update(jax.tree.map(jnp.negative, gradient), optimizer.init(params))
        return optax.apply_updates(params, steps)

    @jax.jit
    def update(key):
        state = one_run.begin(key, jnp.float32(kl_coef), jnp.int32(4), reference, None)
        state = state._replace(train=state.train._replace(params=params))
        return one_run.optimise(state, jnp.int32(0))[0].train.params, by_hand(state.train)

    return update(jax.random.key(0))


def require_same_step(problem, config, params):
    config.validate()
    reference = jax.tree.map(lambda x: x + 0.1 * jnp.cos(jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)), params)
    got, wanted = one_update(problem, config, params, reference)
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), got, params)
    # Adam's first step is the learning rate η wherever the gradient is not 0.
    assert max(jax.tree.leaves(moved)) == pytest.approx(config.learning_rate, rel=0.1)
    # The step has the sign of the gradient, so other gradients differ by 2 η; rounding matters where it is about 0.
    far = [
        np.abs(a - b) > 0.1 * config.learning_rate for a, b in zip(*map(jax.tree.leaves, (got, wanted)), strict=True)
    ]
    assert sum(x.sum() for x in far) <= 0.002 * sum(x.size for x in far)


K1 = ("reward", "k1", "token")
QUICK = [("reinforce_moving_average", *K1), ("grpo", "both", "k2", "sequence")]
LONG = [(name, *K1) for name in ("grpo", "rloo", "dr_grpo", "reinforce_plus_plus", "ppo")]
LONG += [("rloo", "loss", "k2", "sequence"), ("rloo", "both", "k3", "token"), ("rloo", "reward", "k3", "sequence")]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONG)]


@pytest.mark.parametrize(("name", "placement", "kind", "level"), CASES)
def test_every_estimator_of_answers_trains_by_its_name_and_the_kl_term_stands_where_it_should(
    name, placement, kind, level, small
):
    _, params, problem, config = small
    config = dataclasses.replace(config, kl_placement=placement, kl_kind=kind, kl_level=level)
    require_same_step(problem, dataclasses.replace(config, estimator=name, epochs=1, updates=1), params)


def test_a_predicted_return_starts_from_the_reference_wherever_the_state_holds_it(small):
    _, params, problem, config = small
    settings = config.sizes().optimising
    one_run = loop.Loop(problem, config.sizes(), labelled=False)
    train = jax.jit(one_run._trainer.init)(jax.random.key(1))
    started = lambda state: optimising.started(
        jax.random.key(2), train._replace(estimator_state=state), params, jnp.float32(0.1), settings
    )
    value = train.estimator_state
    _, (found, kept) = started((1, (value, 2.0))).estimator_state
    np.testing.assert_array_equal(found.params["tokens"], params["tokens"])
    assert kept == 2.0 and (value.params["tokens"] != params["tokens"]).any()
    with pytest.raises(ValueError, match=r"ppo_gae: its state must hold one predicted return.* got 0"):
        started(())


def test_no_two_purposes_share_a_key():
    config = dataclasses.replace(rlhf.TINY, seeds=3)
    seen = []
    for purpose in keys.Purpose:
        own = keys.of_runs(config, purpose, 2)
        equal(own[:3], own[3:])
        for seed, key in enumerate(own[:3]):
            equal(key, keys.of_seed(seed, purpose))
            children = [jax.random.fold_in(key, n) for n in range(6)]
            data = [key, *jax.random.split(key, 6), *children]
            seen.append({tuple(jax.random.key_data(x).tolist()) for x in data})
    assert len(set.union(*seen)) == sum(map(len, seen)) and len(seen) == 3 * len(keys.Purpose)


def test_labels_of_a_person_become_comparisons(tmp_path, written):
    path = tmp_path / "mine.jsonl"
    records.append(path, Preference(prompt="The ", chosen="cat.", rejected="dg", annotator="ada"))
    records.append(path, Preference(prompt="The ", chosen="a" * 99, rejected="b"))
    config = dataclasses.replace(rlhf.TINY, text=(written,), preferences=path, held_out=0.0)
    with pytest.raises(ValueError, match=r"--held-out 0.2: must be 0, or .* of which there are 1"):
        preparing.read_labels(dataclasses.replace(config, held_out=0.2))
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
    assert all(row["stderr"] is not None for row in rows)
    assert {row["quantity"] for row in rows} >= set(report.OF_FITS.values())
    pairs = [json.loads(line) for line in (directory / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 10 and set(pairs[0]) == {"prompt", "answers", "policy", "seed", "step", "logp"}
    assert (directory / "rlhf.png").is_file() and (directory / "policy.safetensors").is_file()
    longer = dataclasses.replace(rlhf.TINY, resume=directory, rounds=5)
    with pytest.raises(runner.UsageError, match="--rounds 5: must be left out with --resume; the run has 2"):
        rlhf.run(longer, None)
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
        ({"held_out": 0.1}, "--held-out 0.1: must be 0, or large enough .* beside --pairs 4"),
        ({"kl_kind": "full", "kl_placement": "both", "kl_level": "sequence"}, "--kl-level sequence: must be token"),
        ({"width": 33}, "--width 33"),
    ):
        with pytest.raises(runner.UsageError, match=message):
            dataclasses.replace(rlhf.TINY, text=(written,), **change).validate()


@pytest.mark.slow
def test_labels_of_a_person_train_a_policy(written, tmp_path):
    path = tmp_path / "mine.jsonl"
    for word in WORDS:
        records.append(path, Preference(prompt="The ", chosen=f"{word}.", rejected="xxxx", annotator="ada"))
    config = dataclasses.replace(rlhf.TINY, text=(written,), preferences=path, held_out=0.0, kl_coefs=(0.1,))
    directory = runner.execute("rlhf", config, rlhf.run, rlhf.plot, output_dir=tmp_path)
    summary = json.loads((directory / "summary.json").read_text())
    rows = {(row["quantity"], row["variant"]): row["ours"] for row in summary["rows"]}
    assert np.isfinite(rows["proxy score", "β = 0.1"])
    assert len((directory / "pairs.jsonl").read_text().splitlines()) == 4
    assert not any("simulates the labels" in note for note in summary["notes"])
