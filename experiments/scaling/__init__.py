"""From one device to many machines: what does it cost to share an update, and what bounds a thousand machines?

Claim    Devices and processes that share the episodes of an update with sums in a fixed order end with the same θ, bit
         for bit. For this every device receives the actions, the rewards and the masks of all episodes, and a block of
         the gradient from every device. With sums in any order the devices exchange one sum of gradients, less than a
         hundredth of the bytes, and any number of devices can share an update.
Command  python -m experiments.scaling
         python -m experiments.scaling --latency 5e-6 --bandwidth 2.5e10
Shows    (a) The seconds of an update of CartPole with the default network, on the clock and of CPU time, on 1, 2, 4 and
         8 devices of one process, and in 1, 2, 4 and 8 processes with one device each, which talk over the loopback
         interface of this machine.
         Processes are measured with sums in a fixed order and in any order (training.train, deterministic=False).
         (b) The exchanges of an update and their bytes, counted from the compiled programs.
         (c) A model for up to 1 024 machines: compute / N, or compute if every machine plays a batch of its own, plus
         exchanges · latency · log₂ N, plus bytes · (N − 1)/N / bandwidth. The seconds of computing and the exchanges
         are measured; the latency and the bandwidth are assumed, and are options. In a fixed order of sums every
         machine sends a block of the gradient to all others; in any order they add the gradients up along a ring.
Expect   θ is the same in every layout with sums in a fixed order. In a run on two quiet CPU cores two to eight devices
         of one process needed 0.52 to 0.61 of the time of one device, and 0.88 to 1.01 of its CPU time. Two, four and
         eight processes needed 1.05, 1.35 and 2.19 times its CPU time with sums in a fixed order, and 1.01, 1.28 and
         2.00 times with sums in any order: what exceeds the two cores measures the overhead of sharing. With sums in a
         fixed order an update exchanges 4.6 MB of statistics and 0.15 MB of gradients, in any order 0.018 MB. In the
         model 1 024 machines with a batch each reach 0.13 of their speed, and 0.998 with sums in any order. Three
         minutes.
Departs  (c) was not run on machines with a network. In a fixed order of sums at most 8 devices share an update,
         because a sum over episodes has 8 blocks; the model gives each of more machines a block of its own.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import runner, runtime
from experiments.scaling import measured, model
from experiments.scaling.exchanges import Exchange, Groups, grouped
from experiments.scaling.measured import Layout, Measured

MACHINES = tuple(2**k for k in range(11))
TABLE_MACHINES = (1, 8, 64, 1024)
FIXED, ANY = "sums in a fixed order", "sums in any order"
# The curves of the model: name → the arguments of `model.update_seconds`.
PLANS = {
    f"one shared batch, {FIXED}": {"growing": False, "fixed_order": True},
    f"one shared batch, {ANY}": {"growing": False, "fixed_order": False},
    f"a batch each, {FIXED}": {"growing": True, "fixed_order": True},
    f"a batch each, {ANY}": {"growing": True, "fixed_order": False},
}
PURPOSES = {
    "statistics": "actions, rewards and masks [T, B] for every device",
    "gradients": "blocks of the gradient and of other sums",
    "metrics": "sums for the metrics",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment."""

    device_counts: tuple[int, ...] = (1, 2, 4, 8)
    """The numbers of devices in one process; 1 must be among them, and at least one other number."""
    process_counts: tuple[int, ...] = (2, 4, 8)
    """The numbers of processes with one device each."""
    episodes: int = 1024
    """B, the number of episodes in an update."""
    updates: int = 40
    """The number of updates in each measurement."""
    chunk: int = 4
    """The number of updates between two readings of the clock. The first chunk is not counted."""
    latency: float = 2e-5
    """The assumed seconds for one step of an exchange between machines."""
    bandwidth: float = 3.1e9
    """The assumed bytes per second that a machine receives; 3.1e9 is a network of 25 gigabits per second."""
    seed: int = 0
    """The seed of the training that is measured."""

    def validate(self) -> None:
        allowed = {1, 2, 4, 8}
        fits = {1} < set(self.device_counts) <= allowed and len(set(self.device_counts)) == len(self.device_counts)
        runner.require(
            fits, "--device-counts", " ".join(map(str, self.device_counts)), "1 and some of 2, 4 and 8, each once"
        )
        fits = set(self.process_counts) <= allowed - {1} and len(set(self.process_counts)) == len(self.process_counts)
        runner.require(
            fits, "--process-counts", " ".join(map(str, self.process_counts)), "some of 2, 4 and 8, each once"
        )
        fits = self.episodes >= 16 and self.episodes % 16 == 0
        runner.require(fits, "--episodes", self.episodes, "a multiple of 16, so that 8 devices can share them")
        runner.require_counts(self, "episodes", "updates", "chunk")
        fits = self.updates >= 2 * self.chunk and self.updates % self.chunk == 0
        runner.require(fits, "--updates", self.updates, f"a multiple of --chunk {self.chunk}, at least twice as much")
        runner.require(0 <= self.latency <= 1, "--latency", self.latency, "in [0, 1] seconds")
        runner.require(1 <= self.bandwidth <= 1e15, "--bandwidth", self.bandwidth, "in [1, 1e15] bytes per second")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(device_counts=(1, 2), process_counts=(2,), episodes=16, updates=4, chunk=2)


class Results(NamedTuple):
    """What `plot` needs: the measurements of each layout, the exchanges of an update by their order, the options."""

    found: dict[Layout, Measured]
    groups: dict[str, Groups]
    config: Config


def layouts(config: Config) -> list[Layout]:
    several = [Layout(1, count, any_order) for any_order in (False, True) for count in config.process_counts]
    return [Layout(devices=count, processes=1) for count in sorted(config.device_counts)] + several


def run(config: Config, recorder: runner.Recorder) -> Results:
    sizes = {name: getattr(config, name) for name in ("episodes", "updates", "chunk", "seed")}
    found, most = {}, max(config.device_counts)
    with recorder.progress(len(layouts(config)), "measuring layouts", "layouts") as progress:
        for layout in layouts(config):
            found[layout] = measured.measure(layout, sizes, counted=layout == Layout(most, 1))
            progress.advance(1, layout.name)
    groups = {}
    for order, counted in zip((FIXED, ANY), found[Layout(most, 1)].exchanges, strict=True):
        exchanges = [Exchange(*fields) for fields in counted]
        shaped = [one._replace(shapes=tuple(map(tuple, one.shapes))) for one in exchanges]
        groups[order] = grouped(shaped, config.episodes)
    results = Results(found=found, groups=groups, config=config)
    _report_measured(results, recorder)
    _report_exchanges(results, most, recorder)
    _report_model(results, recorder)
    return results


def compute_seconds(results: Results) -> float:
    """The CPU seconds of an update on one device: the time on the clock of a core that does nothing else."""
    return results.found[Layout(1, 1)].cpu_seconds


def modelled(results: Results, plan: str, machines: int) -> tuple[model.Seconds, float]:
    """The modelled seconds of an update, and the efficiency of the machines."""
    config, more, compute = results.config, PLANS[plan], compute_seconds(results)
    network = model.Network(latency=config.latency, bandwidth=config.bandwidth)
    groups = results.groups[FIXED if more["fixed_order"] else ANY]
    seconds = model.update_seconds(machines, compute, groups, network, **more)
    return seconds, model.efficiency(machines, seconds, compute, growing=more["growing"])


def _report_measured(results: Results, recorder: runner.Recorder) -> None:
    alone, lines = results.found[Layout(1, 1)], []
    one = float(np.median(alone.seconds))
    for layout, found in results.found.items():
        median = float(np.median(found.seconds))
        recorder.row(quantity="seconds per update", variant=layout.name, ours=median)
        recorder.row(quantity="seconds per update / those of one device", variant=layout.name, ours=median / one)
        low, high = min(found.seconds), max(found.seconds)
        of_cpu = found.cpu_seconds / alone.cpu_seconds
        recorder.row(quantity="CPU seconds per update", variant=layout.name, ours=found.cpu_seconds)
        recorder.row(quantity="CPU seconds per update / those of one device", variant=layout.name, ours=of_cpu)
        cells = [f"{1000 * median:.4g}", f"{1000 * low:.4g} to {1000 * high:.4g}", f"{median / one:.2f}"]
        lines.append([layout.name, *cells, f"{1000 * found.cpu_seconds:.4g}", f"{of_cpu:.2f}"])
    headers = ["layout", "ms per update", "lowest to highest", "/ one device", "CPU ms per update", "CPU / one device"]
    recorder.table(f"Measured on this machine, {results.config.episodes} episodes", headers, lines)
    fixed = [found for layout, found in results.found.items() if not layout.any_order]
    digests = {found.digest for found in fixed}
    recorder.row(
        quantity=f"different θ among all layouts with {FIXED} after the last update", ours=len(digests) - 1, exact=0
    )
    recorder.note(
        f"θ after {results.config.updates} updates is {'the same' if len(digests) == 1 else 'NOT the same'}, bit for "
        f"bit, in all {len(fixed)} layouts with {FIXED}. All devices and processes share the cores of this machine. "
        "Where there are more of them than cores, the ratios are the overhead of sharing, and no speed-up is possible. "
        "CPU time is that of all cores and all processes together; other work on the machine changes it less than the "
        "time on the clock."
    )


def _report_exchanges(results: Results, most: int, recorder: runner.Recorder) -> None:
    lines = []
    for order, groups in results.groups.items():
        for name, (count, size) in groups._asdict().items():
            recorder.row(quantity=f"exchanges per update: {PURPOSES[name]}", variant=order, ours=count)
            recorder.row(quantity=f"bytes per update and device: {PURPOSES[name]}", variant=order, ours=size)
            lines.append([order, PURPOSES[name], f"{count}", f"{size:,}"])
    recorder.table("Exchanged in an update", ["order", "what", "exchanges", "bytes on each device"], lines)
    recorder.note(
        f"The exchanges were counted in the program for {most} devices. The bytes are those of the results on one "
        "device."
    )


def _report_model(results: Results, recorder: runner.Recorder) -> None:
    lines = []
    for plan in PLANS:
        for machines in TABLE_MACHINES:
            seconds, part = modelled(results, plan, machines)
            variant = f"{plan}, {machines} machines"
            recorder.row(quantity="modelled seconds per update", variant=variant, ours=seconds.total)
            recorder.row(quantity="modelled efficiency", variant=variant, ours=part)
            parts = [f"{1000 * x:.3g}" for x in (seconds.total, *seconds)]
            lines.append([plan, f"{machines}", *parts, f"{part:.3f}", seconds.bound])
    headers = ["plan", "machines", "ms", "compute", "latency", "transfer", "efficiency", "bound by"]
    recorder.table("Modelled, with an assumed network", headers, lines, numeric=headers[1:7])
    recorder.note(_assumptions(results))


def _assumptions(results: Results) -> str:
    config, compute = results.config, compute_seconds(results)
    return (
        f"Assumed: {1e6 * config.latency:g} µs for a step of an exchange, log₂ N steps in each, and "
        f"{config.bandwidth / 1e9:g} GB/s received by each machine; nothing overlaps with computing. A machine "
        f"computes as one core of this one, {1000 * compute:.3g} ms for {config.episodes} episodes. Efficiency is the "
        "episodes per second of N machines divided by N times those of one machine."
    )


def plot(results: Results, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    figure, (left, right) = plots.figure(_title(results), _caption(results), columns=2, width=9.0, height=4.6)
    one = compute_seconds(results)
    reference = float(np.median(results.found[Layout(1, 1)].seconds))
    kinds = {
        "devices of one process": lambda at: at.processes == 1,
        "processes": lambda at: at.devices == 1 and not at.any_order,
        f"processes, {ANY}": lambda at: at.devices == 1 and (at.any_order or at.processes == 1),
    }
    for (kind, fits), colour in zip(kinds.items(), plots.PALETTE, strict=False):
        at = sorted((layout for layout in results.found if fits(layout)), key=lambda layout: layout.total)
        x, measurements = [layout.total for layout in at], [results.found[layout] for layout in at]
        left.plot(x, [found.cpu_seconds / one for found in measurements], "o-", color=colour, label=f"CPU time, {kind}")
        clock = [np.median(found.seconds) / reference for found in measurements]
        left.plot(x, clock, "x:", color=colour, linewidth=1, label=f"clock, {kind}")
    plots.reference_line(left, 1.0, "one device")
    left.set_xscale("log", base=2)
    left.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    left.set_ylim(bottom=0)
    left.set_xlabel("devices or processes on this machine")
    left.set_ylabel("time per update / one device (measured)")
    left.legend(frameon=False, fontsize=8)
    _draw_model(results, right, plots)
    recorder.figure(figure, "scaling")


def _draw_model(results: Results, axes: Any, plots: Any) -> None:
    for plan, style, colour in zip(PLANS, ("-", "--", "-", "--"), plots.PALETTE[3:], strict=False):
        axes.plot(MACHINES, [modelled(results, plan, n)[1] for n in MACHINES], style, color=colour, label=plan)
    axes.axvline(8, color=plots.GREY, linewidth=0.8, linestyle=":")
    axes.annotate("most with\na fixed order", (8, 0.02), (4, 0), textcoords="offset points", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("machines N")
    axes.set_ylabel("efficiency (modelled)")
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.12))


def _title(results: Results) -> str:
    most = MACHINES[-1]
    fixed, free = (sum(size for _, size in results.groups[order]) / 1e6 for order in (FIXED, ANY))
    reached, freely = (modelled(results, f"a batch each, {order}", most)[1] for order in (FIXED, ANY))
    return (
        f"With {FIXED} an update exchanges {fixed:.2g} MB, in any order {free:.2g} MB: "
        f"{most} machines would reach {100 * reached:.2g} and {100 * freely:.3g} % of their speed"
    )


def _caption(results: Results) -> str:
    spread = results.config.updates // results.config.chunk - 1
    cores = runtime.usable_cores()
    return (
        f"CartPole, {results.config.episodes} episodes, two hidden layers of 64. Left: CPU time of all "
        f"processes together, and the median of {spread} chunks of {results.config.chunk} updates on the clock; all "
        f"devices and processes share the {cores} cores of one machine, so more of them than cores show overhead and "
        f"no speed-up. Right: a model, not a measurement. {_assumptions(results)}"
    )
