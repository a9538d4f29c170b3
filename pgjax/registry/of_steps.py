"""Entries of estimators with a weight for each step: Gₜ − b(Xₜ), and returns that bootstrap."""

from dataclasses import replace

from pgjax import baselines, estimators, exact
from pgjax.registry.builders import (
    PLAIN,
    WITH_VALUE,
    by_program,
    lambda_return,
    moving_average,
    n_step,
    reward_to_go,
    value,
    values_in_time,
    weighted,
)
from pgjax.registry.entry import Entry

ENTRIES = (
    Entry(
        name="gpomdp",
        label="Gₜ (GPOMDP)",
        build=weighted(reward_to_go),
        source="Baxter & Bartlett 2001",
        settings=PLAIN,
        program=by_program(lambda: exact.reward_to_go_moments, "discount"),
    ),
    Entry(
        name="gpomdp_discounted",
        label="Gₜ, γ = 0.9 without γᵗ",
        build=weighted(reward_to_go),
        source="Nota & Thomas 2020",
        bias="follows the gradient of no objective",
        settings=replace(PLAIN, discount=0.9),
        program=by_program(lambda: exact.reward_to_go_moments, "discount"),
    ),
    Entry(
        name="gpomdp_moving_average",
        label="Gₜ − ρ̂",
        build=weighted(reward_to_go, moving_average),
        source="Williams 1992; Baxter & Bartlett 2001",
        settings=replace(PLAIN, decay=0.9),
    ),
    Entry(
        name="gpomdp_time_average",
        label="Gₜ − bₜ",
        build=weighted(reward_to_go, lambda parts: baselines.time_dependent(parts.settings.decay)),
        source="Peters & Schaal 2008",
        settings=replace(PLAIN, decay=0.9),
    ),
    Entry(
        name="gpomdp_optimal_time",
        label="Gₜ − b*ₜ, learned",
        build=weighted(reward_to_go, lambda parts: baselines.optimal_time_dependent(parts.settings.decay)),
        source="Greensmith, Bartlett & Baxter 2004; Peters & Schaal 2008",
        settings=replace(PLAIN, decay=0.95),
    ),
    Entry(
        name="gpomdp_optimal_state",
        label="Gₜ − b*(Xₜ), learned",
        build=weighted(
            reward_to_go,
            lambda parts: baselines.optimal_state(
                parts.states.index_of, parts.states.count, decay=parts.settings.decay
            ),
        ),
        source="Dayan 1991; Greensmith, Bartlett & Baxter 2004",
        settings=replace(PLAIN, decay=0.95),
        needs=("states",),
    ),
    Entry(
        name="gpomdp_value",
        label="Gₜ − v(Xₜ)",
        build=weighted(reward_to_go, value),
        source="Sutton, McAllester, Singh & Mansour 2000",
        settings=WITH_VALUE,
        needs=("value",),
        program=by_program(lambda: exact.reward_to_go_moments, "discount", baseline=lambda oracle: oracle.values),
    ),
    Entry(
        name="gpomdp_exact_value",
        label="Gₜ − Vₜ(Xₜ), exact",
        build=weighted(reward_to_go, values_in_time),
        source="Sutton, McAllester, Singh & Mansour 2000",
        settings=PLAIN,
        needs=("oracle", "states"),
        program=by_program(
            lambda: exact.reward_to_go_moments, "discount", baseline=lambda oracle: oracle.values_in_time
        ),
    ),
    Entry(
        # Every weight is too large by 1, which makes every tried action more probable.
        name="gpomdp_shifted_value",
        label="Gₜ − v(Xₜ) + 1",
        build=weighted(reward_to_go, lambda parts: baselines.shifted(parts.value, -1.0)),
        source="Chung, Thomas, Machado & Le Roux 2021",
        settings=WITH_VALUE,
        needs=("value",),
        program=by_program(lambda: exact.reward_to_go_moments, "discount", baseline=lambda oracle: oracle.values - 1.0),
    ),
    Entry(
        name="gpomdp_leave_one_out",
        label="Gₜ, leave-one-out",
        build=weighted(reward_to_go, lambda parts: baselines.leave_one_out("live", parts.group)),
        source="Kool, van Hoof & Welling 2019",
        settings=PLAIN,
        compares=True,
        joint=True,
    ),
    Entry(
        name="reinforce_plus_plus",
        label="Gₜ, standardised over the batch (REINFORCE++)",
        build=weighted(reward_to_go),
        source="Hu, Liu, Xu & Shen 2025",
        bias="the mean and the spread contain the episode itself",
        settings=replace(PLAIN, standardise="population"),
        words={"standardise": ("population",)},
        joint=True,
    ),
    Entry(
        name="n_step",
        label="n-step return − v(Xₜ)",
        build=weighted(n_step, value),
        source="Mnih et al. 2016",
        bias="the error of v",
        settings=replace(WITH_VALUE, n=5),
        needs=("value",),
        windows=True,
    ),
    Entry(
        name="gae",
        label="GAE, λ",
        build=weighted(lambda_return, value),
        source="Schulman et al. 2016",
        bias="the error of v",
        settings=replace(WITH_VALUE, lambda_=0.9),
        needs=("value",),
        windows=True,
        program=by_program(
            lambda: exact.lambda_return_moments, "discount", "lambda_", values=lambda oracle: oracle.values
        ),
    ),
    Entry(
        name="td",
        label="TD, λ = 0",
        build=weighted(lambda settings: estimators.lambda_return(0.0, settings.discount), value),
        source="Sutton & Barto 2018, section 13.5",
        bias="the error of v",
        settings=WITH_VALUE,
        needs=("value",),
        windows=True,
        program=by_program(
            lambda: exact.lambda_return_moments, "discount", values=lambda oracle: oracle.values, lambda_=0.0
        ),
    ),
    Entry(
        name="actor_critic",
        label="actor-critic, mean over steps, standardised",
        build=weighted(reward_to_go, value),
        source="Mnih et al. 2016; standardising is a custom of implementations",
        bias="divided by length and spread",
        settings=replace(WITH_VALUE, over_time="mean", standardise="population"),
        needs=("value",),
        joint=True,
    ),
)
