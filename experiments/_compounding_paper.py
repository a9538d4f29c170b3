"""What `compounding_error` is to reproduce of the papers on imitation, and how ours is read off its curves."""

from typing import Any

import numpy as np

from experiments import _papers as papers
from pgjax import diagnostics, exact

ONE_TABLE = "cloning, one table for all times"
ON_CLIFF = ("cloning", ONE_TABLE, "DAgger", "DART")

ERROR = 0.005
# Computed in NumPy: the chain at ε = ERROR, and the cliff over 200 data sets ± the standard error where it was kept.
CHAIN = {10: ".271", 20: "1.018", 50: "5.884", 100: "21.55", 200: "74.02"}
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
ROUNDING = "Σ (1 − (1 − ε)^t) = 1.01749, which rounds to 1.017; the reference has 1.018."
PAPER = papers.Paper(
    citation="Ross & Bagnell 2010; Ross, Gordon & Bagnell 2011 (DAgger); Rajaraman et al. 2020; Foster et al. 2024",
    claim="A copy's errors cost T² ε; asking the expert costs u T ε, which helps only where an error can be mended.",
    targets=(
        *(
            papers.Target(
                key=f"chain {horizon}",
                quantity=f"(a) regret, ε = 0.005, T = {horizon}",
                variant="cloning, an error lasts",
                rule=papers.Digits(),
                published=printed,
                provenance="own",
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
            "bound", "(a) T² ε − regret, the least over T", papers.Above(), provenance="card", variant="cloning"
        ),
        papers.Target(
            "chain slope",
            "(a) slope of ln regret in ln T, ε → 0, T → ∞",
            papers.Near(0.01),
            published="2",
            provenance="card",
            variant="cloning, an error lasts",
            headline="slope in T, cloning",
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
            "cliff slope H", "(b) slope of ln regret in ln H, H = 8 to 64", papers.Within(3, None), "1.85", "own"
        ),
        papers.Target(
            "cliff slope N", "(b) slope of ln regret in ln N, N = 50 to 400", papers.Within(3, None), "−.91", "own"
        ),
        papers.Target(
            "limit H", "(b) slope of ln exact regret in ln H, N ≫ H → ∞", papers.Near(0.01), "2", "text"
        ),
        papers.Target(
            "limit N",
            "(b) slope of ln exact regret in ln N, N → ∞",
            papers.Near(0.01),
            "−1",
            "text",
            headline="slope in N, cliff",
        ),
        papers.Target(
            "no help",
            "(b) regret on the cliff, DAgger − cloning, longest H",
            papers.Above(),
            provenance="text",
        ),
        papers.Target(
            "one table",
            "(b) regret on the cliff, the most over data sets, longest H",
            papers.Digits(),
            variant=ONE_TABLE,
            exact=0.0,
        ),
    ),
    pitfalls=(
        "“DAgger removes the T²” needs u, the cost of one error, to be small: on the cliff u = T, and the lower bound "
        "S H² / N holds for learners that may ask the expert too.",
        "The T² belongs to tables that share nothing over time: one table for all times loses nothing on the cliff.",
    ),
)


def slope(x, y) -> float:
    """Of ln y against ln x, between the last two points."""
    return float(np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]))


def measured(config: Any, found: dict) -> dict[str, papers.Measured]:
    """Ours for each of the paper's targets that this configuration reaches."""
    ours = {}
    if "chain" in found and config.error == ERROR:
        lasting, mended = (
            found["chain"][name] for name in ("cloning, an error lasts", "DAgger, errors can be mended")
        )
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
        ours |= _measured_on_cliff(found["cliff"])
    return ours


def _measured_on_cliff(cliff: dict) -> dict[str, papers.Measured]:
    middle, fixed = cliff["fixed"]
    ours = {}
    for name in ("H", "N"):
        x, curves, predicted = cliff[name]
        mean, stderr = map(np.asarray, diagnostics.mean_and_stderr(curves["cloning"]))
        for i, value in enumerate(x):
            key = (middle, value) if name == "H" else (value, fixed)
            if key in CLIFF and f"cliff {key[0]} {key[1]}" not in ours:
                ours[f"cliff {key[0]} {key[1]}"] = papers.Measured(float(mean[i]), float(stderr[i]), predicted[i])
        ends = {"H": (8, 64), "N": (50, 400)}[name]
        if (x[0], x[-1]) == ends:
            of_ends = lambda y, x=x: float(np.log(y[-1] / y[0]) / np.log(x[-1] / x[0]))
            relative = np.hypot(stderr[0] / mean[0], stderr[-1] / mean[-1])
            error = float(relative / np.log(x[-1] / x[0]))
            ours[f"cliff slope {name}"] = papers.Measured(of_ends(mean), error, of_ends(predicted))
    regret = lambda size, horizon: float(exact.reset_cliff_regret(size, horizon))
    ours["limit H"] = papers.Measured(slope((1000, 2000), (regret(10**6, 1000), regret(10**6, 2000))))
    ours["limit N"] = papers.Measured(slope((10**5, 2 * 10**5), (regret(10**5, 32), regret(2 * 10**5, 32))))
    curves = cliff["H"][1]
    if "DAgger" in curves:
        mean, stderr = diagnostics.mean_and_stderr(curves["DAgger"][:, -1] - curves["cloning"][:, -1])
        ours["no help"] = papers.Measured(float(mean), float(stderr))
    if ONE_TABLE in curves:
        ours["one table"] = papers.Measured(float(np.max(np.abs(curves[ONE_TABLE][:, -1]))))
    return ours
