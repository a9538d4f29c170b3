"""All papers, reproduced: every published number beside ours, as one table and one page.

Claim    pgjax's estimators and its exact gradients reproduce the numbers of each paper. Where ours differs, the page
         says why. What a paper draws but does not print is compared with a reference: a number that was computed
         independently of this code and was never published. References are marked, stand behind the published numbers,
         and are grey.
Command  python -m experiments.papers
         python -m experiments.papers --only four_rooms kl_estimators
         python -m experiments.papers --tiny
Shows    Two tables. The first has a line for each paper: paper | claim | verdicts | command | seconds. The second has a
         line for each of the best-known numbers: module | number or claim | published | ours | verdict. `report.html`
         has every number and every figure in one file, which opens from disk without a network, on a phone as well. The
         last two modules, step_size and baseline_start, are warnings of textbooks rather than papers.
Expect   About four minutes on two CPU cores, each of which runs one module at a time. `--tiny` takes one or two minutes
         and claims nothing: it judges only numbers that have an exact value and are not sampled. `--full` enlarges the
         modules that have a larger size, which takes hours. `--resume` with the directory of an interrupted run
         continues it.
Departs  The header of each module says what it departs from: `python -m experiments.NAME --help`.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import pathlib
import shutil
import sys
import traceback
from typing import Any

import jax

from experiments.harness import reports, runner, runs, saved_files, verdicts
from experiments.papers import page, processes
from pgjax._platform import platform

# Module → the options that differ from its default, in the order of the page.
MODULES: dict[str, dict[str, Any]] = {
    "short_corridor": {},
    "baselines_and_convergence": {},
    "leave_one_out": {},
    "action_dependent_baselines": {},
    "gradient_bandit": {},
    "kl_estimators": {},
    "optimal_baselines": {},
    "compounding_error": {"parts": ("chain", "cliff")},
    "group_baselines": {},
    "rates_and_plateaus": {},
    "four_rooms": {},
    "step_size": {},
    "baseline_start": {},
}
RUN = "run"  # the name of each module's run inside this one's directory


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of this experiment. The results page shows the default sizes."""

    only: tuple[str, ...] = ()
    """The names of the modules to run. All modules run if none is named."""
    full: bool = False
    """Run the modules that have a larger size at that size, which takes hours. The --help of each module names it."""
    resume: pathlib.Path | None = None
    """The directory of an earlier run. Its options and its finished modules are used again."""
    tiny: bool = False
    """Run each module at the size of its tests. In a minute or two this shows that all works, and claims nothing."""

    def validate(self) -> None:
        unknown = [name for name in self.only if name not in MODULES]
        runner.require(not unknown, "--only", " ".join(unknown), f"some of {', '.join(MODULES)}")
        each_once = len(set(self.only)) == len(self.only)
        runner.require(each_once, "--only", " ".join(self.only), "a list that names each module once")
        if self.full and self.tiny:
            raise runner.UsageError("--full and --tiny exclude each other; leave one out.")
        if self.resume is not None:
            path = self.resume / "config.json"
            try:
                only = saved_files.entries(saved_files.read_object(path), path, only=list, full=bool, tiny=bool)[0]
                known = all(name in MODULES for name in only)
            except ValueError as error:
                allowed = f"the directory of an earlier run of all papers; {error}"
                raise runner.UsageError(f"--resume {self.resume}: must be {allowed}") from error
            runner.require(known, "--resume", self.resume, "the directory of an earlier run of all papers")

    @property
    def chosen(self) -> list[str]:
        return [name for name in MODULES if not self.only or name in self.only]


def config_of(module: Any, name: str, config: Config) -> Any:
    """Return the module's configuration at its default size, at the size of its tests, or at its paper's size."""
    lacking = [part for part in ("PAPER", "Config", "TINY", "run") if not hasattr(module, part)]
    if lacking:
        raise RuntimeError(
            f"experiments.{name} has no {', '.join(lacking)}; experiments/harness/targets.py shows a whole module"
        )
    chosen = dataclasses.replace(module.TINY if config.tiny else module.Config(), **MODULES[name])
    return dataclasses.replace(chosen, full=True) if config.full and hasattr(chosen, "full") else chosen


def reproduce(config: Config, recorder: runner.Recorder) -> dict[str, pathlib.Path | None]:
    """Run the modules; return module → the directory of its run, or None if it failed, in the order of the page.

    On CPUs as many modules run at once as there are devices, each in a process with one device, because most of their
    programs are too small for two. An accelerator belongs to one process, so there the modules run one after another
    in this process. What a module prints goes to NAME/output.txt in both cases.
    """
    taken, left = {}, {}
    for name in config.chosen:
        options = config_of(importlib.import_module(f"experiments.{name}"), name, config)
        if config.resume is not None and finished(config.resume / name / RUN, options):
            recorder.say(f"{name}: its finished run is used from {config.resume}")
            taken[name] = recorder.path(f"{name}/{RUN}")
            if not taken[name].exists():
                shutil.copytree(config.resume / name / RUN, taken[name])
        else:
            shutil.rmtree(recorder.path(name), ignore_errors=True)
            left[name] = options
    at_once = min(jax.local_device_count(), len(left)) if platform() == "cpu" else 1
    run_them = functools.partial(in_processes, at_once=at_once) if at_once > 1 else in_this_process
    ran = run_them(left, recorder, config.tiny)
    return {name: pathlib.Path(taken[name]) if name in taken else ran[name] for name in config.chosen}


def in_this_process(left: dict[str, Any], recorder: runner.Recorder, tiny: bool) -> dict[str, pathlib.Path | None]:
    """Run the modules with their options one after another in this process."""
    ran = dict.fromkeys(left)
    for index, (name, options) in enumerate(left.items()):
        recorder.say(f"[{index + 1} of {len(left)}] {name}")
        module = importlib.import_module(f"experiments.{name}")
        plot, output = getattr(module, "plot", None), recorder.path(f"{name}/output.txt")
        place = {"output_dir": recorder.directory, "run_name": RUN, "tiny": tiny, "paper": recorder.paper}
        try:
            with output.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
                ran[name] = runner.execute(name, options, module.run, plot, **place)
        except Exception:
            recorder.say(output.read_text(encoding="utf-8") + traceback.format_exc())
    return ran


def in_processes(
    left: dict[str, Any], recorder: runner.Recorder, tiny: bool, at_once: int
) -> dict[str, pathlib.Path | None]:
    """Run the modules' commands in processes of their own, `at_once` at a time."""
    ran = dict.fromkeys(left)
    cache = [] if jax.config.jax_enable_compilation_cache else ["--no-cache"]
    place = ["--output-dir", recorder.directory.resolve(), "--run-name", RUN, "--devices", "1", *cache]
    if recorder.paper is not None and recorder.paper.formats:
        place += ["--figures", *recorder.paper.formats, "--figure-width", recorder.paper.width]
    commands = {
        name: [sys.executable, *page.arguments(name, reports.plain(options), tiny=tiny), *map(str, place)]
        for name, options in left.items()
    }
    outputs = {name: recorder.path(f"{name}/output.txt") for name in left}
    shown = recorder.progress(len(left), "papers", "modules")
    with shown, contextlib.closing(processes.run(commands, outputs, at_once)) as ended:
        for name, code in ended:
            if code == 0:
                ran[name] = recorder.path(f"{name}/{RUN}")
            else:
                recorder.say(outputs[name].read_text(encoding="utf-8", errors="replace"))
            shown.advance(1, f"{name} {'failed' if code else 'is done'}")
    return ran


def finished(directory: pathlib.Path, options: Any) -> bool:
    """Return whether a module's run with these options is complete in `directory`."""
    if not (directory / "summary.json").is_file() or not (directory / "paper.json").is_file():
        return False
    try:
        paper, config, summary, environment = (
            saved_files.read_object(directory / f"{name}.json")
            for name in ("paper", "config", "summary", "environment")
        )
        saved_files.entries(paper, directory / "paper.json", verdicts=dict, citation=str, claim=str)
        kinds = {"rows": list, "notes": list, "tables": list, "seconds": (int, float)}
        saved_files.entries(summary, directory / "summary.json", **kinds)
        saved_files.entries(environment, directory / "environment.json", versions=dict, date=str)
    except ValueError:
        return False  # a damaged run is made anew
    is_whole = summary.get("experiment") == directory.parent.name and len(runs.rows(summary)) == len(summary["rows"])
    # A run whose verdicts have the words of earlier versions is made anew, too.
    return is_whole and "judgements" in paper and config == reports.plain(options)


def resumed(config: Config) -> Config:
    """Return `config` with the options of the run that it continues, unless other options were given."""
    if config.resume is None or dataclasses.replace(config, resume=None) != Config():
        return config
    saved = saved_files.read_object(config.resume / "config.json")
    return dataclasses.replace(config, only=tuple(saved["only"]), full=saved["full"], tiny=saved["tiny"])


def run(config: Config, recorder: runner.Recorder) -> list[page.Found]:
    config = resumed(config)
    recorder.write("config.json", config)
    recorder.resumable()
    ran = reproduce(config, recorder)
    found = [page.load(directory) for directory in ran.values() if directory is not None]
    failed = [name for name, directory in ran.items() if directory is None]
    for each in found:
        for row in each.summary["rows"]:
            recorder.row(**row | {"quantity": f"{each.name}: {row['quantity']}"})
    show(config, found, recorder)
    environment = json.loads(recorder.path("environment.json").read_text(encoding="utf-8"))
    report = recorder.write("report.html", page.write(found, failed, environment, tiny=config.tiny))
    recorder.note(f"{report.name} has every number and every figure in one file; open it in a browser.")
    if failed:
        raise RuntimeError(f"{', '.join(failed)} failed, as shown above; the other papers are in {report.name}")
    return found


def show(config: Config, found: list[page.Found], recorder: runner.Recorder) -> None:
    """Add the tables, and a note for every red verdict; a tiny run has one line for each paper."""
    title = "All papers; report.html has every number and every figure"
    if config.tiny:
        lines = [[each.name, verdicts.tally(each.verdicts), f"{each.summary['seconds']:.0f}"] for each in found]
        headers = ("module", "verdicts", "seconds")
        recorder.table(f"A tiny run, which claims nothing. {title}", headers, lines, numeric=("seconds",))
        return
    recorder.table(title, *page.standings(found), numeric=("seconds",))
    recorder.table("The best-known numbers and claims", *page.headlines(found), numeric=())
    entries = [(each.name, entry) for each in found for entry in each.paper["contradictions"]]
    red = [(name, entry) for name, entry in entries if verdicts.colour_of(entry["verdict"]) == "bad"]
    for name, entry in red:
        recorder.note(f"{name}: {entry['text']}")
    if len(entries) > len(red):
        count = reports.format_count(len(entries) - len(red), "numbers")
        recorder.note(f"{count} that were never published are not as expected; the page says which and why.")
