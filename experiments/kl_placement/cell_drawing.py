"""The figures of the exact table, part (d): a heat map of all cells, and ellipses of a few."""

import numpy as np

from experiments.harness import plots, runner
from experiments.kl_placement.cell_moments import Cell, CellGrades, Table
from experiments.kl_placement.cells import BASE, ESTIMATORS, FORMS
from experiments.kl_placement.forms import OVER_TIME
from experiments.kl_placement.records import TOLERANCE

# Cells of the figure of ellipses: the exact ones, a weak divergence, and a wrong direction.
DRAWN: tuple[Cell, ...] = (
    BASE,
    ("rloo", "sum", "full in reward and loss"),
    ("rloo", "sum", "k3 in the reward"),
    ("rloo", "sum", "k1 in the loss"),
    ("rloo", "mean", "k1 in the reward"),
    ("rloo", "episode_mean", "k1 in the loss"),
    ("grpo", "mean", "k3 in the loss"),
)
FAR = ("k3 in the reward", "k1 in the loss")
BATCHES = 100


def draw_heat_map(table: Table, grades: dict[Cell, CellGrades], recorder: runner.Recorder) -> None:
    """One panel for each way of adding up but 1/T, whose cosines are those of the sum: colour cosine, number bias."""
    shown = [over_time for over_time in OVER_TIME if over_time != "horizon"]
    exact_forms = sum(grades["rloo", "sum", form].bias < TOLERANCE for form in FORMS)
    lowest = min(found.cosine for found in grades.values())
    figure, panels = plots.figure(
        f"RLOO added up over the answer is exact with {exact_forms} of {len(FORMS)} forms; the lowest cosine of all "
        f"{len(grades)} cells is {lowest:.2f}",
        "Colour: cosine of the exact E ĝ with ∇(E[r] − β KL). Number: ‖E ĝ − ∇J‖ / ‖∇J‖, in which a factor of the "
        f"whole estimate counts, too. All batches of {table.group_size} answers, β = {table.kl_coef:g}. The fourth "
        "way, 1/T, is the sum divided by a constant, and has its cosines.",
        rows=len(shown),
        width=13,
        height=13,
    )
    floor = np.floor(10 * lowest) / 10
    for axes, over_time in zip(panels, shown, strict=True):
        found = [[grades[name, over_time, form] for form in FORMS] for name in ESTIMATORS]
        image = axes.imshow(
            [[x.cosine for x in row] for row in found], cmap="cividis", vmin=floor, vmax=1.0, aspect="auto"
        )
        middle = 0.5 * (floor + 1.0)
        for row, cells in enumerate(found):
            for column, x in enumerate(cells):
                colour = "black" if x.cosine > middle else "white"
                text = "0" if x.bias < TOLERANCE else f"{x.bias:.2f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
        axes.set_yticks(range(len(ESTIMATORS)), list(ESTIMATORS.values()))
        names = list(FORMS) if axes is panels[-1] else [""] * len(FORMS)
        axes.set_xticks(range(len(FORMS)), names, rotation=40, ha="right")
        axes.set_title(OVER_TIME[over_time], loc="left", fontsize=10)
        axes.grid(visible=False)
    figure.colorbar(image, ax=list(panels), label="cosine of E ĝ with ∇(E[r] − β KL)", fraction=0.025, pad=0.01)
    recorder.figure(figure, "kl_placement_all_cells")


def draw_ellipses(table: Table, recorder: runner.Recorder) -> None:
    """Means and covariances of a few cells in the plane of ∇E[r] and ∇KL, which holds the exact gradient."""
    truth = table.truth
    length = np.linalg.norm(truth)
    across = table.of_kl - (table.of_kl @ truth) / length**2 * truth
    plane = np.stack([truth / length, across / np.linalg.norm(across)])

    def far(form: str) -> float:
        """The distance of a mean from the exact gradient over the standard deviation in its direction."""
        apart = table.means["rloo", "sum", form] - truth
        return float(apart @ apart / np.sqrt(apart @ table.covariances["rloo", "sum", form] @ apart / BATCHES))

    figure, axes = plots.figure(
        f"The biases of {' and '.join(FAR)} are {' and '.join(f'{far(form):.1f}' for form in FAR)} standard deviations "
        f"of a mean of {BATCHES} batches",
        f"Exact means (points) and one standard deviation of a mean of {BATCHES} batches of {table.group_size} answers "
        "(ellipses, from the full covariance matrices), in the plane of ∇E[r] and ∇KL. Unit: the length of the exact "
        "gradient. RLOO unless named otherwise.",
        width=11,
        height=5.4,
    )
    angles = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    for colour, cell in zip(plots.PALETTE, DRAWN, strict=True):
        name, over_time, form = cell
        mean = plane @ table.means[cell] / length
        values, vectors = np.linalg.eigh(plane @ table.covariances[cell] @ plane.T / BATCHES / length**2)
        outline = mean[:, None] + vectors @ (np.sqrt(np.maximum(values, 0.0))[:, None] * circle)
        label = f"{ESTIMATORS[name] + ', ' if name != 'rloo' else ''}{form}, {OVER_TIME[over_time]}"
        axes.plot(*outline, color=colour, linewidth=1.6)
        axes.plot(*mean, "o", color=colour, markersize=6, label=label)
    axes.plot(1.0, 0.0, "*", color=plots.INK, markersize=15, zorder=1, label="exact gradient")
    axes.set(xlabel="along ∇(E[r] − β KL)", ylabel="across it, towards ∇KL", aspect="equal")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    recorder.figure(figure, "kl_placement_noise")
