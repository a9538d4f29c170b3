"""The rows, tables and files of the exact table, part (d)."""

import csv
import io

import numpy as np

from experiments.harness import runner, verdicts
from experiments.kl_placement.cell_moments import SAMPLED, Cell, CellGrades, Sampled, Table
from experiments.kl_placement.cells import BASE, ESTIMATORS, FORMS, NO_TERM
from experiments.kl_placement.forms import OVER_TIME
from experiments.kl_placement.records import TOLERANCE, number

COLUMNS = {
    "norm ratio": "norm_ratio",
    "cosine": "cosine",
    "relative bias": "bias",
    "tr Cov / base": "variance",
    "largest eigenvalue / base": "largest",
    "noise / base": "noise",
    "distance from theory": "gap",
}
SHORT = {"sum": "sum", "episode_mean": "1/|o|", "mean": "tokens", "horizon": "1/T"}
GRADED = "largest of {count} cells: ‖E ĝ − theory‖ / ‖∇J‖"


def record(table: Table, grades: dict[Cell, CellGrades], sampled: Sampled, recorder: runner.Recorder) -> None:
    """Record the verdicts, two marginal tables and the files of all cells."""
    _record_theory(table, grades, recorder)
    _record_sample(sampled, recorder)
    _record_margins(grades, recorder)
    _write(table, grades, recorder)
    k, last = table.group_size, max(grades, key=lambda cell: grades[cell].bias)
    recorder.note(
        f"(d) {len(grades)} cells: {len(ESTIMATORS)} estimators × {len(OVER_TIME)} ways of adding up × {len(FORMS)} "
        f"forms, each from all batches of {k} answers to one prompt, which form one group. β = {table.kl_coef:g}, "
        f"KL(π ‖ π_ref) = {table.divergence:.3f} nats. A factor of the whole estimate counts as bias but not in the "
        "cosine. 1/|o| divides by the answer's own length, tokens by the tokens of the batch, and 1/T by a constant."
    )
    recorder.note(
        "(d) The spreads are divided by those of RLOO with k1 in the reward, added up. λ max is the largest eigenvalue "
        "of Cov ĝ, and the noise is tr Cov ĝ / ‖E ĝ‖². all_cells.csv holds every cell, and all_cells.npz all means and "
        f"covariance matrices. The largest bias of all cells is {grades[last].bias:.2f}: {ESTIMATORS[last[0]]}, "
        f"{last[2]}, {OVER_TIME[last[1]]}."
    )
    recorder.note(
        "(d) The moving average stands at its expectation, where it stands after many batches of a fixed policy. The "
        "row of PPO-clip is its first epoch, where all ratios are 1, nothing is clipped, and the estimate is the score "
        "function with Gₜ − v(Xₜ); v is the exact value of the rewards. REINFORCE++ standardises over the batch, which "
        "is one group here."
    )


def _record_theory(table: Table, grades: dict[Cell, CellGrades], recorder: runner.Recorder) -> None:
    """One row for each estimator whose means theory knows, and one for the forms that do nothing."""
    for name, label in ESTIMATORS.items():
        gaps = [found.gap for cell, found in grades.items() if cell[0] == name and not np.isnan(found.gap)]
        if gaps:
            recorder.row(
                quantity=f"(d) {GRADED.format(count=len(gaps))}",
                variant=label,
                ours=max(gaps),
                exact=0.0,
                verdict=verdicts.against_exact(max(gaps), 0.0, 0.0, tolerance=TOLERANCE),
            )
    length = np.linalg.norm(table.truth)
    for form in ("k1 in the loss", "k1 in the loss, sequence"):
        moved = [
            np.linalg.norm(table.means[name, over_time, form] - table.means[name, over_time, NO_TERM]) / length
            for name in ESTIMATORS
            for over_time in ("sum", "horizon")
        ]
        recorder.row(
            quantity=f"(d) largest of {len(moved)} cells: ‖E ĝ − E ĝ without the term‖ / ‖∇J‖",
            variant=form,
            ours=float(max(moved)),
            exact=0.0,
            verdict=verdicts.against_exact(float(max(moved)), 0.0, 0.0, tolerance=TOLERANCE),
        )


def _record_sample(sampled: Sampled, recorder: runner.Recorder) -> None:
    name, over_time, form = SAMPLED
    variant = f"{ESTIMATORS[name]}, {form}, {OVER_TIME[over_time]}"
    tiny = verdicts.is_tiny(recorder)
    for quantity, ours, stderr, exactly in (
        ("sampled E ĝ along its exact direction", sampled.mean, sampled.mean_stderr, sampled.exact_mean),
        ("sampled tr Cov ĝ", sampled.variance, sampled.variance_stderr, sampled.exact_variance),
    ):
        recorder.row(
            quantity=f"(d) {quantity}",
            variant=variant,
            ours=ours,
            stderr=stderr,
            exact=exactly,
            verdict=verdicts.against_exact(ours, stderr, exactly, tiny=tiny),
        )


def _record_margins(grades: dict[Cell, CellGrades], recorder: runner.Recorder) -> None:
    """The row and the column of the table through its base: all forms of RLOO, all estimators with k1 in the reward."""
    _record_margin("RLOO with each form", {form: ("rloo", form) for form in FORMS}, grades, recorder)
    each = {label: (name, BASE[2]) for name, label in ESTIMATORS.items()}
    _record_margin("each estimator with k1 in the reward", each, grades, recorder)


def _record_margin(
    title: str, rows: dict[str, tuple[str, str]], grades: dict[Cell, CellGrades], recorder: runner.Recorder
) -> None:
    """`rows` maps the name of a row to its estimator and its form."""
    lines = []
    for label, (name, form) in rows.items():
        cells = {over_time: grades[name, over_time, form] for over_time in OVER_TIME}
        added_up = cells["sum"]
        spread = (added_up.bias, added_up.variance, added_up.largest, added_up.noise)
        lines.append([label, *(number(cells[over_time].cosine) for over_time in SHORT), *map(number, spread)])
    what = "cosines with ∇(E[r] − β KL) for four ways of adding up; then the sum: bias, and spread beside the base"
    recorder.table(f"(d) {title}: {what}", ("row", *SHORT.values(), "bias", "tr Cov", "λ max", "noise"), lines)


def _write(table: Table, grades: dict[Cell, CellGrades], recorder: runner.Recorder) -> None:
    with io.StringIO(newline="") as file:
        out = csv.writer(file)
        out.writerow(["estimator", "added up", "form", *COLUMNS])
        for cell, found in grades.items():
            values = [getattr(found, field) for field in COLUMNS.values()]
            out.writerow([cell[0], cell[1], cell[2], *("" if np.isnan(x) else repr(x) for x in values)])
        recorder.write("all_cells.csv", file.getvalue())
    arrays = {
        "cells": np.array(list(grades)),
        "means": np.stack([table.means[cell] for cell in grades]),
        "covariances": np.stack([table.covariances[cell] for cell in grades]),
        "gradient_of_score": table.of_score,
        "gradient_of_kl": table.of_kl,
        "kl_coef": table.kl_coef,
    }
    recorder.write("all_cells.npz", arrays)
