"""The exhibits of the museum: the wrong code, what it climbs instead of ρ, its right twin, and where it was seen.

Sources are threads in public repositories, `owner/name #number`, papers, or "a common slip".
"""

import dataclasses

from experiments.wrong_reinforce import predictions
from experiments.wrong_reinforce import wrong_losses as losses


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """One loss that is wrong, or that was called wrong.

    Attributes:
        loss: the code.
        twin: the right estimator, a name of `TWINS`. It also determines the batch and the objective.
        predicted: the mean of the estimate, computed without enumeration; None if we know no closed form.
        climbs: what the estimate climbs instead of ρ, in a few words.
        looks_right, mend, seen: why it looks right, how to mend it, where it was seen.
        innocent: whether it was called wrong in public, but is right on average.
    """

    loss: losses.Loss
    twin: str
    predicted: predictions.Prediction | None
    climbs: str
    looks_right: str
    mend: str
    seen: str
    innocent: bool = False

    @property
    def line(self) -> str:
        return losses.marked_line(self.loss)

    @property
    def source(self) -> str:
        return losses.source(self.loss)


EXHIBITS: dict[str, Exhibit] = {
    "mean log-prob × summed returns": Exhibit(
        loss=losses.mean_log_prob_times_summed_returns,
        twin="to_go",
        predicted=predictions.mean_log_prob,
        climbs="E[(1/L) Σ t R_{t+1}]: late rewards count more, long episodes less",
        looks_right="A mean instead of a sum seems to be a matter of scale.",
        mend="Multiply step by step, then sum: `(log_probs * returns).sum()`.",
        seen="Farama-Foundation/Gymnasium #1336, the REINFORCE tutorial",
    ),
    "sum of log-probs × sum of returns": Exhibit(
        loss=losses.sums_multiplied,
        twin="to_go",
        predicted=predictions.multiplied,
        climbs="E[Σ t R_{t+1}]: a reward counts once for every step that leads to it",
        looks_right="The derivation does multiply two sums, but one of them is of rewards, not of rewards-to-go.",
        mend="Multiply step by step, or the summed log-probs by the one G_1.",
        seen="pytorch/examples #722, proposed as a repair",
    ),
    "mean over an episode's steps": Exhibit(
        loss=losses.mean_over_steps,
        twin="total",
        predicted=predictions.per_step,
        climbs="E[G/L], the reward per step, which ending early can raise",
        looks_right="Losses are averaged everywhere else. GRPO's 1/|o| is the same.",
        mend="Sum over time; divide by the number of episodes, or by a constant.",
        seen="huggingface/deep-rl-class #198; KaiyangZhou/pytorch-vsumm-reinforce #48; Liu et al. 2025",
    ),
    "mean over all steps of a batch": Exhibit(
        loss=losses.mean_over_batch_steps,
        twin="total_of_two",
        predicted=predictions.per_batch_step,
        climbs="E[2 G / (L + L′)], the other episode's length L′ held: the policy moves what it is divided by",
        looks_right="All steps lie in one array, and `.mean()` is right where lengths agree.",
        mend="`.sum() / num_episodes`.",
        seen="openai/spinningup #454, #414, #59",
    ),
    "γᵗ rₜ taken for the return": Exhibit(
        loss=losses.discounted_rewards_as_returns,
        twin="discounted",
        predicted=predictions.discounted_rewards,
        climbs="only the reward that directly follows each action: all later consequences are lost",
        looks_right="The array has the right length and the right discounts.",
        mend="Sum from behind: G = r + γ G.",
        seen="hunkim/ReinforcementZeroToAll #1",
    ),
    "immediate reward left out": Exhibit(
        loss=losses.immediate_reward_left_out,
        twin="to_go",
        predicted=predictions.without_immediate,
        climbs="the rewards after the one that the action caused; the last action learns nothing",
        looks_right="R_{t+1} has the index t + 1, so `rewards[t + 1:]` looks like the formula.",
        mend="`rewards[t]` holds R_{t+1}, the reward that A_t caused: G starts with it.",
        seen="a common slip",
    ),
    "γᵗ dropped": Exhibit(
        loss=losses.discount_power_dropped,
        twin="discounted",
        predicted=predictions.without_powers,
        climbs="in general no objective at all: late states weigh as if nothing were discounted",
        looks_right="G already has its γ, so γᵗ looks like discounting twice.",
        mend="Multiply row t by γᵗ, or call γ a bias that buys less variance, and say so.",
        seen="facebookresearch/Pearl #46, ufal/npfl122 #117 and most libraries, on purpose; Nota & Thomas 2020",
    ),
    "centred over the episode's own time": Exhibit(
        loss=losses.centred_over_own_time,
        twin="value",
        predicted=predictions.centred,
        climbs="∇ρ − ∇E[(1/L) Σ t R_{t+1}]: the mean contains rewards that A_t caused",
        looks_right="It is a baseline, and baselines do no harm.",
        mend="Average over other episodes at the same t, or predict v(X_t).",
        seen="alessiodm/drl-zh #5",
    ),
    "standardised over the episode's own time": Exhibit(
        loss=losses.standardised_over_own_time,
        twin="value",
        predicted=None,
        climbs="early actions are good, late ones bad, whatever happened; the size of rewards is lost",
        looks_right="Normalised inputs train better, and most scripts do it.",
        mend="Scale by numbers from other episodes, the same for all steps.",
        seen="MorvanZhou/Reinforcement-learning-with-tensorflow #128; alessiodm/drl-zh #5",
    ),
    "batch mean that contains the sample": Exhibit(
        loss=losses.own_sample_in_batch_mean,
        twin="leave_one_out",
        predicted=predictions.scaled(lambda room: 0.5),
        climbs="(B − 1)/B ∇ρ, here with B = 2",
        looks_right="The mean over many episodes hardly depends on any one of them.",
        mend="Leave the episode itself out of its mean: `leave_one_out()`.",
        seen="jsboige/CoursIA #15256; GRPO and Dr. GRPO",
    ),
    "ρ̂ refreshed before use": Exhibit(
        loss=losses.average_refreshed_first,
        twin="average",
        predicted=predictions.scaled(lambda room: room.decay),
        climbs="β ∇ρ: G − ρ̂′ = β (G − ρ̂)",
        looks_right="The newest estimate of ρ should be the best one.",
        mend="Use, then update.",
        seen="a common slip",
    ),
    "w learned inside the episode": Exhibit(
        loss=losses.value_learned_inside_the_episode,
        twin="constant",
        predicted=predictions.learned_inside,
        climbs="Σ_t (1 − α)^t of ∇ρ's step t: w has already seen what A_t led to, since earlier returns contain it",
        looks_right="It is the published algorithm, line by line.",
        mend="Weigh the whole episode with the old w, then update it.",
        seen="Sutton & Barto 2018, section 13.4; dennybritz/reinforcement-learning #185 quotes an implementation",
    ),
    "baseline that knows the action": Exhibit(
        loss=losses.baseline_of_the_action,
        twin="value",
        predicted=predictions.scaled(lambda room: 0.0),
        climbs="nothing: with the exact q(X_t, A_t) the mean is 0",
        looks_right="The better it predicts the return, the less noise is left.",
        mend="Subtract v(X_t), or add Σ_a ∇f_a q(X_t, a) back.",
        seen="a common slip",
    ),
    "minus sign forgotten": Exhibit(
        loss=losses.minus_sign_forgotten,
        twin="to_go",
        predicted=predictions.scaled(lambda room: -1.0),
        climbs="−∇ρ: the policy learns to fail",
        looks_right="log_probs × returns should grow, and an optimiser seems to make things grow.",
        mend="Optimisers minimise: write `loss = -objective`, in one place.",
        seen="a common slip",
    ),
    "gradient through the advantage": Exhibit(
        loss=losses.gradient_through_the_advantage,
        twin="shared",
        predicted=predictions.through_advantage,
        climbs="∇ρ + E[Σ_t H(f) ∇v]: the critic grows wherever the policy is undecided",
        looks_right="Automatic differentiation seems to do the right thing.",
        mend="`stop_gradient(advantages)`, `.detach()`.",
        seen="keras-team/keras-io #194; astariul/encode-attend-navigate-pytorch #2; coreylynch/async-rl #8",
    ),
    "greedy action scored, sampled one played": Exhibit(
        loss=losses.greedy_action_scored,
        twin="to_go",
        predicted=predictions.greedy,
        climbs="E[Σ_t G_t ∇ ln max f]: the likeliest action gets the credit for the returns of the others",
        looks_right="`max` and `argmax` give the policy's action, in deep Q-learning.",
        mend="Score the action that was played.",
        seen="a common slip",
    ),
    "probability for log-probability": Exhibit(
        loss=losses.probability_for_log_probability,
        twin="to_go",
        predicted=predictions.probability,
        climbs="Σ_a f_a ∇f_a Q for Σ_a ∇f_a Q: rare actions hardly learn",
        looks_right="Both grow together, and it is f that should grow.",
        mend="∇f / f = ∇ ln f: the division makes up for how often an action is drawn.",
        seen="a common slip",
    ),
    "softmax applied twice": Exhibit(
        loss=losses.softmax_twice,
        twin="to_go",
        predicted=predictions.twice,
        climbs="the score of another policy, flatter than the one that plays",
        looks_right="The network ends in a softmax, and the loss function brings its own.",
        mend="Hand logits to whatever is called cross entropy or log_softmax.",
        seen="a common slip; suragnair/alpha-zero-general #45, tflearn/tflearn #562 outside REINFORCE",
    ),
    "padding counted": Exhibit(
        loss=losses.padding_counted,
        twin="total",
        predicted=predictions.padded,
        climbs="∇ρ + E[(T − L) G] ∇ ln f(padding): short episodes teach the padding's action",
        looks_right="Rewards are zero in the padding; but G_1 is not.",
        mend="`where(alive, log_probs, 0)`.",
        seen="a common slip; huggingface/trl #7044 in an advantage",
    ),
    "time limit taken for the end": Exhibit(
        loss=losses.time_limit_as_terminal,
        twin="bootstrapped",
        predicted=predictions.gradient,
        climbs="the objective of a shorter walk: what lies behind the limit is worth 0",
        looks_right="For years `done` was the only flag.",
        mend="`terminated` stops the bootstrap; at `truncated` add v(X_T).",
        seen="anthonytorlucci/rlevo #170; Toni-SM/skrl #449; jsboige/CoursIA #7825",
    ),
    "bootstrap past the end": Exhibit(
        loss=losses.bootstrap_past_the_end,
        twin="difference",
        predicted=predictions.past_the_end,
        climbs="the last step is told that the goal pays what the network predicts there",
        looks_right="v of the goal should be 0, but the network was never trained there.",
        mend="`rewards + (1 - terminated) * next_values`.",
        seen="a common slip",
    ),
    "returns run on into the next episode": Exhibit(
        loss=losses.returns_run_on,
        twin="discounted_of_two",
        predicted=predictions.run_on,
        climbs="∇ρ + ½ ρ ∇E[γ^L]: ends early to reach the next episode's return, if that is good",
        looks_right="All rewards lie in one list, and one loop discounts it.",
        mend="Start again from 0 at every end.",
        seen="nikhilbarhate99/PPO-PyTorch #8; pytorch/examples #1422; ucla-rlcourse/RLexample #11",
    ),
    "[T] − [T, 1] broadcast to [T, T]": Exhibit(
        loss=losses.shapes_broadcast,
        twin="value",
        predicted=predictions.broadcast,
        climbs="∇ρ − ∇E[mean of v over the episode]: b has seen where the actions led",
        looks_right="No error appears, and the mean makes a number of it again.",
        mend="Squeeze the value head; let strict rank promotion refuse it.",
        seen="PacktPublishing/Deep-Reinforcement-Learning-Hands-On #33, #74; floodsung/a2c_cartpole_pytorch #3",
    ),
    "divided by the group's deviation": Exhibit(
        loss=losses.divided_by_group_deviation,
        twin="group",
        predicted=predictions.group_deviation,
        climbs="E[σ̂] / (p (1 − p)) ∇p: rare successes and rare failures count more",
        looks_right="Advantages of size 1 suit the optimiser.",
        mend="Do not divide by the deviation, and leave the sample itself out of its mean: `leave_one_out()`.",
        seen="GRPO, Shao et al. 2024; Liu et al. 2025",
    ),
    "ε-greedy played, softmax scored": Exhibit(
        loss=losses.exploration_not_scored,
        twin="played",
        predicted=predictions.exploring,
        climbs="Σ_a f_ε Q_ε ∇ ln f: the score does not sum to zero under the policy that plays",
        looks_right="Exploration produced the data, but it is not what should be learned.",
        mend="Score ln f_ε, or weigh by f / f_ε.",
        seen="coleam00/Archon #821",
    ),
    "G_1 for every step": Exhibit(
        loss=losses.first_return_everywhere,
        twin="discounted",
        predicted=predictions.discounted,
        climbs="∇ρ: rewards before A_t have mean zero against its score",
        looks_right="An action cannot have caused the rewards before it, so they seem to be wrong there.",
        mend="Nothing is wrong; reward-to-go is often quieter.",
        seen="udacity/deep-reinforcement-learning #42; huggingface/deep-rl-class #70; google-research/recsim_ng #3",
        innocent=True,
    ),
    "γᵗ on top of discounted returns": Exhibit(
        loss=losses.discounts_twice,
        twin="discounted",
        predicted=predictions.discounted,
        climbs="∇ρ of the discounted objective, exactly",
        looks_right="It seems to discount twice.",
        mend="Nothing is wrong: it is the factor that other code drops.",
        seen="mimoralea/gdrl #38; datawhalechina/easy-rl #181",
        innocent=True,
    ),
    "returns run on, γ = 1": Exhibit(
        loss=losses.returns_run_on_undiscounted,
        twin="to_go_of_two",
        predicted=predictions.gradient,
        climbs="∇ρ: another episode's return is a baseline, a very noisy one",
        looks_right="The same code is wrong as soon as γ < 1.",
        mend="Start again from 0 at every end, for the variance's sake.",
        seen="the threads above, at γ = 1",
        innocent=True,
    ),
}
