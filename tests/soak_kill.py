"""Kill two trainings again and again, at random moments and at every phase of a save, and resume them each time.

Command  python tests/soak_kill.py --kills 50 --output results/soak_kill.json
Shows    A table. At the end of each training its parameters, optimiser, baseline, key and log must equal those of a
         training that nobody interrupted, bit for bit, and each restart must go on from the newest checkpoint that
         can be read. "went on" counts the restarts from a later update than 0. The exit code is 1 if one fails.
Takes    About five minutes on two CPU cores. Two processes work side by side, one for each training.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# One has a recurrent policy; the other one a value network with a running scale. Each has two runs.
TRAININGS = {
    "recall, GRU": ["--env", "recall", "--num-episodes", "8", "--network-options", "memory_size=4"],
    "CartPole-v1, value network": ["--env", "CartPole-v1", "--num-episodes", "4", "--hidden", "8"],
}
SIZES = ["--num-updates", "150", "--num-seeds", "2", "--eval-episodes", "4", "--no-references", "--devices", "1"]
# The files at whose writing the training is killed, beside the renaming of its folder. All files are written alike.
KINDS = ("state", "metrics.jsonl", "options.json", "summary.json", "run")
PAUSE = 0.01  # seconds after each chunk, so that more kills fall between two of them
PATIENCE = 1200.0


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="The number of kills at random moments. Default: 50.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of these moments. Default: 0.")
    parser.add_argument("--phases", type=int, default=None, help="Kill at the first so many phases only.")
    parser.add_argument("--output", type=pathlib.Path, default=None, help="The file for the result, as JSON.")
    asked = parser.parse_args(arguments)
    began = time.time()
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{place}/cache")
        prepare()
        children = []
        for index, name in enumerate(TRAININGS):
            found = pathlib.Path(place) / f"{index}.json"
            kills = asked.kills // 2 + (index == 0) * (asked.kills % 2)
            child = fork(lambda n=name, f=found, k=kills, i=index: soak(n, f, k, asked.seed + i, asked.phases))
            children.append((child, found))
        for child, _ in children:
            os.waitpid(child, 0)
        results = [json.loads(found.read_text()) if found.exists() else {"equal": False} for _, found in children]
    results = [{"training": name} | result for name, result in zip(TRAININGS, results, strict=True)]
    result = {"seconds": round(time.time() - began), "seed": asked.seed, "trainings": results}
    show(result)
    if asked.output is not None:
        from experiments.harness import reports
        from pgjax import writing

        asked.output.parent.mkdir(parents=True, exist_ok=True)
        result |= {"environment": reports.environment()}
        writing.replace_file(asked.output, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return int(not all(each["equal"] for each in results))


def prepare() -> None:
    """Import everything once, and start no device: the processes of the trainings are copies of this one."""
    sys.path.insert(0, str(ROOT))
    import experiments
    from experiments import train
    from experiments.harness import plots

    assert experiments and train and plots


def fork(act) -> int:
    """Call `act` in a copy of this process, and return the number of the copy."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = act() or 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return child


class Training:
    """One training in a folder of its own, in attempts that are killed and resumed."""

    def __init__(self, name: str, place: pathlib.Path):
        self.arguments, self.place, self.number = TRAININGS[name], place, 0
        # The update from which the present attempt went on, and how many attempts went on from one after 0.
        self.begun, self.gone_on = place / "begun.txt", 0

    @property
    def run(self) -> pathlib.Path:
        return self.place / "train" / f"run{self.number}"

    def attempt(self, *, kill_after: float | None = None, kill_at: tuple[str, int] | None = None) -> bool:
        """Start the training, or go on with it, and kill it; return whether it was complete before.

        Args:
            kill_after: seconds from the start of the attempt.
            kill_at: a phase, and how often it is passed before the kill.
        """
        from experiments.harness import directories

        kept = directories.found(self.run)
        resume = kept.is_dir() and (kept / "options.json").is_file()
        saved = self._saved(kept)
        self.begun.unlink(missing_ok=True)
        if kept.is_dir() and not resume:  # killed before anything was saved: the run begins again
            self.number += 1
        more = ["--resume", str(self.run), "--devices", "1"] if resume else self.fresh()
        child = fork(lambda: self._train([*more, "--checkpoint-every", "0"], kill_at, slowly=True))
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        complete = self._ended(child) or (self.run / "summary.json").exists()
        if self.begun.exists():  # the training itself was reached
            done = int(self.begun.read_text())
            assert done >= saved, f"a restart went on from update {done}, and update {saved} was saved"
            self.gone_on += done > 0
        return complete

    def _saved(self, kept: pathlib.Path) -> int:
        """The newest update in a folder whose checkpoint can be read."""
        from pgjax.saving import checkpoints, rotation

        for number, path in sorted(rotation.numbered(kept).items(), reverse=True) if kept.is_dir() else ():
            with contextlib.suppress(ValueError):
                checkpoints.read(path)
                return number
        return 0

    def fresh(self) -> list[str]:
        return [*self.arguments, *SIZES, "--run-name", self.run.name, "--output-dir", str(self.place)]

    def _ended(self, child: int) -> bool:
        deadline = time.time() + PATIENCE
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.time() > deadline:
                os.kill(child, signal.SIGKILL)
                raise TimeoutError(f"an attempt took more than {PATIENCE} s")
            time.sleep(0.01)
        if os.WIFSIGNALED(ended[1]) and os.WTERMSIG(ended[1]) == signal.SIGKILL:
            return False
        if os.waitstatus_to_exitcode(ended[1]) != 0:
            raise AssertionError(f"a restart did not go on: {(self.place / 'output.txt').read_text()[-2000:]}")
        return True

    def whole(self) -> list[tuple[str, int]]:
        """Train without an interruption; return the phases of all its saves."""
        child = fork(lambda: self._train(self.fresh(), None, slowly=False))
        assert self._ended(child)
        return [tuple(phase) for phase in json.loads((self.place / "phases.json").read_text())]

    def _train(self, arguments: list[str], kill_at: tuple[str, int] | None, slowly: bool) -> None:
        from experiments import train
        from experiments.harness import runner
        from experiments.shared.training import build
        from experiments.train import keeping
        from pgjax import writing

        output = os.open(self.place / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if slowly:
            build.CHUNK_SECONDS, hear = 0.02, keeping.Keeper.hear
            keeping.Keeper.hear = lambda *arguments: (hear(*arguments), time.sleep(PAUSE))[0]
        start, passed = keeping.Keeper.start, {}
        note = lambda keeper: self.begun.exists() or self.begun.write_text(str(keeper.thinned.done))
        keeping.Keeper.start = lambda keeper, states: (note(keeper), start(keeper, states))[1]

        def step(name: str, path: pathlib.Path) -> None:
            phase = f"{name}: {kind_of(path)}"
            passed[phase] = passed.get(phase, 0) + 1
            if kill_at is not None and phase == kill_at[0] and passed[phase] > kill_at[1]:
                if name == "write":  # a part of what was to be written is there
                    with path.open("ab") as file:
                        file.write(b'{"update": 7, "entr')
                os.kill(os.getpid(), signal.SIGKILL)

        writing.on_step = step
        runner.main(train.__file__, train.__doc__, train.Config, train.run, train.plot, arguments=arguments)
        (self.place / "phases.json").write_text(json.dumps(list(passed.items())))

    def result(self) -> dict:
        """What the two trainings must have in common."""
        from pgjax.saving import rotation

        lines = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            del line["elapsed_seconds"]
        rows = json.loads((self.run / "summary.json").read_text())["rows"]
        arrays = {n: (str(x.dtype), x.shape, x.tobytes()) for n, x in rotation.newest(self.run).arrays.items()}
        returns = [row["ours"] for row in rows if "return" in row["quantity"]]
        left = sorted(path.name for path in self.run.rglob("*.partial"))
        return {"arrays": arrays, "lines": lines, "returns": returns, "left over": left}


def kind_of(path: pathlib.Path) -> str:
    """The kind of a file or a folder: `state-12.safetensors` and its temporary name → `state`."""
    name = re.sub(r"\.[0-9a-f]{8}-\d+-[0-9a-f]{8}\.partial$", "", path.name).lstrip(".")
    return re.sub(r"^run\d+.*", "run", re.sub(r"-?\d+(\.safetensors)?$", "", name)) or "earlier"


def soak(name: str, found: pathlib.Path, kills: int, seed: int, most_phases: int | None) -> int:
    """Kill one training, and write what came of it."""
    place, chance = found.with_suffix(""), random.Random(seed)
    (place / "reference").mkdir(parents=True)
    reference = Training(name, place / "reference")
    phases = reference.whole()
    began = time.time()
    wanted = reference.result()
    one = Training(name, place)
    one.attempt()
    typical = time.time() - began
    # A phase that comes often is represented by one of its first four times.
    wanted_phases = [(phase, count) for phase, count in phases if phase.partition(": ")[2] in KINDS]
    at_phases = [(phase, chance.randrange(min(count, 4))) for phase, count in wanted_phases][:most_phases]
    moments = [{"kill_at": at} for at in at_phases] + [
        {"kill_after": chance.uniform(0.0, typical)} for _ in range(kills)
    ]
    made = {"random": 0, "at phases": 0, "restarts": 0, "complete trainings": 0, "phases": []}
    waiting, differing = list(moments), set()

    def compare() -> None:
        made["complete trainings"] += 1
        differing.update(name for name, value in one.result().items() if value != wanted[name])
        one.number += 1

    compare()
    misses: dict[str, int] = {}
    while waiting:
        moment = waiting[0]
        made["restarts"] += 1
        if one.attempt(**moment):
            compare()  # it was complete before the kill; the next attempt begins a new training
            at = moment.get("kill_at")
            if at is None:
                continue
            misses[at[0]] = misses.get(at[0], 0) + 1
            waiting[0] = {"kill_at": (at[0], 0)}
            if misses[at[0]] > 2:
                raise AssertionError(f"no attempt came to the phase {at[0]}")
            continue
        made["random" if "kill_after" in moment else "at phases"] += 1
        if "kill_at" in moment:
            made["phases"].append(moment["kill_at"][0])
        waiting.pop(0)
    while not one.attempt():
        made["restarts"] += 1
    compare()
    found.write_text(
        json.dumps(made | {"gone on": one.gone_on, "equal": not differing, "differing": sorted(differing)})
    )
    return 0


def show(result: dict) -> None:
    print(f"{'training':28} {'random kills':>12} {'phases':>7} {'restarts':>9} {'went on':>8} {'completed':>9}  equal")
    for each in result["trainings"]:
        shown = [str(each.get(name)) for name in ("random", "at phases", "restarts", "gone on", "complete trainings")]
        equal = "bit for bit" if each["equal"] else f"NO: {', '.join(each.get('differing', ['it stopped']))}"
        print(f"{each['training']:28} {shown[0]:>12} {shown[1]:>7} {shown[2]:>9} {shown[3]:>8} {shown[4]:>9}  {equal}")
    print(f"{result['seconds']} seconds")


if __name__ == "__main__":
    sys.exit(main())
