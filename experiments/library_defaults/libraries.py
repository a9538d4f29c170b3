"""What libraries do by default, as read in their sources, in the estimators of pgjax.

A library's entry says where each choice stands in its source: file and lines at the commit that was read.
"""

from experiments.library_defaults import rules
from experiments.library_defaults.entry import (
    UNBIASED,
    KLTerm,
    Library,
    group_relative,
    with_critic,
    with_loss,
    with_rule,
)
from pgjax import baselines, estimators, rewards

NEMO_KL = KLTerm("loss", "k3", 0.01, over_time="mean", ratio="importance")
TUNIX_KL = KLTerm("loss", "k1", 0.04, over_time="episode_mean")
VERL_KL = KLTerm("loss", "k3", 0.001, over_time="mean")
OPENRLHF_KL = KLTerm("reward", "k1", 0.01)
TRL = "1.10.0.dev0, f2cd577"
OPENRLHF = "0.11.0, 3c3be62"
TUNIX = "0.1.8, c7d8950"
VERL = "0.10.0.dev, 1dda039"
SPREAD = "biased: divided by the group's own spread, and by the batch's tokens"
WHITENED = "biased: whitened with the batch's own mean and spread, and divided by its tokens"

LIBRARIES = (
    Library(
        name="nanochat chat_rl",
        version="92d63d4 (2026-07-03)",
        sources=("scripts/chat_rl.py 43–49, 141–145, 266–272",),
        loss="score function",
        baseline="mean of the prompt's answers, own included",
        aggregation="mean over the tokens of one prompt's answers",
        group_size=16,
        kl=None,
        build=lambda given: with_rule(given, rules.centred_per_token(given.group_size), "sum"),
        claim="biased: divided by the tokens of the prompt's answers",
        left_out="Sampling keeps the 50 most probable tokens (top-k), and the gradient does not know of it. The 16 "
        "answers are split into two passes of 8, each divided by its own tokens; here one pass holds the group.",
    ),
    Library(
        name="NeMo-RL GRPO",
        version="0.6.0, 7ea279a",
        sources=(
            "examples/configs/grpo_math_1B.yaml 4–9, 80–83, 102",
            "nemo_rl/algorithms/advantage_estimator.py 82–98",
            "nemo_rl/algorithms/utils.py 42–101, 149–195",
            "nemo_rl/algorithms/loss/loss_functions.py 476–509",
        ),
        loss="clipped ratio per token",
        baseline="leave-one-out mean, divided by the spread of the others",
        aggregation="mean over the batch's tokens",
        group_size=16,
        kl=NEMO_KL,
        build=lambda given: with_loss(
            with_rule(given, rules.standardised_by_others(given.group_size), "mean"), given, NEMO_KL
        ),
        claim="biased: divided by the spread of the others, and by the batch's tokens",
        left_out="The clamps of the KL at ±20 and ±10 and the ε of 1e-6. Where the others have no spread, the "
        "advantage is not divided, as in the source.",
    ),
    Library(
        name="OpenRLHF PPO",
        version=OPENRLHF,
        sources=(
            "openrlhf/cli/train_ppo_ray.py 391–392, 419–425, 478–481",
            "openrlhf/models/utils.py 53–116",
            "openrlhf/trainer/ppo_utils/experience_maker.py 205–210, 276–291, 315–328, 333–378",
            "openrlhf/models/loss.py 11–39, 124–185",
        ),
        loss="clipped ratio per token",
        baseline="critic, GAE with λ = 1, whitened",
        aggregation="mean over the batch's tokens",
        group_size=1,
        kl=OPENRLHF_KL,
        build=lambda given: with_critic(given, 1.0),
        claim=WHITENED,
        left_out="The critic's error (the critic is exact here), the clamp of the KL at ±10, and that of the score.",
    ),
    Library(
        name="OpenRLHF RLOO",
        version=OPENRLHF,
        sources=(
            "openrlhf/cli/train_ppo_ray.py 419–425 (chosen by --algo.advantage.estimator rloo)",
            "openrlhf/trainer/ppo_utils/experience_maker.py 264–282, 302–307, 380–411",
            "openrlhf/models/loss.py 11–39",
        ),
        loss="clipped ratio per token",
        baseline="leave-one-out mean of the scores; the KL is added after it, as a reward-to-go",
        aggregation="mean over the batch's tokens",
        group_size=1,
        kl=OPENRLHF_KL,
        build=lambda given: with_rule(
            given,
            rules.scores_then_penalties(
                given.group_size, rewards.kl_penalty(given.policy, OPENRLHF_KL.kl_coef, given.reference)
            ),
            "mean",
        ),
        claim="biased: divided by the batch's tokens",
        left_out="The clamp of the KL at ±10 and that of the score. The default of one answer to a prompt does not fit "
        "this choice, and the program asks for more.",
    ),
    Library(
        name="TRL GRPO",
        version=TRL,
        sources=(
            "trl/trainer/grpo_config.py 474, 671, 750, 779, 791",
            "trl/trainer/grpo_trainer.py 2681–2707, 3054–3091, 3139–3141; trl/trainer/utils.py 857–883",
        ),
        loss="clipped ratio per token (dapo)",
        baseline="mean of the group, divided by its spread, divisor k − 1",
        aggregation="mean over the batch's tokens",
        group_size=8,
        kl=KLTerm("loss", "k3", 0.0, over_time="mean", on=False),
        build=lambda given: group_relative(given, "mean"),
        claim=SPREAD,
        left_out="The ε of 1e-4. beta is 0 by default; the KL term alone is what a beta above 0 turns on.",
    ),
    Library(
        name="TRL RLOO",
        version=TRL,
        sources=(
            "trl/trainer/rloo_config.py 297, 494, 523",
            "trl/trainer/rloo_trainer.py 1526–1552, 1683–1694",
        ),
        loss="clipped ratio of the whole answer",
        baseline="leave-one-out mean of score − β k1",
        aggregation="sum over the answer",
        group_size=2,
        kl=KLTerm("reward", "k1", 0.05),
        build=lambda given: estimators.make_estimator(
            given.policy,
            returns=estimators.total_return(),
            baseline=baselines.leave_one_out(group_size=given.group_size),
        ),
        claim=UNBIASED,
        left_out="Nothing at the first step.",
    ),
    Library(
        name="tunix GRPO",
        version=TUNIX,
        sources=(
            "tunix/rl/grpo/grpo_learner.py 91–108",
            "tunix/rl/algo_core.py 486–489, 594–621, 638–656",
            "tunix/rl/common.py 169–175, 807–816",
        ),
        loss="clipped ratio per token",
        baseline="mean of the group, divided by its spread, divisor k − 1",
        aggregation="1/|o|, mean over each answer's own tokens",
        group_size=2,
        kl=TUNIX_KL,
        build=lambda given: with_loss(group_relative(given, "episode_mean"), given, TUNIX_KL),
        claim="biased: divided by the group's own spread and by the answer's length, and k1 is in the loss",
        left_out="The ε of 1e-6. The library was read and not run.",
    ),
    Library(
        name="tunix PPO",
        version=TUNIX,
        sources=(
            "tunix/rl/ppo/ppo_learner.py 82–99, 356–388",
            "tunix/rl/algo_core.py 33–114, 117–158, 166–277",
        ),
        loss="clipped ratio per token",
        baseline="critic, GAE with λ = 0.95, whitened",
        aggregation="mean over the batch's tokens",
        group_size=1,
        kl=KLTerm("reward", "k3", 0.04),
        build=lambda given: with_critic(given, 0.95),
        claim=f"{WHITENED}; k3 is in the reward",
        left_out="The critic's error (the critic is exact here). The variance has divisor n here and n − 1 there. The "
        "library was read and not run.",
    ),
    Library(
        name="verl GRPO",
        version=VERL,
        sources=(
            "docs/algo/grpo.md 29–49 (chosen by adv_estimator grpo)",
            "verl/trainer/config/actor/actor.yaml 36, 86, 103–116",
            "verl/trainer/ppo/core_algos.py 268–331, 1170–1175, 2238–2244",
        ),
        loss="clipped ratio per token",
        baseline="mean of the group, divided by its spread, divisor k − 1",
        aggregation="mean over the batch's tokens",
        group_size=1,
        kl=VERL_KL,
        build=lambda given: with_loss(group_relative(given, "mean"), given, VERL_KL),
        claim=f"{SPREAD}; k3 is in the loss",
        left_out="The ε of 1e-6 and the clamps of the KL. use_kl_loss is false by default, and the page on GRPO asks "
        "to set it; so it is set here.",
    ),
    Library(
        name="verl PPO",
        version=VERL,
        sources=(
            "verl/trainer/config/ppo_trainer.yaml 68–74, 98",
            "verl/trainer/config/actor/actor.yaml 36, 86, 103",
            "verl/trainer/ppo/core_algos.py 244–263, 1170–1175",
        ),
        loss="clipped ratio per token",
        baseline="critic, GAE with λ = 1, whitened",
        aggregation="mean over the batch's tokens",
        group_size=1,
        kl=None,
        build=lambda given: with_critic(given, 1.0),
        claim=WHITENED,
        left_out="The critic's error (the critic is exact here). The variance has divisor n here and n − 1 there. "
        "Neither KL term is on by default.",
    ),
)
