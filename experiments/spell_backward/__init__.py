"""Spell words backward: a transformer learns it from rewards alone, and the credit for a letter decides how fast.

Claim    A small transformer that starts from random parameters learns to spell English words backward within a minute
         on two CPU cores. It never sees a right answer: it writes letters, and rewards are all that it learns from.
Source   The task is that of the speedrun of rlhf-book (N. Lambert), whose record is 9 h 21 min 34 s on a laptop GPU
         with the language model Qwen3-1.7B. The two times cannot be compared: that model starts from a pretraining on
         language, has 16 000 times as many parameters, and reads and writes the tokens of its own large vocabulary.
         Words: the English list of BIP-39. RLOO: Kool, van Hoof & Welling 2019.
Command  python -m experiments.spell_backward
         python -m experiments.spell_backward --ways letter --words FILE          (one word a line)
         python -m experiments.spell_backward --ways letter --train-on words
Shows    The share of held-out words whose greedy answer is right in every letter and ends in the right place, for three
         ways to give a letter its credit. All three have the same sum of rewards, 1 for a right answer. `letter`: each
         right letter is paid as soon as it is written, and it is judged by this payment alone (γ = 0), beside the mean
         payment of its place. `letters to go`: it is judged by this payment and all later ones (γ = 1), beside their
         mean at its place. `answer`: the share of right letters is paid at the end, and the answer is judged as a
         whole, beside three other answers to the same word (RLOO), as language models are usually trained.
Expect   With `letter` each of the 20 seeds writes all held-out words backward at the end. They reach 99 % after 50 to
         90 updates, in 4 to 9 CPU seconds. The two other ways have the exact gradient, but most of their credit is
         noise: whether the first letter is right has no influence on the last. With these settings, which were chosen
         for `letter`, two of three seeds of `letters to go` reach 99 % in 300 updates, and `answer` writes no word
         right. About ten minutes.
Departs  γ = 0 ignores that EOS forgoes all later payments. The best answers do not change, because EOS in a wrong place
         is not paid either. Training draws strings of random letters, in which all letters are equally frequent, and no
         word of the list. `--train-on words` draws the words that are not held out; 94 % of these have no j, q, x or z,
         and a policy learns rare letters late. Words are padded in front. An entropy bonus keeps the policy trying.
         The settings were chosen with seeds of 1000 and more: 46 of 46 had at least 99.8 % after 100 updates or less.
         The seeds of this experiment, 20 to 39, were fixed before any of them had been run. Former settings (a moving
         average as the baseline, an entropy bonus of 0.03) solved 19 of the seeds 0 to 19. The seed that failed
         confused letters in one place, the first letter of words of 8 letters. Few strings have a letter there, and it
         is paid least, 1/9: with the former bonus, a policy that maximises payment and bonus together writes it right
         with probability 0.6 only, and with a bonus of 0.015 with probability 0.98.
"""

import dataclasses
import os
import pathlib
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner, verdicts
from experiments.shared import learning_curves, ranges
from pgjax import diagnostics, evaluation, networks, registry, rollouts, training
from pgjax.environments import spell_backward as words_task
from pgjax.environments.right_answers import Paid
from pgjax.types import Environment, Policy, TrainState

TrainOn = Literal["strings", "words"]
LETTER, TO_GO, ANSWER = "letter", "letters to go", "answer"
MOST_LETTERS = 100  # of a word in a file of words
SOLVED, MOST_SECONDS = 0.99, 60.0  # the aims: the share of right answers, and seconds a seed


class Way(NamedTuple):
    """How a letter gets its credit: when the rewards are paid, the estimator, γ, and whether answers share a word."""

    paid: Paid
    estimator: str
    discount: float
    grouped: bool


WAYS = {
    LETTER: Way(paid="each", estimator="gpomdp_time_average", discount=0.0, grouped=False),
    TO_GO: Way(paid="each", estimator="gpomdp_time_average", discount=1.0, grouped=False),
    ANSWER: Way(paid="end", estimator="rloo", discount=1.0, grouped=True),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    ways: tuple[str, ...] = tuple(WAYS)
    """The ways to give credit that run, among "letter", "letters to go" and "answer"."""
    words: str = ""
    """A file with one word a line, of letters a to z; empty takes the English list of BIP-39."""
    train_on: TrainOn = "strings"
    """The prompts of training: strings of random letters, or the words that are not held out."""
    strings: int = 2048
    """The number of strings of random letters. They are the same for all seeds."""
    padding: words_task.Padding = "front"
    """The place of the padding in a prompt: front, or back, with which the network learns much more slowly."""
    seeds: int = 20
    """The number of runs with "letter", one after another."""
    other_seeds: int = 3
    """The number of runs with each of the other ways."""
    updates: int = 300
    """The number of updates of each run."""
    evaluate_every: int = 10
    """The number of updates between two evaluations, each on all held-out words."""
    episodes: int = 256
    """The number of answers in an update."""
    group_size: int = 4
    """With "answer": the number of answers to one word, which are compared with each other."""
    learning_rate: float = 0.002
    """The learning rate η of Adam at the first update; it falls linearly to a tenth of it."""
    entropy_coef: float = 0.015
    """The weight of the entropy bonus."""
    hidden: tuple[int, ...] = (64, 64)
    """The width of the transformer, written once for each block."""
    heads: int = 4
    """The number of attention heads, a divisor of the width."""
    seed: int = 20
    """The first seed. The other seeds count up from it."""

    def validate(self) -> None:
        one_each = 0 < len(self.ways) == len(set(self.ways)) and set(self.ways) <= set(WAYS)
        runner.require(one_each, "--ways", " ".join(self.ways), f"among {', '.join(WAYS)}, each once")
        there = not self.words or pathlib.Path(self.words).is_file()
        runner.require(there, "--words", self.words, "a file with one word a line")
        for option, value, words in (
            ("--padding", self.padding, get_args(words_task.Padding)),
            ("--train-on", self.train_on, get_args(TrainOn)),
        ):
            runner.require(value in words, option, value, " or ".join(words))
        runner.require_counts(self, "seeds", "other_seeds", "episodes", least=2)
        runner.require_counts(self, "evaluate_every", "group_size", "hidden", "strings")
        whole = self.updates >= 1 and self.updates % self.evaluate_every == 0
        runner.require(whole, "--updates", self.updates, f"a multiple of --evaluate-every {self.evaluate_every}")
        multiple = self.episodes % self.group_size == 0
        runner.require(multiple, "--episodes", self.episodes, f"a multiple of --group-size {self.group_size}")
        runner.require_rate("--learning-rate", self.learning_rate)
        runner.require(0 <= self.entropy_coef <= 1, "--entropy-coef", self.entropy_coef, "in [0, 1]")
        one_width = len(set(self.hidden)) == 1
        shown = " ".join(map(str, self.hidden))
        runner.require(one_width, "--hidden", shown, "one width, at least 1, for every block")
        divides = self.heads >= 1 and self.hidden[0] % self.heads == 0
        runner.require(divides, "--heads", self.heads, f"a divisor of the width {self.hidden[0]}")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(
    ways=(LETTER,),
    seeds=2,
    other_seeds=2,
    updates=2,
    evaluate_every=1,
    episodes=4,
    group_size=2,
    hidden=(4,),
    heads=2,
)


def word_lists(config: Config) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What training draws, and the held-out words, none of which training draws."""
    words = words_task.english_words()
    if config.words:
        try:
            words = tuple(dict.fromkeys(words_task.read_words(config.words)))
            if (longest := max(map(len, words), default=0)) > MOST_LETTERS:
                raise ValueError(f"words must have at most {MOST_LETTERS} letters, got one of {longest}")
            words_task.encode_words(words, 1 + max(map(len, words), default=1))
        except (UnicodeDecodeError, ValueError) as error:
            raise runner.UsageError(f"--words {config.words}: {error}") from error
    train, held_out = (words_task.part_of(words, part) for part in ("train", "held_out"))
    for part, several in (("training", train), ("evaluation", held_out)):
        runner.require(len(several) > 0, "--words", config.words, f"words enough: the part for {part} is empty")
    return (words_task.random_strings(config.strings, words) if config.train_on == "strings" else train), held_out


def make_learner(config: Config, way: Way, environment: Environment) -> tuple[Policy, training.Trainer]:
    """The transformer with random parameters, and the ordinary trainer with an estimator of the registry."""
    options = {"heads": config.heads}
    policy = networks.make_policy(environment, network="transformer", hidden=config.hidden, network_options=options)
    settings = registry.Settings(discount=way.discount, entropy_coef=config.entropy_coef)
    group_size = config.group_size if way.grouped else 1
    parts = registry.Parts(policy=policy, group_size=group_size, settings=settings)
    falling = optax.linear_schedule(config.learning_rate, 0.1 * config.learning_rate, config.updates)
    trainer = training.make_trainer(
        environment,
        policy,
        registry.make(registry.find(way.estimator), parts),
        optax.adam(falling),
        num_episodes=config.episodes,
        group_size=group_size if group_size > 1 else None,
    )
    return policy, trainer


def make_share(environment: Environment, policy: Policy):
    """A function `TrainState → []`: the share of the environment's words whose greedy answer is right everywhere.

    Every word is asked once: each lane has an environment of one word.
    """
    params = environment.params
    alone = params._replace(prompts=params.prompts[:, None], prompt_lengths=params.prompt_lengths[:, None])
    keys = jax.random.split(jax.random.key(0), len(params.prompts))

    def share(state: TrainState) -> jax.Array:
        how = {"env_params": alone, "env_params_axis": 0}
        asked = rollouts.episodes(environment, evaluation.greedy(policy), state.params, keys, **how)
        right = lambda obs: environment.metrics(None, obs, params)["all_right"]
        return jnp.mean(jax.vmap(right)(asked.final_obs))

    return share


def run(config: Config, recorder: runner.Recorder) -> dict:
    train, held_out = word_lists(config)
    letters = max(map(len, (*train, *held_out)))
    make = lambda words, way: words_task.make_spell_backward(
        words, paid=way.paid, padding=config.padding, max_letters=letters
    )
    found, load = {}, []
    for name in config.ways:
        way, count = WAYS[name], config.seeds if name == LETTER else config.other_seeds
        policy, trainer = make_learner(config, way, make(train, way))
        load.append(os.getloadavg()[0])
        found[name] = learning_curves.learn(
            trainer,
            make_share(make(held_out, way), policy),
            seeds=range(config.seed, config.seed + count),
            num_updates=config.updates,
            every=config.evaluate_every,
            name=name,
            recorder=recorder,
        )
        load.append(os.getloadavg()[0])
        record(name, found[name], recorder)
    shortest, longest = min(map(len, held_out)), max(map(len, held_out))
    recorder.note(
        f"Training draws {len(train)} {config.train_on}. The {len(held_out)} held-out words have {shortest} to "
        f"{longest} letters. A seed is solved if {SOLVED:.0%} of the held-out words are right at the end. Updates and "
        f"seconds are counted up to the first evaluation with {SOLVED:.0%}, without compilation and evaluations; they "
        "are infinite for a seed that never gets there. Ranges are over seeds. CPU seconds add up the seconds of all "
        "cores, and hardly grow when other programs use the machine, as seconds do."
    )
    recorder.note(
        f"While this ran, from {min(load):.1f} to {max(load):.1f} processes wanted one of {os.cpu_count()} cores."
    )
    if few := diagnostics.few_runs(min(len(one.shares) for one in found.values()), "seeds"):
        recorder.note(few)
    return {"config": config, "found": found, "held_out": len(held_out)}


def record(way: str, found: learning_curves.Learnt, recorder: runner.Recorder) -> None:
    """The rows of one way. Only `letter` is judged by the aims."""
    tiny, judged, count = verdicts.is_tiny(recorder), way == LETTER, len(found.shares)
    for run, curve in enumerate(found.shares):
        seconds = {"seconds": found.seconds[run], "cpu_seconds": found.cpu_seconds[run]}
        recorder.metrics({"way": way, "run": run, "updates": found.updates, "right": curve, **seconds})
    last = found.shares[:, -1]
    solved = int((last >= SOLVED).sum())
    say = lambda reached, aim, seen: (
        verdicts.of_aim(reached, aim, seen, tiny=tiny) if judged else verdicts.say(verdicts.Verdict.NOT_JUDGED, seen)
    )
    worst = f"worst {last.min():.1%}"
    recorder.row(
        quantity="seeds solved",
        variant=way,
        ours=solved,
        verdict=say(solved == count, f"all {count}", f"of {count}; {worst}"),
    )
    what = "share of held-out words spelled right"
    learning_curves.row_of_runs(recorder, last, ranges.SHARE, quantity=what, variant=way)
    for quantity, measured, digits in (
        ("updates", found.updates, 0),
        ("seconds", found.seconds, 1),
        ("CPU seconds", found.cpu_seconds, 1),
    ):
        until = learning_curves.until(found, SOLVED, measured)
        seen = f"{until.min():.{digits}f} to {until.max():.{digits}f}"
        verdict = verdicts.say(verdicts.Verdict.NOT_JUDGED, seen)
        if quantity == "seconds":
            verdict = say(until.max() < MOST_SECONDS, f"< {MOST_SECONDS:g} each", seen)
        quantity = f"{quantity} until {SOLVED:.0%}, median"
        recorder.row(quantity=quantity, variant=way, ours=float(np.median(until)), verdict=verdict)
    recorder.row(quantity="compile seconds, once for all seeds", variant=way, ours=found.compile_seconds)


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, found = results["config"], results["found"]
    solved = {way: int((one.shares[:, -1] >= SOLVED).sum()) for way, one in found.items()}
    counts = ", ".join(f"{count} of {len(found[way].shares)} with “{way}”" for way, count in solved.items())
    title = f"Learned from reward alone: {SOLVED:.0%} of unseen words are spelled backward by these seeds: {counts}"
    caption = (
        f"Share of {results['held_out']} held-out words whose greedy answer is right everywhere; transformer of width "
        f"{config.hidden[0]}, {config.episodes} answers an update. Thin lines: each seed; thick lines: their mean."
    )
    figure, (by_updates, by_seconds) = plots.figure(title, caption, columns=2, width=10)
    colour_of = plots.colours(WAYS)
    for axes, label in ((by_updates, "updates"), (by_seconds, "CPU seconds, without compilation")):
        axes.set(xlabel=label, ylabel="words spelled right (share)", ylim=(0, 1.08))
        plots.reference_line(axes, SOLVED, f"{SOLVED:.0%}")
    ends = {}
    for way, one in found.items():
        mean, colour = one.shares.mean(axis=0), colour_of[way]
        by_updates.plot(one.updates, one.shares.T, color=colour, linewidth=0.5, alpha=0.4)
        by_updates.plot(one.updates, mean, color=colour, linewidth=2)
        by_seconds.plot(one.cpu_seconds.T, one.shares.T, color=colour, linewidth=0.7, alpha=0.6)
        ends[way] = (one.updates[-1], mean[-1], colour)
    by_updates.margins(x=0)
    plots.label_ends(by_updates, ends)
    by_seconds.margins(x=0)
    recorder.figure(figure, "spell_backward")
