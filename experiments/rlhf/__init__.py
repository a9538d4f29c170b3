"""Learning from preferences on text: sample, compare, fit, optimise, repeat; what rises, and what it costs.

Claim    RLOO with a penalty β KL raises the score of a small language model's answers at a stated KL; with β = 0 the
         same optimiser leaves the language, and diversity is lost.
Source   Ziegler et al. 2019 (the loop, normalised rewards); Ahmadian et al. 2024 (RLOO); Stiennon et al. 2020 (PPO with
         a value network of its own); Gao, Schulman & Hilton 2023 (reward against √KL).
Command  python -m experiments.rlhf
         python -m experiments.rlhf --estimator ppo_gae --epochs 4
         python -m experiments.rlhf --pairs 32 256
         python -m experiments.rlhf --policy results/pretraining/RUN --corpus basic_english
         python -m experiments.preferences collect --pairs results/rlhf/RUN/pairs.jsonl --labels mine.jsonl
         python -m experiments.rlhf --policy results/rlhf/RUN --preferences mine.jsonl
Shows    A model of bytes is pretrained on sentences, or --policy is loaded. In each round it writes pairs of answers to
         beginnings of held-out sentences, an annotator compares them, a Bradley–Terry reward model is fitted to all
         comparisons so far and normalised (mean 0, standard deviation 1 on answers of the reference), and the policy
         is optimised with a KL term (k1 in the reward of each token, unless --kl-kind, --kl-placement or --kl-level
         change it), by an estimator with groups or with a predicted return. Answers before and after, reward (proxy
         and gold), KL, entropy, distinct n-grams and bits per byte of held-out sentences; reward against √KL. The loss
         of the reward model is measured on held-out comparisons too, beside its floor, the entropy of the labels.
         Best-of-n and DPO use the same labels. All standard errors are over seeds; those of the reference are over
         its evaluations with these seeds.
Expect   With β = 0.2 the gold score of the topics rises from 1.86 to 2.32 at a KL of 6 nats, and held-out text costs
         1.95 bits per byte after 1.77. With β = 0 the proxy rises to more than 5 standard deviations, and the policy
         ends with one letter for ever: gold score 0.08, entropy 0.02, KL some hundreds of nats. Best of 16 reaches 2.25
         at most 1.8 nats away. The reward models agree with 61 % of the held-out labels; their held-out loss is 0.76
         nats where the floor is 0.51. Five minutes on two quiet CPU cores, pretraining included.
Departs  The gold score is a rule and the annotator is simulated with it, unless --gold or --preferences replace them.
         It judges the surface of an answer: known words, a closed sentence, no repetition.
"""

import dataclasses
import itertools
import pathlib
from typing import ClassVar, Literal, NamedTuple

import jax

from experiments.harness import runner, saved_files
from experiments.rlhf import gold, loop, optimising, preparing, report, sizing, stages
from experiments.shared import language
from pgjax import losses, registry
from pgjax.datasets.text import Split
from pgjax.saving import policies
from pgjax.types import PyTree


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    text: tuple[pathlib.Path, ...] = ()
    """The text: .txt and .jsonl files. It replaces --corpus."""
    corpus: Literal["topics", "basic_english"] = "topics"
    """The text without --text, see experiments.pretraining."""
    policy: pathlib.Path | None = None
    """A file or folder with a policy of experiments.pretraining, which replaces the pretraining here."""
    preferences: pathlib.Path | None = None
    """A file of a person's labels, as python -m experiments.preferences collect writes it. The reward model is fitted
    to these labels alone, and there is one round."""
    gold: str = "sentence"
    """The gold score: sentence, the rule of this experiment, or module:function, a function of a TextBuffer written
    with jax.numpy."""
    estimator: str = "rloo"
    """The estimator, a name of pgjax.registry or module:function. It may need groups (rloo, grpo, dr_grpo) and a
    predicted return (ppo, ppo_gae), which is then a language model of its own that starts from the reference."""
    kl_coefs: tuple[float, ...] = (0.2, 0.0)
    """The values of β, in rewards per nat. Every β is trained with every seed."""
    kl_kind: losses.KLKind = "k1"
    """The estimate of the KL to the reference: k1, k2 or k3, which are computed from the token that was drawn, or full,
    the KL over all tokens at each place. With an unbiased estimator the expected gradient is that of E[reward] − β KL
    if k1 stands in the reward, k2 in the loss with --kl-level sequence, or k3 or full in both. With each other choice
    it is a different one, as the experiment kl_placement shows."""
    kl_placement: optimising.KLPlacement = "reward"
    """Where β times the estimate stands: in the reward, in the loss beside the estimator, or in both."""
    kl_level: losses.KLLevel = "token"
    """token estimates the KL at each token of an answer. sequence estimates it once for a whole answer, from the ratio
    of the probabilities of the answer; for full in the reward it is the sum over the tokens, paid at the end."""
    seeds: int = 4
    """The number of runs of each β with each number of pairs."""
    rounds: int = 3
    """The number of rounds: sample, compare, fit, optimise."""
    pairs: tuple[int, ...] = (256,)
    """The number of pairs of answers of a round to which the reward model is fitted. Several numbers are trained with
    every β and every seed, in one compiled program; each run uses so many of the pairs of its round."""
    held_out: float = 0.2
    """The share H / (P + H) of held-out comparisons, in [0, 0.5], where P is the largest number of --pairs and H the
    number of comparisons that are made in each round in addition to them. The reward model is not fitted to these H
    comparisons; its loss and accuracy are measured on them. The simulated held-out comparisons are of fresh answers,
    but their prompts come from the same set as those of the fit. Of a person's labels, this share of the prompts is
    held out, with all their answers. 0 holds nothing out, and then nothing is measured on held-out labels."""
    temperature: float = 0.3
    """The temperature of the annotator in units of the gold score: the noise of the comparisons."""
    updates: int = 40
    """The number of updates in a round."""
    episodes: int = 64
    """The number of answers in an update."""
    group_size: int = 4
    """The number of answers to one prompt."""
    epochs: int = 1
    """The number of optimiser steps on the answers of an update. More than one needs an estimator with a ratio to the
    policy that acted, such as ppo and ppo_gae."""
    learning_rate: float = 0.0003
    """The learning rate of Adam in the optimisation of the policy."""
    value_learning_rate: float = 0.001
    """The learning rate of Adam in the fit of the predicted return, for estimators that need one."""
    prompt_bytes: int = 28
    """The largest number of bytes of a prompt, which ends with a space."""
    max_new_tokens: int = 48
    """The largest number of tokens of an answer, EOS included."""
    reward_width: int = 32
    """The width of the reward model: one hidden layer over counts of pairs of classes of bytes."""
    reward_epochs: int = 20
    """The number of passes over the comparisons in a fit."""
    evaluated: int = 128
    """The number of answers in an evaluation, to beginnings of sentences that no update sees."""
    best_of: tuple[int, ...] = (4, 16)
    """The n of best-of-n: the answer of the reference, among n, that the last reward model of a run likes best."""
    width: int = 96
    """Pretraining: the width of the model."""
    layers: int = 3
    """Pretraining: the number of blocks."""
    pretraining_updates: int = 700
    """Pretraining: the number of updates of 32 windows."""
    seed: int = 0
    """The first seed."""
    resume: pathlib.Path | None = None
    """An earlier run that was stopped; it continues after its last stage, with its own options."""

    def validate(self) -> None:
        if self.resume is not None:
            return
        several = ("seeds", "rounds", "pairs", "updates", "episodes", "epochs", "reward_width", "reward_epochs")
        runner.require_counts(self, *several, "layers", "evaluated", "pretraining_updates", "best_of")
        runner.require_counts(self, "group_size", "max_new_tokens", least=2)
        fits = self.episodes % self.group_size == 0
        runner.require(fits, "--episodes", self.episodes, f"a multiple of --group-size {self.group_size}")
        runner.require(8 <= self.prompt_bytes <= 1024, "--prompt-bytes", self.prompt_bytes, "in [8, 1024]")
        runner.require(32 <= self.width <= 4096 and self.width % 32 == 0, "--width", self.width, "a multiple of 32")
        given = " ".join(map(str, self.kl_coefs))
        sound = len(set(self.kl_coefs)) == len(self.kl_coefs) > 0 and all(0 <= b <= 1e6 for b in self.kl_coefs)
        runner.require(sound, "--kl-coefs", given, "different numbers of at least 0")
        given = " ".join(map(str, self.pairs))
        runner.require(len(set(self.pairs)) == len(self.pairs) > 0, "--pairs", given, "different numbers")
        single = len(self.pairs) == 1 or self.preferences is None
        runner.require(single, "--pairs", given, "one number with --preferences, which brings its own labels")
        runner.require(0 <= self.held_out <= 0.5, "--held-out", self.held_out, "in [0, 0.5]")
        wanted = f"0, or large enough to hold out one comparison beside --pairs {max(self.pairs)}"
        enough = self.held_out == 0 or self.num_held_out > 0 or self.preferences is not None
        runner.require(enough, "--held-out", self.held_out, wanted)
        whole = (self.kl_kind, self.kl_level) == ("full", "sequence") and self.kl_placement != "reward"
        wanted = "token with --kl-kind full in the loss, which has no form for a whole answer"
        runner.require(not whole, "--kl-level", self.kl_level, wanted)
        for option in ("learning_rate", "value_learning_rate", "temperature"):
            runner.require_rate(f"--{option.replace('_', '-')}", getattr(self, option))
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        for option in ("policy", "preferences"):
            path = getattr(self, option)
            runner.require(path is None or path.exists(), f"--{option}", path, "an existing path")
        with runner.usage_errors():
            entry = registry.find(self.estimator)
            if self.gold != "sentence":
                gold.of_user(self.gold)
            self.split()
        several_epochs = self.epochs == 1 or entry.behaviour or entry.is_own
        runner.require(several_epochs, "--epochs", self.epochs, f"1 with --estimator {entry.name}, which has no ratio")

    BATCH: ClassVar[str] = "episodes"

    def memory(self) -> dict[str, float]:
        return {} if self.resume is not None else sizing.estimated(self)

    def split(self) -> Split:
        return language.load_split(self.text, self.corpus, as_sentences=True)

    @property
    def places(self) -> int:
        """L, the places of the buffer."""
        return 1 + self.prompt_bytes + self.max_new_tokens

    @property
    def context(self) -> int:
        """The context of the pretrained model: L and some more, in eights."""
        return -(-self.places // 8) * 8 + 16

    @property
    def num_held_out(self) -> int:
        """H, the number of simulated comparisons of a round that are held out: the share `held_out` of all P + H."""
        return round(max(self.pairs) * self.held_out / (1 - self.held_out))

    def sizes(self) -> loop.Sizes:
        pick = lambda record: {f.name: vars(self)[f.name] for f in dataclasses.fields(record) if f.name in vars(self)}
        changed = {
            "rounds": 1 if self.preferences else self.rounds,
            "pairs": max(self.pairs),
            "held_out": 0 if self.preferences else self.num_held_out,
            "reference": max(256, self.evaluated),
            "optimising": optimising.Settings(**pick(optimising.Settings)),
        }
        return loop.Sizes(**pick(loop.Sizes) | changed)

    @property
    def combinations(self) -> list[tuple[float, int]]:
        """Every β with every number of pairs; each has `seeds` runs, which follow each other."""
        return list(itertools.product(self.kl_coefs, self.pairs))

    def variant(self, kl_coef: float, pairs: int) -> str:
        """The name of a combination in the table and in the figure."""
        return f"β = {kl_coef:g}" + (f", {pairs} pairs" if len(self.pairs) > 1 else "")

    @property
    def runs_of(self) -> dict[str, slice]:
        """The runs of each combination by its name."""
        names = [self.variant(*combination) for combination in self.combinations]
        return {name: slice(i * self.seeds, (i + 1) * self.seeds) for i, name in enumerate(names)}


TINY = Config(
    kl_coefs=(0.1, 0.0),
    seeds=1,
    rounds=2,
    pairs=(4,),
    updates=2,
    episodes=4,
    group_size=2,
    prompt_bytes=12,
    max_new_tokens=6,
    reward_width=2,
    reward_epochs=1,
    evaluated=4,
    best_of=(2,),
    width=32,
    layers=1,
    pretraining_updates=1,
)


class Results(NamedTuple):
    """What the figure needs."""

    config: Config
    saved: stages.Saved


def run(config: Config, recorder: runner.Recorder) -> Results:
    earlier, config = config.resume, _of_earlier(config)
    options = stages.saving_options({k: v for k, v in dataclasses.asdict(config).items() if k != "resume"})
    recorder.write("options.json", options)
    recorder.cut_metrics()
    setting = preparing.prepare(config, recorder, earlier)
    recorder.resumable()
    order = stages.plan(config.sizes().rounds)
    saved, done = setting.runs.begin(setting.params, setting.comparisons), 1
    if earlier is not None and (earlier / stages.STATE).is_file():
        with runner.usage_errors():
            saved, done = stages.restore(earlier / stages.STATE, saved, options)
        recorder.say(f"continues after stage {done} of {len(order)}")
    with recorder.progress(len(order) - done, "rlhf", "stages") as progress:
        for number in range(done, len(order)):
            stage = order[number]
            saved = setting.runs.advance(saved, stage)
            stages.save(recorder.path(stages.STATE), saved, number + 1, options)
            progress.advance(1, report.one_line(config, saved, stage))
    report.write_pairs(config, recorder, saved)
    report.record(config, recorder, setting, saved)
    language.save_language_model(recorder.path(policies.FILE_NAME), _first(saved), setting.model)
    return Results(config=config, saved=saved)


def _first(saved: stages.Saved) -> PyTree:
    """θ of the first β and the first seed."""
    return jax.tree.map(lambda x: x[0], saved.states.train.params)


def _of_earlier(config: Config) -> Config:
    """The options of the run that is resumed.

    Raises:
        UsageError: if the folder holds no run of this experiment.
    """
    if config.resume is None:
        return config
    path = config.resume / "options.json"
    with runner.usage_errors():
        if not path.is_file():
            raise ValueError(f"--resume {config.resume}: this folder holds no run of experiments.rlhf")
        earlier = saved_files.record_of(Config, saved_files.read_object(path), path)
        dataclasses.replace(earlier, resume=None).validate()
        read = vars(earlier)
        for field in dataclasses.fields(Config):
            given = getattr(config, field.name)
            if field.name != "resume" and given not in (field.default, getattr(TINY, field.name), read[field.name]):
                option = f"--{field.name.replace('_', '-')}"
                raise ValueError(f"{option} {given}: must be left out with --resume; the run has {read[field.name]}")
        return dataclasses.replace(earlier, resume=config.resume)


def plot(results: Results, recorder: runner.Recorder) -> None:
    report.plot(results.config, results.saved, recorder)
