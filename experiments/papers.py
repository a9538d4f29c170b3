"""All papers, reproduced: every published number beside ours, as one table and one page.

Claim    Each paper's numbers come out of pgjax's own estimators and oracle; where ours differs, the page says why. What
         a paper shows but does not print is compared with a reference that was computed independently, marked so.
Command  python -m experiments.papers
         python -m experiments.papers --only four_rooms kl_estimators
         python -m experiments.papers --tiny
Shows    one table, paper | claim | published | ours | verdict | command | seconds, and `report.html`: one file with
         every figure in it, which opens from disk, without a network, on a phone as well. The last two modules,
         step_size and baseline_start, are warnings of the textbooks rather than papers.
Expect   About five minutes on two CPU cores; --tiny one or two. --full makes the modules larger that can be, which
         takes hours. An interrupted run goes on with --resume and its directory.
Departs  Each module's own header says what it departs from; `python -m experiments.NAME --help`.
"""

import dataclasses
import importlib
import json
import pathlib
import shutil
import traceback
from typing import Any

from experiments import _papers_page as page
from experiments import _reports
from experiments import _runner as runner

# In the order of the page: module → what differs from its default, where it has more than its paper asks for.
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
    """Options; the defaults are what the README shows."""

    only: tuple[str, ...] = ()
    """These papers' modules alone; all if empty."""
    full: bool = False
    """The larger sizes of the modules that have them (`python -m experiments.NAME --help`); hours."""
    resume: pathlib.Path | None = None
    """The directory of an earlier run: its options, and what it finished with them, are taken over."""
    tiny: bool = False
    """Each module at the size of its tests, to see that everything works, in a minute or two; proves nothing."""

    def validate(self) -> None:
        unknown = [name for name in self.only if name not in MODULES]
        runner.require(not unknown, "--only", " ".join(unknown), f"some of {', '.join(MODULES)}")
        runner.require(len(set(self.only)) == len(self.only), "--only", " ".join(self.only), "each once")
        runner.require(not (self.full and self.tiny), "--full", "beside --tiny", "one of them")
        if self.resume is not None:
            saved = self.resume / "config.json"
            known = saved.is_file() and {"only", "full", "tiny"} <= json.loads(saved.read_text(encoding="utf-8")).keys()
            runner.require(known, "--resume", self.resume, "the directory of an earlier run of all papers")

    @property
    def chosen(self) -> list[str]:
        return [name for name in MODULES if not self.only or name in self.only]


def config_of(module: Any, name: str, config: Config) -> Any:
    """The module's configuration: its default, its tests', or its paper's size."""
    lacking = [part for part in ("PAPER", "Config", "TINY", "run") if not hasattr(module, part)]
    if lacking:
        raise RuntimeError(f"experiments.{name} has no {', '.join(lacking)}, see experiments/_papers.py")
    chosen = dataclasses.replace(module.TINY if config.tiny else module.Config(), **MODULES[name])
    return dataclasses.replace(chosen, full=True) if config.full and hasattr(chosen, "full") else chosen


def reproduce(name: str, config: Config, recorder: runner.Recorder) -> pathlib.Path:
    """Runs one module inside this run's directory, or takes over what an earlier run finished."""
    module = importlib.import_module(f"experiments.{name}")
    options = config_of(module, name, config)
    if config.resume is not None and finished(config.resume / name / RUN, options):
        recorder.say(f"{name}: taken over from {config.resume}")
        return pathlib.Path(shutil.copytree(config.resume / name / RUN, recorder.path(f"{name}/{RUN}")))
    plot = getattr(module, "plot", None)
    return runner.execute(name, options, module.run, plot, output_dir=recorder.directory, run_name=RUN)


def finished(directory: pathlib.Path, options: Any) -> bool:
    """Whether a module's run came to its end there, with these options."""
    if not (directory / "summary.json").is_file():
        return False
    return json.loads((directory / "config.json").read_text(encoding="utf-8")) == _reports.plain(options)


def resumed(config: Config) -> Config:
    """`config` with the options of the run that it goes on with, unless others were given."""
    if config.resume is None or dataclasses.replace(config, resume=None) != Config():
        return config
    saved = json.loads((config.resume / "config.json").read_text(encoding="utf-8"))
    return dataclasses.replace(config, only=tuple(saved["only"]), full=saved["full"], tiny=saved["tiny"])


def run(config: Config, recorder: runner.Recorder) -> list[page.Found]:
    config = resumed(config)
    recorder.path("config.json").write_text(json.dumps(_reports.plain(config)), encoding="utf-8")
    recorder.resumable()
    found, failed = [], []
    for index, name in enumerate(config.chosen):
        recorder.say(f"\n[{index + 1}/{len(config.chosen)}] {name}")
        try:
            found.append(page.load(reproduce(name, config, recorder)))
        except Exception:
            failed.append(name)
            recorder.say(traceback.format_exc())
    for each in found:
        for row in each.summary["rows"]:
            recorder.row(**row | {"quantity": f"{each.name}: {row['quantity']}"})
    recorder.table("Every paper's best-known numbers", *page.overview(found), numeric=("seconds",))
    environment = json.loads(recorder.path("environment.json").read_text(encoding="utf-8"))
    report = recorder.path("report.html")
    report.write_text(page.write(found, failed, environment, tiny=config.tiny), encoding="utf-8")
    for each in found:
        for contradiction in each.paper["contradictions"]:
            recorder.note(f"{each.name}: {contradiction['text']}")
    recorder.note(f"Open {report.name} in a browser: the same, with every figure, in one file.")
    if failed:
        raise RuntimeError(f"{', '.join(failed)} failed, as shown above; the other papers are in {report.name}")
    return found


if __name__ == "__main__":
    runner.main(__file__, __doc__, Config, run)
