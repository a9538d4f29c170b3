"""Parts (e) and (a): pgjax beside its peers, in rates and in the time to solve CartPole-v1."""

import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import runner, verdicts
from experiments.harness.directories import UsageError
from experiments.throughput import beside
from experiments.throughput.beside import Pairs
from experiments.throughput.measuring import Running, span
from experiments.throughput.peer_list import BEST_AIM, IN_JAX, Peer, measured, solving
from experiments.throughput.solve import AIMS, EMPTY, LIMIT, QUICK, SOLVED, without_evaluation
from experiments.throughput.workloads import ACTOR_CRITIC, BREAKOUT, CARTPOLE, CRITIC, Workload
from pgjax import diagnostics

Found = list[tuple[Peer, Pairs]]
SKIPPED = (
    "Peers were skipped. To measure them too: python -m venv peers && peers/bin/pip install -r "
    "experiments/throughput/peers/requirements.txt, then --peers peers/bin/python."
)
RULES = (
    "Time to solve, equal rules: the clock starts with a new process and stops when 100 greedy evaluation episodes "
    f"average {SOLVED:g}, which all solvers play in the same environment in NumPy. Imports and compilation are "
    "included; the seconds of the evaluations are taken away. Every library has the settings that it publishes for "
    "CartPole-v1, is evaluated about every 1 000 to 4 000 steps (pgjax after every update), and gives up after "
    f"{LIMIT:.0f} seconds of learning. Nothing is compiled before the clock starts. Peers in JAX are judged beside "
    "pgjax with the same flags of the compiler, and peers in PyTorch, which compile nothing, beside pgjax with few "
    "optimisations."
)


def require_python(python: pathlib.Path | None) -> None:
    """Refuse a --peers that is no file.

    Raises:
        UsageError: there is no such file.
    """
    if python is not None and not python.is_file():
        raise UsageError(f"--peers {python}: must be a Python interpreter, such as peers/bin/python; there is no file")


def measure_peers(
    python: pathlib.Path,
    workloads: Mapping[str, Workload],
    hidden: Mapping[str, tuple[int, ...]],
    batch: int,
    lanes: int,
    window: int,
    seconds: float,
    repetitions: int,
    seed: int,
    recorder: runner.Recorder,
) -> Found:
    """Every peer takes turns with the program of pgjax that learns the same with the same networks.

    Args:
        workloads: name → workload, of those that the peers learn.
        hidden: name of a workload → the widths of the dense layers.
        batch, lanes: the numbers of episodes of CartPole-v1, and of lanes of Breakout, of pgjax.
    """
    listed = [peer for peer in measured(batch, window) if peer.workload in workloads]
    found: Found = []
    sizes, programs = {CARTPOLE: (CRITIC, batch), BREAKOUT: (ACTOR_CRITIC, lanes)}, {}
    for name, (program, size) in sizes.items():
        if name in workloads:
            programs[name] = Running(workloads[name].programs(size)[program], size)
    with recorder.progress(len(listed), "peers", "settings") as progress:
        for peer in listed:
            with_hidden = peer._replace(given=peer.given | {"hidden": hidden[peer.workload]})
            one = beside.pairs(python, with_hidden, programs[peer.workload].repeat, seconds, repetitions, seed)
            found.append((peer, one))
            progress.advance(1, f"{peer.label}: {one.failure or f'{one.median:.2f} times as fast'}")
    return found


def record_peers(found: Found, recorder: runner.Recorder) -> None:
    if not found:
        return
    tiny, lines = verdicts.is_tiny(recorder), []
    for peer, one in found:
        where = f"{peer.workload}: {peer.label}"
        if one.failure is not None:
            recorder.row(quantity="(e) pgjax / peer", variant=where, verdict=f"not measured: {one.failure}")
            lines.append([peer.workload, peer.name, peer.setting, "", "", "", "", f"not measured: {one.failure}"])
            continue
        verdict = verdicts.say(verdicts.Verdict.NOT_JUDGED, span(one.ratios))
        if peer.aim is not None:
            verdict = verdicts.of_aim(one.median >= peer.aim, f"≥ {peer.aim:g}", span(one.ratios), tiny=tiny)
        recorder.row(quantity="(e) pgjax / peer", variant=where, ours=one.median, verdict=verdict)
        middle = lambda rates: f"{statistics.median(rates) / 1e6:.3g} ({span([x / 1e6 for x in rates])})"
        lines.append(
            [
                peer.workload,
                peer.name,
                peer.setting,
                middle(one.theirs),
                middle(one.ours),
                f"{one.median:.2f} ({span(one.ratios)})",
                f"{one.first_result_seconds:.1f}",
                verdict.partition(": aim ")[0] + f", aim ≥ {peer.aim:g}" if peer.aim is not None else "",
            ]
        )
    for name in IN_JAX:
        best = beside.best_of(found, name)
        if best is not None:
            peer, one = best
            verdict = verdicts.of_aim(one.median >= BEST_AIM, f"≥ {BEST_AIM:g}", span(one.ratios), tiny=tiny)
            recorder.row(quantity="(e) pgjax / its best", variant=peer.label, ours=one.median, verdict=verdict)
    headers = ["workload", "peer", "setting", "peer M/s", "pgjax M/s", "pgjax / peer", "its first result s", "verdict"]
    recorder.table("Beside other libraries, learning included", headers, lines, numeric=headers[3:7])
    versions = {name: version for _, one in found for name, version in one.versions.items()}
    recorder.note(f"(e) Peers: {', '.join(f'{name} {version}' for name, version in sorted(versions.items()))}.")


def solvers(python: pathlib.Path | None, hidden: tuple[int, ...]) -> dict[str, Callable[[int], dict[str, Any]]]:
    """Label → `seed → result`, for `solve.time_to_solve`."""

    def of(peer: Peer) -> Callable[[int], dict[str, Any]]:
        def solve(seed: int) -> dict[str, Any]:
            try:
                return beside.solve(python, peer, hidden, seed, SOLVED, LIMIT)
            except beside.PeerError as error:
                return {"failure": str(error)}

        return solve

    return {} if python is None else {peer.label: of(peer) for peer in solving()}


def record_solving(solved: Mapping[str, Sequence[dict[str, Any]]], recorder: runner.Recorder) -> None:
    """The table of all solvers, and the judgement that pgjax is faster than every peer."""
    lines, clock = [], {}
    for name, runs in solved.items():
        failures = [one["failure"] for one in runs if "failure" in one]
        if failures:
            lines.append([name, "", "", "", "", f"not measured: {failures[0]}"])
            continue
        times = [without_evaluation(one) for one in runs]
        reached = sum(one["solved"] for one in runs)
        learning, steps = ([one[key] for one in runs] for key in ("learning_seconds", "steps"))
        label = f"pgjax, {name}" if name in AIMS else name
        clock[label] = (times, reached == len(runs))
        middle = lambda values: f"{statistics.median(values):.3g} ({span(values)})"
        cells = [
            label,
            middle(times),
            middle(learning),
            f"{statistics.median(steps):,.0f}",
            f"{reached} of {len(runs)}",
        ]
        lines.append([*cells, ""])
    headers = ["solver", "seconds", "of these, learning", "steps", "seeds solved", "why not"]
    recorder.table("Time to solve CartPole-v1, compilation included", headers, lines, numeric=headers[1:4])
    recorder.note(RULES)
    for label, (times, every) in clock.items():
        ours = clock.get(f"pgjax, {EMPTY if label.startswith(IN_JAX) else QUICK}")
        if ours is not None and not label.startswith("pgjax"):
            # A peer that did not solve a seed would have needed longer than it ran.
            ratios = [theirs / own for theirs, own in zip(times, ours[0])]
            # Ratios of times are skewed, and their logarithms are less so.
            mean = diagnostics.mean_interval(np.log(ratios))
            low, high = math.exp(mean.low), math.exp(mean.high)
            shown = f"95 % interval {low:.2f} to {high:.2f}, seeds {span(ratios)}"
            verdict = verdicts.of_aim(ours[1] and low > 1, "> 1", shown, tiny=verdicts.is_tiny(recorder))
            what = "(a) its seconds to solve / those of pgjax" + (", a lower bound" if not every else "")
            recorder.row(quantity=what, variant=label, ours=statistics.median(ratios), verdict=verdict)
