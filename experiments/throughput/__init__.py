"""How fast is pgjax? Steps per second beside the limits of the machine and beside other libraries.

Claim    With the same networks pgjax learns from more steps per second than the other libraries that people use for
         policy gradients, and it needs less time to solve CartPole-v1, imports and compilation included. Its learning
         takes less time than the compilation of its program.
Command  python -m experiments.throughput
         python -m experiments.throughput --json today.json
         python -m experiments.throughput --compare earlier.json
         python -m venv peers && peers/bin/pip install -r experiments/throughput/peers/requirements.txt
         python -m experiments.throughput --peers peers/bin/python
Shows    (a) The seconds until 100 greedy evaluation episodes of CartPole-v1 average 475, counted from the start of a
         new Python process, with an empty compilation cache, with few optimisations, and with a warm cache, and the
         seconds of learning among them. If flatbuffers is installed, also for a training that was exported to a file
         (training.export), whose process imports JAX and pgjax.exported alone.
         (b) The live steps (or tokens) per second of the bare environment, of the rollout and of the update, for
         CartPole-v1, Breakout of MinAtar with a convolution, a maze, and a small transformer that writes tokens;
         against the number of episodes, lanes or answers at once; with compile seconds, the seconds until the first
         result, memory, CPU time, and the smallest batch near the best rate. All devices share an update. Every CPU
         core is one device. Uneven episodes are those of a CartPole policy that has not learnt: they last about 22
         steps, and the longest about 100. They are also played with all lanes to the end of the last one, without the
         tiles of `rollouts.episodes`.
         (c) The measured rate of matrix products and the measured bandwidth of the memory, the operations and bytes of
         a step, and the share of the nearer limit that each program reaches.
         (d) The live steps per second of the seven problems (recommendation has two environments, slates and ads) with
         random actions, against the number of lanes.
         (e) With --peers: PPO in JAX in the styles of purejaxrl and rejax, rejax itself, A2C and PPO of
         Stable-Baselines3, and PPO in PyTorch in the style of CleanRL, each with the networks of pgjax. They take turns
         with pgjax, and the ratios of neighbours in time are shown. They solve CartPole-v1 too, by equal rules.
         Tokens have a peer without --peers: a program in JAX that was written by hand.
Expect   The aims on two CPU cores are 3.2 million live steps per second without a value network and 2.0 million with
         one; 65 % of the rate of matrix products at 1 024 episodes without a value network; 3.2 times each one-epoch
         PPO in JAX at 1 024 environments, 3 times its best, 100 times A2C of Stable-Baselines3, 3 times PPO in JAX on
         Breakout, and 1.2 times the hand-written program of tokens. All seeds of CartPole-v1 are solved with 0.3 s of
         learning, 4.5 s after the process began, or 1.5 s with a warm cache, and faster than by every peer; a process
         that loads the exported training solves it 1.0 s after it would have imported JAX. REINFORCE reaches 36 %
         of the rate of products: tanh takes time too, and so do copies, by which XLA transposes activations before the
         products that give the gradient of the weights. Eight to ten minutes on two quiet CPU cores, and ten minutes
         more with the peers.
Defines  A live step is a step of an episode that still runs; padding is not counted. A rate is the median of its
         repetitions, shown beside the lowest and the highest. Learning means the calls of the update (rollout,
         gradient, Adam), without imports, compilation and evaluation. Other work on the machine lowers all rates.
"""

import dataclasses
import math
import os
import pathlib
import tempfile
from typing import Any, ClassVar

import jax
import optax

from experiments.harness import runner
from experiments.shared import memory, token_speed
from experiments.throughput import bare, figure, from_file, peer_tables, rates, saturation, saved, workloads
from experiments.throughput.limits import measure_limits
from experiments.throughput.solve import EXPORTED, make_trainer, time_to_solve
from experiments.throughput.token_programs import PROGRAMS, SMALL, TOKENS, shapes_of, token_workload
from experiments.throughput.workloads import BREAKOUT, CARTPOLE, MAZE, Workload, cartpole, window_workload
from pgjax import baselines, environments, networks, training

TOKEN_AIM = 1.2  # of the ratio pgjax / hand-written JAX
WORKLOADS = (CARTPOLE, BREAKOUT, MAZE, TOKENS)


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    workloads: tuple[str, ...] = WORKLOADS
    """The problems of parts (b) and (c), among CartPole-v1, Breakout-MinAtar, maze and tokens."""
    batches: tuple[int, ...] = (64, 1024, 8192)
    """CartPole-v1: the numbers of episodes at once. Every program is measured once for each of them."""
    lanes: tuple[int, ...] = (64, 1024)
    """Breakout, the maze and part (d): the numbers of lanes, whose episodes restart when they end."""
    answers: tuple[int, ...] = (64, 256)
    """Tokens: the numbers of answers at once, multiples of 8."""
    window: int = 32
    """Breakout and the maze: the number of steps of every lane in an update."""
    hidden: tuple[int, ...] = (64, 64)
    """The widths of the dense layers of the policy and of the value network, for CartPole-v1 and the maze."""
    minatar_hidden: tuple[int, ...] = (128,)
    """The widths of the dense layers behind the convolution, for Breakout."""
    repetitions: int = 5
    """The number of repetitions of every program."""
    measure_seconds: float = 0.5
    """The least time in seconds of a repetition. A program is called at least once in it."""
    programs: tuple[str, ...] = ()
    """The programs of part (b), by their names in the table of rates; none measures all of them. Every chosen workload
    must have one. With a choice, the hand-written program of tokens is left out."""
    limits: pathlib.Path | None = None
    """A file that --json of an earlier run with these devices wrote, whose limits of part (c) are used. Left out: they
    are measured."""
    practice: int = 40
    """CartPole-v1: the number of updates of 64 episodes before the rates are measured. They train a policy whose
    episodes are long."""
    problems: tuple[str, ...] = bare.PROBLEMS
    """The environments of part (d); none leaves it out."""
    seeds: int = 10
    """The number of runs that measure the time to solve, each in a new process; 0 leaves this part out."""
    episodes: int = 64
    """The number of episodes in an update, for the time to solve."""
    learning_rate: float = 0.02
    """The learning rate η of Adam, for the time to solve."""
    max_updates: int = 200
    """The number of updates after which a seed counts as not solved."""
    peers: pathlib.Path | None = None
    """The Python interpreter of an environment in which other libraries are installed. Left out: no peers."""
    json: pathlib.Path | None = None
    """A file for everything that was measured, with versions, machine, commit and load. It is written anew after each
    measured program, so that a run that is stopped leaves what it has measured."""
    compare: pathlib.Path | None = None
    """A file that --json of an earlier run wrote. Its rates are set beside those of today."""
    seed: int = 0
    """The seed of every random number. The seeds of the time to solve count up from it."""

    BATCH: ClassVar[str] = "batches"

    def memory(self) -> dict[str, float]:
        """The bytes of the largest program: an update with a value network."""
        batch, environment = max(self.batches), environments.make("CartPole-v1")
        policy = networks.make_policy(environment, hidden=self.hidden)
        value = baselines.value_function(*networks.make_value(environment, hidden=self.hidden), optax.adam(1e-3))
        found = training.estimate_memory(make_trainer(policy, optax.adam(1e-3), batch, value))
        # The episodes are a result of the program that only plays them, and are held twice.
        episodes = memory.of_episodes(environment, batch)
        return {f"an update of {batch} episodes": found.total, "the episodes, as a result": episodes}

    def validate(self) -> None:
        for name in self.workloads:
            runner.require(name in WORKLOADS, "--workloads", name, f"among {', '.join(WORKLOADS)}")
        workloads.require_programs(self.programs, {name: PROGRAMS[name] for name in self.workloads})
        for name in ("batches", "lanes", "answers"):
            runner.require(len(getattr(self, name)) > 0, f"--{name}", getattr(self, name), "at least one number")
        counts = ("batches", "lanes", "answers", "window", "hidden", "minatar_hidden", "repetitions", "episodes")
        runner.require_counts(self, *counts, "max_updates")
        for count in self.answers:
            runner.require(count < 8 or count % 8 == 0, "--answers", count, "a multiple of 8, or less than 8")
        runner.require_counts(self, "practice", "seeds", least=0)
        finite = 0 <= self.measure_seconds < math.inf
        runner.require(finite, "--measure-seconds", self.measure_seconds, "at least 0 and finite")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        runner.require_rate("--learning-rate", self.learning_rate)
        peer_tables.require_python(self.peers)
        if self.compare is not None:
            saved.read(self.compare)
        if self.limits is not None:
            saved.read_limits(self.limits)


TINY = Config(
    workloads=(MAZE,),
    batches=(2,),
    lanes=(2,),
    answers=(2,),
    window=2,
    problems=("maze",),
    repetitions=2,
    measure_seconds=0.0,
    hidden=(4,),
    minatar_hidden=(4,),
    practice=0,
    seeds=0,
)


def make_workload(name: str, config: Config, tiny: bool) -> Workload:
    if name == CARTPOLE:
        return cartpole(config.hidden, config.practice, config.seed)
    if name == TOKENS:
        small = {"prompt": 2, "new": 2} if tiny else {}
        return token_workload(SMALL if tiny else token_speed.BYTE_MODEL, config.seed, **small)
    hidden = config.minatar_hidden if name == BREAKOUT else config.hidden
    return window_workload(name, hidden, config.window, config.seed)


def batches_of(name: str, config: Config) -> tuple[int, ...]:
    return {CARTPOLE: config.batches, TOKENS: config.answers}.get(name, config.lanes)


def measure_rates(config: Config, recorder: runner.Recorder) -> tuple[list[rates.Rate], Any, dict[str, Workload]]:
    """The rates of all workloads, the limits of the machine, and the workloads."""
    tiny, path = recorder.tiny, config.limits
    limits = measure_limits(tiny=tiny) if path is None else saved.limits_of_this_machine(path, tiny)
    rates.record_limits(limits, recorder)
    found, made = [], {}

    def hear(rate: rates.Rate) -> None:
        found.append(rate)
        if config.json is not None:
            content = {"complete": False, "tiny": tiny, "limits": limits, **saved.of_rates(config, found)}
            saved.write(config.json, content)

    how = rates.How(limits, config.measure_seconds, config.repetitions, config.programs, heard=hear, errors=[])
    for name in config.workloads:
        made[name] = make_workload(name, config, tiny)
        rates.measure_workload(made[name], batches_of(name, config), how, recorder)
        recorder.note(made[name].note)
    rates.record(found, limits, recorder)
    learning = [(name, program) for name, workload in made.items() for program in workload.updates]
    saturation.record(saturation.saturations(map(rates.point, found)), learning, recorder)
    if how.errors:
        raise how.errors[0]
    recorder.note(f"(b) {jax.local_device_count()} devices (--devices) share the episodes, if their number allows it.")
    return found, limits, made


def measure_token_peer(config: Config, recorder: runner.Recorder) -> dict[str, token_speed.Rates]:
    """pgjax beside the hand-written program, at the largest number of answers."""
    model = SMALL if recorder.tiny else token_speed.BYTE_MODEL
    shapes = shapes_of(max(config.answers), *((2, 2) if recorder.tiny else ()))
    params = jax.jit(networks.make_language_model(model).init)(jax.random.key(config.seed))
    # One device for both: the hand-written program does not share its work.
    with jax.default_device(jax.local_devices()[0]):
        found = {TOKENS: token_speed.measure(model, params, shapes, config.repetitions)}
    token_speed.record(found, {TOKENS: shapes}, recorder, aim=TOKEN_AIM)
    return found


def measure_solving(config: Config, recorder: runner.Recorder) -> dict[str, list[dict]]:
    names = ("hidden", "episodes", "learning_rate", "max_updates")
    options = {name: getattr(config, name) for name in names}
    peers = peer_tables.solvers(config.peers, config.hidden)
    with tempfile.TemporaryDirectory() as folder:
        exported = from_file.make_solver(options, pathlib.Path(folder))
        found = time_to_solve(range(config.seed, config.seed + config.seeds), options, recorder, peers, exported)
    if exported is None:
        recorder.note(from_file.SKIPPED)
    else:
        from_file.record(found[EXPORTED], recorder)
    peer_tables.record_solving(found, recorder)
    return found


def measure_peers(config: Config, made: dict[str, Workload], recorder: runner.Recorder) -> peer_tables.Found:
    assert config.peers is not None
    batch = lambda sizes: 1024 if 1024 in sizes else max(sizes)
    found = peer_tables.measure_peers(
        config.peers,
        {name: made[name] for name in (CARTPOLE, BREAKOUT) if name in made},
        {CARTPOLE: config.hidden, BREAKOUT: config.minatar_hidden},
        batch(config.batches),
        batch(config.lanes),
        config.window,
        config.measure_seconds,
        config.repetitions,
        config.seed,
        recorder,
    )
    peer_tables.record_peers(found, recorder)
    return found


def run(config: Config, recorder: runner.Recorder) -> dict[str, Any]:
    with runner.usage_errors():
        for name in config.problems:  # not in `validate`: gymnax starts JAX when it is imported
            environments.make(name)
    before = saved.load()
    results: dict[str, Any] = {"solved": {}, "tokens": {}, "peers": []}
    with recorder.timed("(b) and (c) rates"):
        results["rates"], results["limits"], made = measure_rates(config, recorder)
    if TOKENS in config.workloads and not config.programs:
        with recorder.timed("(b) tokens beside hand-written JAX"):
            results["tokens"] = measure_token_peer(config, recorder)
    if config.peers is None:
        recorder.note(peer_tables.SKIPPED)
    else:
        with recorder.timed("(e) peers"):
            results["peers"] = measure_peers(config, made, recorder)
    if config.seeds:
        with recorder.timed("(a) time to solve"):
            results["solved"] = measure_solving(config, recorder)
    with recorder.timed("(d) problems"):
        how = (config.measure_seconds, config.repetitions, config.seed, recorder)
        results["bare"] = bare.measure_problems(config.problems, config.lanes, *how)
    rates.record_all_aims(recorder)
    conclude(config, results, before, recorder)
    return results


def conclude(config: Config, results: dict[str, Any], before: list[float] | None, recorder: runner.Recorder) -> None:
    """Compare with an earlier run and write the file of --json, if they are asked for."""
    today = {name: rate.measured.rates for name, rate in rates.by_key(results["rates"]).items()}
    if config.compare is not None:
        results["lost"] = saved.compare(today, saved.read(config.compare), recorder)
    load = {"before": before, "after": saved.load()}
    if before is not None:
        said = "; ".join(f"{when} {', '.join(f'{x:.1f}' for x in found)}" for when, found in load.items())
        recorder.note(f"Load of the {os.cpu_count()} cores over 1, 5 and 15 minutes, {said}.")
    if config.json is not None:
        content = {"complete": True, "tiny": recorder.tiny, "load": load, **saved.of_rates(config, results["rates"])}
        content |= {name: results[name] for name in ("limits", "solved", "bare")}
        content["tokens"] = {name: one.ratios for name, one in results["tokens"].items()}
        content["peers"] = [peer._asdict() | {"pairs": one} for peer, one in results["peers"]]
        saved.write(config.json, content)
        recorder.say(f"everything that was measured: {config.json}")


plot = figure.draw
