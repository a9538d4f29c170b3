"""Entries of estimators with one weight for a whole episode: (G₁ − b) Σₜ ∇ ln f(Xₜ, θ)_{Aₜ}."""

from dataclasses import replace
from typing import get_args

from pgjax import baselines, estimators, exact
from pgjax.estimators.weighting import Standardise
from pgjax.registry.builders import PLAIN, by_program, moving_average, total_return, weighted
from pgjax.registry.entry import Entry, Settings

BY_GROUPS = tuple(word for word in get_args(Standardise) if word.startswith("group"))

ENTRIES = (
    Entry(
        name="reinforce",
        label="G₁",
        build=weighted(total_return),
        source="Williams 1992",
        settings=PLAIN,
        program=by_program(lambda: exact.total_return_moments, "discount"),
    ),
    Entry(
        name="reinforce_moving_average",
        label="G₁ − ρ̂",
        build=weighted(total_return, moving_average),
        source="Williams 1992",
        settings=replace(PLAIN, decay=0.9),
    ),
    Entry(
        name="reinforce_optimal",
        label="G₁ − b*, learned",
        build=weighted(total_return, lambda parts: baselines.optimal_constant(parts.settings.decay)),
        source="Weaver & Tao 2001; Greensmith, Bartlett & Baxter 2004",
        settings=replace(PLAIN, decay=0.95),
    ),
    Entry(
        name="reinforce_optimal_natural",
        label="G₁ − b*, natural norm, learned",
        build=weighted(total_return, lambda parts: baselines.optimal_constant(parts.settings.decay, "natural")),
        source="Chung, Thomas, Machado & Le Roux 2021",
        settings=replace(PLAIN, decay=0.95),
    ),
    Entry(
        name="reinforce_optimal_exact",
        label="G₁ − b*, exact",
        build=weighted(total_return, lambda parts: baselines.constant(parts.oracle.best_constant)),
        source="Weaver & Tao 2001; Greensmith, Bartlett & Baxter 2004",
        settings=PLAIN,
        needs=("oracle",),
        program=by_program(
            lambda: exact.total_return_moments, "discount", baseline=lambda oracle: oracle.best_constant
        ),
    ),
    Entry(
        name="reinforce_optimal_leave_one_out",
        label="G₁ − b*, of the others",
        build=weighted(total_return, lambda parts: baselines.optimal_leave_one_out(parts.group)),
        source="Greensmith, Bartlett & Baxter 2004; Kool, van Hoof & Welling 2019",
        settings=PLAIN,
        compares=True,
        joint=True,
    ),
    Entry(
        name="per_parameter",
        label="G₁ − b*ⱼ per parameter",
        build=lambda parts: estimators.per_parameter(
            parts.policy, decay=parts.settings.decay, discount=parts.settings.discount
        ),
        source="Peters & Schaal 2008",
        settings=Settings(discount=1.0, decay=0.95),
    ),
    Entry(
        name="reinforce_greedy",
        label="G₁ − greedy episode",
        build=weighted(total_return, lambda parts: baselines.greedy_rollout()),
        source="Rennie et al. 2017",
        settings=PLAIN,
        needs=("greedy",),
    ),
    Entry(
        name="rloo",
        label="G₁, leave-one-out (RLOO)",
        build=weighted(total_return, lambda parts: baselines.leave_one_out(group_size=parts.group)),
        source="Kool, van Hoof & Welling 2019; Ahmadian et al. 2024",
        settings=PLAIN,
        compares=True,
        joint=True,
    ),
    Entry(
        name="dr_grpo",
        label="G₁, batch mean (Dr. GRPO)",
        build=weighted(total_return, lambda parts: baselines.batch_mean(group_size=parts.group)),
        source="Liu et al. 2025",
        bias="the mean of k episodes contains the episode itself: (k−1)/k of ∇ρ",
        settings=PLAIN,
        compares=True,
        joint=True,
        factor=lambda k: 1.0 - 1.0 / k,
    ),
    Entry(
        name="grpo",
        label="G₁, standardised (GRPO)",
        build=weighted(total_return),
        source="Shao et al. 2024",
        bias="divided by the group's own spread",
        settings=replace(PLAIN, standardise="group_population"),
        words={"standardise": BY_GROUPS},
        compares=True,
        joint=True,
    ),
)
