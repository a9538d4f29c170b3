"""The means of all metrics over intervals of updates: the lines of `metrics.jsonl` and the points of the curves.

The intervals follow from the number of the update alone. The first `POINTS` hold one update each, the next `POINTS`
two, the next four, and so on, so a million updates of one run have about three thousand intervals. Each sum goes from
the first update of an interval to its last, in float64. So no number depends on the chunks in which updates were made.

The gradient meter measures some updates only, and its metrics are NaN in the others. Their means are over the measured
updates of an interval, `meter_measured` is the number of these, and an interval without one has NaN.
"""

from typing import Any

import numpy as np

POINTS, MOST_NUMBERS = 256, 4096  # many runs have fewer intervals, because each line holds a number for each run
# The means of these count each episode once.
OVER_EPISODES = ("mean_return", "mean_length")
COUNT = "num_finished"
METER, MEASURED = "meter_", "meter_measured"


def points(num_runs: int) -> int:
    """The number of intervals of each width."""
    return max(16, min(POINTS, MOST_NUMBERS // num_runs))


def ends(done: int, further: int, num_points: int) -> np.ndarray:
    """The updates after `done`, and up to `done + further`, with which an interval ends; int `[N]`."""
    updates = np.arange(done + 1, done + further + 1)
    level = np.frexp((updates - 1) // num_points + 1)[1] - 1  # ⌊log₂⌋
    width = 1 << level
    return updates[(updates - num_points * (width - 1)) % width == 0]


class Thinned:
    """The intervals of S runs so far.

    Attributes:
        done: the number of updates so far.
        updates: the last update of each interval, N of them.
        steps: the environment steps in each interval, `[N]` of int64 `[S]`.
        returns: the mean return of the episodes in each interval, `[N]` of float64 `[S]`; NaN where none ended.
    """

    def __init__(self, num_runs: int):
        self.num_runs, self.done = num_runs, 0
        self.updates: list[int] = []
        self.steps: list[np.ndarray] = []
        self.returns: list[np.ndarray] = []
        self._names: list[str] = []
        self._sums = np.zeros((0, num_runs))

    def add(self, metrics: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """Add the metrics `[S, n]` of n updates. Return a line `{"update": u, name: [S], …}` for each full interval."""
        metrics = _with_measured({name: x for name, x in metrics.items() if x.ndim == 2})
        names, counts = sorted(metrics), np.maximum(metrics[COUNT], 1)
        if names != self._names:
            # A resumed run may switch the meter on or off within an interval.
            held, nothing = dict(zip(self._names, self._sums, strict=True)), np.zeros(self.num_runs)
            self._names, self._sums = names, np.stack([held.get(name, nothing) for name in names])
        weigh = lambda x: np.where(metrics[COUNT] > 0, x * counts, 0.0)
        rows = np.stack([weigh(metrics[n]) if n in OVER_EPISODES else metrics[n] for n in names]).astype(np.float64)
        lines, past, further = [], 0, rows.shape[2]
        for end in ends(self.done, further, points(self.num_runs)) - self.done:
            self._sums = _plus(self._sums, rows[:, :, past:end])
            lines.append(self._line(self.done + int(end)))
            self._sums, past = np.zeros_like(self._sums), end
        self._sums = _plus(self._sums, rows[:, :, past:])
        self.done += further
        return lines

    def last_line(self) -> list[dict[str, Any]]:
        """The line of the interval that has begun, for the end of a run; none if it holds no update."""
        return [self._line(self.done)] if self.done > self._last else []

    @property
    def _last(self) -> int:
        return self.updates[-1] if self.updates else 0

    def _line(self, update: int) -> dict[str, Any]:
        width, sums = update - self._last, dict(zip(self._names, self._sums, strict=True))
        measured = sums.pop(MEASURED, None)
        divisor = lambda name: sums[COUNT] if name in OVER_EPISODES else measured if name.startswith(METER) else width
        with np.errstate(invalid="ignore", divide="ignore"):
            means = {name: x / divisor(name) for name, x in sums.items()}
        if measured is not None:
            means[MEASURED] = measured
        self.updates.append(update)
        self.steps.append(sums["num_steps"].astype(np.int64))
        self.returns.append(means["mean_return"])
        return {"update": update} | means

    def arrays(self) -> dict[str, Any]:
        """Everything, as arrays for a checkpoint."""
        shape = (len(self.updates), self.num_runs)
        return {
            "updates": np.array(self.updates, np.int64),
            "steps": np.array(self.steps, np.int64).reshape(shape),
            "returns": np.array(self.returns, np.float64).reshape(shape),
            "sums": dict(zip(self._names, self._sums, strict=True)),
        }

    @classmethod
    def of(cls, arrays: dict[str, Any], done: int) -> "Thinned":
        """The intervals of `arrays` after `done` updates."""
        made = cls(arrays["steps"].shape[1])
        made.done, made.updates = done, arrays["updates"].tolist()
        made.steps, made.returns = list(arrays["steps"]), list(arrays["returns"])
        made._names = sorted(arrays["sums"])
        made._sums = np.array([arrays["sums"][name] for name in made._names]).reshape(-1, made.num_runs)
        return made


def _with_measured(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics `[S, n]` with 0 where the meter did not measure, and with the number of measurements, 0 or 1."""
    of_meter = [name for name in metrics if name.startswith(METER)]
    if not of_meter:
        return metrics
    measured = np.all([np.isfinite(metrics[name]) for name in of_meter], axis=0)
    return metrics | {name: np.where(measured, metrics[name], 0.0) for name in of_meter} | {MEASURED: measured}


def _plus(sums: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`sums` `[M, S]` and then, one after another, the columns of `rows` `[M, S, n]`."""
    return np.add.accumulate(np.concatenate([sums[:, :, None], rows], axis=2), axis=2)[:, :, -1]
