"""What the stages work on: the text, the language model with its θ, and a person's labels."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import runner
from experiments.rlhf import gold, keys, loop, report, stages
from experiments.rlhf.problem import Problem, make_problem
from experiments.shared import language
from pgjax import networks, writing
from pgjax.datasets.text import Split
from pgjax.preferences import labelled_texts, records
from pgjax.types import PyTree


class Setting(NamedTuple):
    """What the stages work on: the language model with its θ, the problem, one run, and all runs."""

    model: networks.LlamaConfig
    params: PyTree
    problem: Problem
    loop: loop.Loop
    runs: stages.Runs
    comparisons: loop.Labelled | None


def prepare(config: Any, recorder: runner.Recorder, earlier: pathlib.Path | None) -> Setting:
    """The text, the pretrained model and the compiled stages; the pretraining of an earlier run is used again."""
    split = config.split()
    path = recorder.path(report.REFERENCE)
    if earlier is not None and (earlier / report.REFERENCE).is_file() and not path.is_file():
        writing.replace_file(path, (earlier / report.REFERENCE).read_bytes())
    with runner.usage_errors():
        if path.is_file():
            model, params = language.load_language_model(path)
        elif config.policy is not None:
            model, params = language.load_language_model(config.policy)
            least = f"at least the {config.places} places of --prompt-bytes and --max-new-tokens"
            runner.require(model.context >= config.places, "--policy", model.context, least)
        else:
            model, params = pretrain(config, recorder, split)
        if not path.is_file():
            language.save_language_model(path, params, model)
        prompts = [
            language.make_prompts(documents, config.prompt_bytes, whole_words=True)
            for documents in (split.valid, split.test)
        ]
        words = gold.common_words(split.train, 1000)
        score = gold.good_sentence(words) if config.gold == "sentence" else gold.of_user(config.gold)
        problem = make_problem(model, tuple(prompts), split.test, score, config.max_new_tokens)
        comparisons = None if config.preferences is None else read_labels(config)
        one_run = loop.Loop(problem, config.sizes(), labelled=comparisons is not None)
    of_runs = keys.of_runs(config, keys.Purpose.LOOP, len(config.combinations))
    kl_coefs, pairs = (np.repeat(column, config.seeds) for column in zip(*config.combinations))
    runs = stages.Runs(one_run, of_runs, kl_coefs, pairs)
    return Setting(model, params, problem, one_run, runs, comparisons)


def pretrain(config: Any, recorder: runner.Recorder, split: Split) -> tuple[networks.LlamaConfig, PyTree]:
    """A small model of the documents and of their sentences, each of which ends with EOS."""
    model = language.small_model(config.width, config.layers, config.context)
    documents = language.load_split(config.text, config.corpus)
    both = split._replace(train=(*documents.train, *split.train))
    init_key, fit_key = jax.random.split(keys.of_seed(config.seed, keys.Purpose.PRETRAINING))
    policy = networks.make_language_policy(language.make_reader(model.context), model)
    total = config.pretraining_updates * 32 * (model.context - 1)
    with recorder.timed("pretraining"), recorder.progress(total, "pretraining", "tokens") as progress:
        found = language.pretrain(
            fit_key,
            policy,
            networks.make_language_model(model).init(init_key),
            both,
            context=model.context,
            num_updates=config.pretraining_updates,
            batch_size=32,
            learning_rate=0.004,
            muon_rate=0.02,
            weight_decay=0.1,
            evaluations=10,
            on_evaluation=lambda n, bits: progress.advance(n, f"valid {bits['validation_loss']:.3f} bits per token"),
        )
    return model, found.params


def read_labels(config: Any) -> loop.Labelled:
    """The comparisons of a file of labels; those whose texts do not fit the buffer are left out.

    Whole prompts are held out, so that no reward model is judged on an answer that it was fitted to.

    Raises:
        ValueError: if no label fits, or if the share of held-out prompts is not 0 and holds out no prompt.
    """
    size = labelled_texts.BufferSize(config.prompt_bytes + 1, config.max_new_tokens, bos=True)
    found = [r for r in records.read(config.preferences) if labelled_texts.fits(r, language.BYTES, size)]
    if not found:
        raise ValueError(f"--preferences {config.preferences}: must hold labels of texts that fit the buffer")
    labels = labelled_texts.comparisons_of(found, language.BYTES, size)
    prompts = np.random.default_rng(config.seed).permutation(np.unique(labels.groups))
    count = min(round(config.held_out * len(prompts)), len(prompts) - 1)
    if config.held_out > 0 and count == 0:
        raise ValueError(
            f"--held-out {config.held_out:g}: must be 0, or large enough to hold out one of the prompts of "
            f"--preferences, of which there are {len(prompts)}"
        )
    chosen = np.isin(labels.groups, prompts[:count])
    weigh = lambda rows: np.where(rows, labels.weights, 0.0).astype(np.float32)
    given = loop.Labelled(comparisons=labels.labels, weights=weigh(~chosen), held_out=weigh(chosen))
    return jax.tree.map(jax.numpy.asarray, given)
