"""Targets of `compounding_error` from papers on imitation, and how our numbers follow from its curves."""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np

from experiments.compounding_error.slippery_maze import ALGORITHMS
from experiments.harness import targets as papers
from pgjax import diagnostics, exact

ONE_TABLE = "cloning, one table for all times"
ON_CLIFF = (*ALGORITHMS, ONE_TABLE)

ERROR, INJECTED = 0.005, 0.2
# Computed in NumPy: the chain at ε = ERROR, and the cliff over 200 data sets with its standard error, where recorded.
CHAIN = {10: ".271", 20: "1.018", 50: "5.884", 100: "21.55", 200: "74.02"}
# The first and the last setting, between which the slopes of the cliff are taken.
RANGES = {"H": (8, 64), "N": (50, 400)}
MENDED = {10: ".05", 20: ".1", 50: ".25", 100: ".5", 200: "1"}
CLIFF = {
    (100, 8): (".393", 0.007),
    (100, 16): ("1.41", 0.02),
    (100, 32): ("5.10", 0.04),
    (100, 64): ("18.19", 0.10),
    (50, 32): ("9.17", None),
    (200, 32): ("2.70", None),
    (400, 32): ("1.39", None),
}
ROUNDING = "The exact value is Σ (1 − (1 − ε)^t) = 1.01749, which rounds to 1.017; the reference has 1.018."
PAPER = papers.Paper(
    citation="Ross & Bagnell 2010; Ross, Gordon & Bagnell 2011 (DAgger); Rajaraman et al. 2020; Foster et al. 2024",
    claim="The errors of a copy cost T² ε; asking the expert costs u T ε and helps only where an error can be mended.",
    targets=(
        *(
            papers.Target(
                key=f"chain {horizon}",
                quantity=f"(a) regret, ε = 0.005, T = {horizon}",
                variant="cloning, an error lasts",
                rule=papers.Digits(),
                published=printed,
                provenance="own",
                headline="regret, T = 100" if horizon == 100 else "",
                why=ROUNDING if horizon == 20 else "",
            )
            for horizon, printed in CHAIN.items()
        ),
        *(
            papers.Target(
                key=f"mended {horizon}",
                quantity=f"(a) regret, ε = 0.005, T = {horizon}",
                variant="DAgger, errors can be mended",
                rule=papers.Digits(),
                published=printed,
                provenance="own",
            )
            for horizon, printed in MENDED.items()
        ),
        papers.Target(
            "bound",
            "(a) the least of T² ε − regret over T, at least 0",
            papers.Above(-1e-12),  # equal at T = 1
            provenance="card",
            variant="cloning, an error lasts",
        ),
        papers.Target(
            "chain slope",
            "(a) slope of ln regret in ln T, closed form, ε → 0, T → ∞",
            papers.Near(0.01),
            published="2",
            provenance="card",
            variant="cloning, an error lasts",
        ),
        papers.Target(
            "mended slope",
            "(a) slope of ln regret in ln T",
            papers.Near(0.01),
            published="1",
            provenance="card",
            variant="DAgger, errors can be mended",
            headline="slope in T, DAgger, errors mended",
        ),
        *(
            papers.Target(
                key=f"cliff {size} {horizon}",
                quantity=f"(b) regret on the cliff, N = {size}, H = {horizon}",
                variant="cloning",
                rule=papers.Within(3, published_stderr=stderr),
                published=printed,
                provenance="own",
            )
            for (size, horizon), (printed, stderr) in CLIFF.items()
        ),
        papers.Target(
            key="cliff slope H",
            quantity="(b) slope of ln regret in ln H, from H = 8 to 64",
            rule=papers.Within(3, None),
            published="1.85",
            provenance="own",
            variant="cloning",
            headline="slope in H, cliff, cloning, H = 8 to 64",
        ),
        papers.Target(
            key="cliff slope N",
            quantity="(b) slope of ln regret in ln N, from N = 50 to 400",
            rule=papers.Within(3, None),
            published="−.91",
            provenance="own",
            variant="cloning",
        ),
        papers.Target(
            key="limit H",
            quantity="(b) slope of ln regret in ln H, closed form, N ≫ H → ∞",
            rule=papers.Near(0.01),
            published="2",
            provenance="text",
            variant="cloning",
        ),
        papers.Target(
            key="limit N",
            quantity="(b) slope of ln regret in ln N, closed form, N → ∞",
            rule=papers.Near(0.01),
            published="−1",
            provenance="text",
            variant="cloning",
        ),
        papers.Target(
            key="T² stays",
            quantity="(b) slope of ln regret in ln H, from H = 8 to 64, above 1.5",
            rule=papers.Above(1.5),
            provenance="own",
            variant="DAgger",
        ),
        *(
            papers.Target(
                key=key,
                quantity="(b) regret on the cliff minus that of cloning, longest H",
                rule=papers.Above(),
                provenance=provenance,
                variant=name,
            )
            for key, name, provenance in (("no help", "DAgger", "own"), ("harm", "DART", None))
        ),
        papers.Target(
            key="one table",
            quantity="(b) share of data sets whose copy has any regret, longest H",
            rule=papers.Within(3),
            variant=ONE_TABLE,
        ),
    ),
    pitfalls=(
        "“DAgger removes the T²” holds only if u, the cost of one error, is small. On the cliff u = T, and the lower "
        "bound S H² / N holds for learners that may ask the expert, too.",
        "The T² belongs to tables that share nothing over time. With one table for all times a copy has no regret on "
        "the cliff once it has seen each good state at any time. For N = 100 and H = 8 one data set in 700 lacks a "
        "good state.",
    ),
)


def left_out(parts: Collection[str]) -> list[str]:
    """Return the keys of the targets of parts that are not run; a quantity begins with the letter of its part."""
    letters = {"(a)": "chain", "(b)": "cliff"}
    return [target.key for target in PAPER.targets if letters[target.quantity.partition(" ")[0]] not in parts]


def slope(x, y) -> float:
    """Return the slope of ln y against ln x between the last two points."""
    return float(np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]))


def range_slope(x, y) -> float:
    """Return the slope of ln y against ln x from the first point to the last."""
    return slope((x[0], x[-1]), (y[0], y[-1]))


def missing(size: int, horizon: int) -> float:
    """Return P(N demonstrations of H steps lack a good state of the cliff), by inclusion and exclusion."""
    rho = np.asarray(exact.reset_cliff(size, horizon).initial)
    rho = rho[rho > 0]
    subsets = itertools.chain.from_iterable(itertools.combinations(rho, k) for k in range(1, len(rho) + 1))
    return -sum((-1) ** len(each) * max(0.0, 1.0 - sum(each)) ** (size * horizon) for each in subsets)


def measured(config: Any, found: dict) -> dict[str, papers.Measured]:
    """Return our number for each of the paper's targets that this configuration reaches."""
    ours = {}
    if "chain" in found and config.error == ERROR:
        lasting, mended = (found["chain"][name] for name in ("cloning, an error lasts", "DAgger, errors can be mended"))
        cost = lambda error, horizon: float(exact.compounding_cost(error, horizon))
        for i, horizon in enumerate(config.lengths):
            if horizon in CHAIN:
                ours[f"chain {horizon}"] = papers.Measured(lasting[i], exact=cost(config.error, horizon))
                ours[f"mended {horizon}"] = papers.Measured(mended[i], exact=config.error * horizon)
        lengths = np.array(config.lengths)
        ours["bound"] = papers.Measured(float(np.min(config.error * lengths**2 - lasting)))
        ours["chain slope"] = papers.Measured(slope((1000, 2000), (cost(1e-7, 1000), cost(1e-7, 2000))))
        ours["mended slope"] = papers.Measured(slope(lengths, mended))
    if "cliff" in found:
        ours |= _measured_on_cliff(found["cliff"], config.injected)
    return ours


def _measured_on_cliff(cliff: dict, injected: float) -> dict[str, papers.Measured]:
    middle, fixed = cliff["fixed"]
    ours = {}
    for name in ("H", "N"):
        x, curves, predicted = cliff[name]
        mean, stderr = map(np.asarray, diagnostics.mean_and_stderr(curves["cloning"]))
        for i, value in enumerate(x):
            key = (middle, value) if name == "H" else (value, fixed)
            if key in CLIFF and f"cliff {key[0]} {key[1]}" not in ours:
                ours[f"cliff {key[0]} {key[1]}"] = papers.Measured(float(mean[i]), float(stderr[i]), predicted[i])
        if (x[0], x[-1]) == RANGES[name]:
            ours[f"cliff slope {name}"] = _slope_of_ends(x, curves["cloning"], predicted)
            if "DAgger" in curves:
                ours["T² stays"] = _slope_of_ends(x, curves["DAgger"])
    regret = lambda size, horizon: float(exact.reset_cliff_regret(size, horizon))
    ours["limit H"] = papers.Measured(slope((1000, 2000), (regret(10**6, 1000), regret(10**6, 2000))))
    ours["limit N"] = papers.Measured(slope((10**5, 2 * 10**5), (regret(10**5, 32), regret(2 * 10**5, 32))))
    horizons, curves, _ = cliff["H"]
    for key, name in (("no help", "DAgger"), ("harm", "DART")):
        if name in curves and (name != "DART" or injected == INJECTED):
            ours[key] = papers.Measured.of(curves[name][:, -1] - curves["cloning"][:, -1])
    if ONE_TABLE in curves:
        lossy = curves[ONE_TABLE][:, -1] > 0
        ours["one table"] = papers.Measured.share(lossy, exact=missing(middle, horizons[-1]))
    return ours


def _slope_of_ends(x, curves: np.ndarray, predicted: np.ndarray | None = None) -> papers.Measured:
    """Return the slope of ln mean over data sets, from the first to the last setting; `curves` are `[D, N]`."""
    mean, stderr = map(np.asarray, diagnostics.mean_and_stderr(curves))
    error = float(np.hypot(stderr[0] / mean[0], stderr[-1] / mean[-1]) / np.log(x[-1] / x[0]))
    return papers.Measured(range_slope(x, mean), error, None if predicted is None else range_slope(x, predicted))
