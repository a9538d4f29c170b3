"""What the page shows: its groups, the questions in them, and the runs that answer each question."""

from typing import Any

from experiments.gallery.records import Group, Record, Section


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _paper(question: str, reading: str, figure: str | None = None) -> Section:
    """A paper's module: its headline numbers and one figure, which has the module's name if no other is given."""
    return Section((Record(question, question, figures=_same(figure or question)),), reading)


GRADIENTS = Group(
    "Gradients, measured",
    (
        Section(
            (
                Record(
                    "variance_reduction",
                    "variance_reduction",
                    figures=_same("variance_reduction", "gradients", "exact"),
                ),
            ),
            "The first column of numbers is exact: every trajectory of a small corridor is enumerated. A constant ρ̂ "
            "fits the return of the whole episode, G₁, and not the reward-to-go Gₜ, which shrinks as the episode goes "
            "on. With ρ̂, reward-to-go can therefore be noisier than G₁; it needs a baseline that depends on time or "
            "state.",
        ),
        Section(
            (Record("gradient_lab", "gradient_lab", figures=_same("bias_variance", "variance_against_batch")),),
            "Each row is one estimator at one policy. The bias and the variance are exact wherever the estimator can "
            "be enumerated. The gain is what the expected return ρ gains by one step of the best size along one "
            "estimate.",
        ),
        Section(
            (Record("wrong_reinforce", "wrong_reinforce", figures=_same("wrong_reinforce")),),
            "Each row is a mistake that was found in public code. The length says how far the mean of the wrong "
            "estimate goes along the true gradient, and 1 is right; dynamic programs predict it. The right twin "
            "differs in the wrong line alone. The last rows were accused wrongly: they pass.",
        ),
        Section(
            (Record("action_components", "action_components", figures=_same("action_components")),),
            "Every variance is exact, by enumeration of all actions. The three estimates have the same mean.",
        ),
        Section(
            (Record("parameter_exploring", "parameter_exploring", figures=_same("parameter_exploring")),),
            "The bounds of the literature are about gradients without a baseline; with one, the order may change.",
        ),
    ),
)

PAPERS = Group(
    "Papers, their numbers beside ours",
    (
        _paper(
            "short_corridor",
            "The book prints few numbers. The curves of its figures are compared with references that were computed "
            "independently of this code.",
        ),
        _paper(
            "baselines_and_convergence",
            "The two baselines b* ± 0.5 give the same variance and not the same learning: too low a baseline makes "
            "the policy commit to the first arm that pays.",
            figure="simplex",
        ),
        _paper("leave_one_out", "Every number is exact: all samples of the toy problem are enumerated."),
        _paper(
            "action_dependent_baselines",
            "The parts of the variance are known in closed form for linear dynamics with Gaussian noise.",
            figure="variance_sources",
        ),
        _paper("gradient_bandit", "The baseline contains the reward that it is subtracted from, as in the book."),
        _paper(
            "kl_estimators",
            "Value and gradient of an estimate are two questions: k3 has an unbiased value, and k2 has the gradient of "
            "the divergence itself.",
        ),
        _paper(
            "optimal_baselines",
            "The baseline of least variance weighs each return by the squared length of the score, so it is not the "
            "value.",
        ),
        _paper("group_baselines", "The expected gradients are exact, by enumeration of the groups of answers."),
        _paper(
            "rates_and_plateaus", "A published rate is an upper bound of the error; a measured slope may be steeper."
        ),
        _paper("four_rooms", "The error of the baseline, ε, is the only thing that differs between the curves."),
        _paper(
            "step_size", "This is a warning rather than a paper: the step is too large, or the gradient is too flat."
        ),
        _paper(
            "baseline_start",
            "This is a warning rather than a paper: the gradient stays unbiased, and the learning changes.",
            figure="starts",
        ),
    ),
)


def _imitated(problem: str) -> Record:
    """A run of experiments.imitation on a problem, with a policy gradient that goes on from the copy."""
    figures = _same(f"imitation_{problem}", f"passing_{problem}")
    return Record(f"imitation_{problem}", "imitation", {"problem": problem}, figures)


IMITATION = Group(
    "Imitation",
    (
        Section(
            (
                Record("imitation_cartpole", "imitation", figures=_same("imitation_cartpole", "passing_the_expert")),
                Record("imitation_pendulum", "imitation", {"problem": "pendulum"}, _same("imitation_pendulum")),
                *map(_imitated, ("maze", "random_maze", "navigation", "cooling")),
            ),
            "A copy is only as good as its expert. A policy gradient can go on from the copy and pass an expert that "
            "is not the best policy, as on navigation and cooling; the experts of both mazes are the best policies.",
        ),
        Section(
            (Record("compounding_error", "compounding_error", figures=_same("chain", "cliff", "maze")),),
            "Where one error lasts, cloning and DAgger lose the same; where an error can be mended, asking the expert "
            "keeps the loss linear in the horizon. Nothing is estimated except the mean over data sets.",
        ),
    ),
)

_TWO = {"workloads": ("CartPole-v1", "Breakout-MinAtar"), "problems": ()}

TRAINING = Group(
    "Training",
    (
        Section(
            (
                Record("train_cartpole", "train", {"env": "CartPole-v1"}, {"cartpole": "learning_curve"}),
                Record("train_pendulum", "train", {"env": "Pendulum-v1"}, {"pendulum": "learning_curve"}),
                Record(
                    "train_lunarlander",
                    "train",
                    {"env": "gymnasium:LunarLander-v3", "seed": 10},
                    {"lunarlander": "learning_curve"},
                ),
            ),
            "CartPole-v1 is trained with the exact gradient of the expected return. The presets of Pendulum-v1 and of "
            "LunarLander-v3 are biased on purpose: they bootstrap, discount and standardise. LunarLander-v3 is an "
            "environment of Gymnasium that runs in NumPy on the host.",
        ),
        Section(
            (Record("memory", "memory", figures=_same("memory_recall", "memory_reverse", "memory_tokens")),),
            "No policy without memory can name the cue more often than by chance; that bound is computed exactly. The "
            "transformer learns from the reward at the end alone.",
        ),
        Section(
            (
                Record("throughput", "throughput", figures=_same("throughput")),
                Record(
                    "throughput_problems",
                    "throughput",
                    {"workloads": ("maze",), "batches": (64,), "seeds": 0},
                    _same("throughput_problems"),
                ),
                Record(
                    "throughput_peers",
                    "throughput",
                    {**_TWO, "batches": (1024,), "lanes": (1024,), "peers": "peers/bin/python"},
                ),
                Record(
                    "throughput_tokens",
                    "throughput",
                    {"workloads": ("tokens",), "problems": (), "answers": (256,), "seeds": 0},
                ),
                Record(
                    "throughput_large",
                    "throughput",
                    {**_TWO, "batches": (1024, 65_536), "lanes": (1024, 31_250), "seeds": 0},
                ),
            ),
            "A live step is a step of an episode that is still running; padding is not counted. Other work on the "
            "machine lowers every rate.",
        ),
        Section(
            (Record("sweep", "sweep", figures=_same("sweep")),),
            "Each line is an estimator, and each point the mean of its seeds with a 95 % interval. All of them were "
            "trained in one program.",
        ),
        Section(
            (Record("gradient_meter", "gradient_meter", figures=_same("gradient_meter")),),
            "The meter measures the gradient that trains. A proxy from probabilities knows neither the network between "
            "parameters and logits nor what the steps of an episode have in common.",
        ),
        Section(
            (Record("precision", "precision", figures=_same("precision")),),
            "Noise falls with the size of the batch, and rounding does not: where the lines cross, more episodes no "
            "longer help. TF32 and bfloat16 are emulated on the CPU.",
        ),
        Section(
            (Record("scaling", "scaling", figures=_same("scaling")),),
            "Devices and processes of one machine share its two cores, so the measured part is the overhead of "
            "sharing. The curves for many machines are a model with assumed latency and bandwidth, and no measurement.",
        ),
    ),
)


def _trained(env: str, **options: Any) -> Record:
    """A run of experiments.train with the preset of an environment: its learning curve and a frame of its animation."""
    figures, frames = {f"trained_{env}": "learning_curve"}, {f"trained_{env}_frame": "policy"}
    return Record(f"train_{env}", "train", {"env": env, **options}, figures, frames)


PROBLEMS = Group(
    "Seven problems",
    (
        Section(
            (
                _trained("maze"),
                # Seeds that no tuning used; the preset has this number of updates.
                _trained("navigation", num_updates=6000, seed=5),
                *map(_trained, ("swimmer", "slates", "cooling", "reverse")),
                _trained("random_maze", num_seeds=5),
                _trained("ads", num_seeds=5),
                _trained("addition", num_seeds=5, seed=20),
                _trained("Breakout-MinAtar", num_seeds=5),
            ),
            "The second table of each run sets the trained policies beside random actions and a reference controller "
            "on the same starts, which no training used.",
        ),
        Section(
            (Record("which_baseline", "which_baseline", figures=_same("which_baseline")),),
            "Marks to the left of the line are less noisy than G₁. The three numbers about the returns say why: a "
            "constant pays where E[G₁]² / E[G₁²] is near 1, and v(X_t) where it explains much of the variance of G_t.",
        ),
    ),
)

LANGUAGE = Group(
    "Language models and preferences",
    (
        Section(
            (
                Record("pretraining", "pretraining", figures=_same("pretraining")),
                Record(
                    "pretraining_basic_english",
                    "pretraining",
                    {"corpus": "basic_english", "updates": 1610},
                    {"pretraining_basic_english": "pretraining"},
                ),
            ),
            "lzma after the training text is the fair comparison: both have read the same bytes before the test.",
        ),
        Section(
            (
                Record(
                    "kl_placement",
                    "kl_placement",
                    figures=_same("kl_placement", "kl_placement_all_cells", "kl_placement_long_answers"),
                ),
            ),
            "k1, k2 and k3 estimate the same divergence, but their gradients differ, and it matters whether they stand "
            "in the reward or in the loss. The left picture is exact; the right one is trained by sampling.",
        ),
        Section(
            (Record("library_defaults", "library_defaults", figures=_same("library_defaults")),),
            "Each row is the default of a library as it was read in the library's own source; the table of the run "
            "names the file and the line. Real runs add clipping, several steps on one batch and longer answers, "
            "which this comparison leaves out.",
        ),
        Section(
            (
                Record(
                    "overoptimization",
                    "overoptimization",
                    figures=_same("overoptimization", "overoptimization_policies"),
                ),
            ),
            "The frontier needs no optimiser: the best policy for a reward model is known exactly at every β. What "
            "falls there is the fault of the reward model alone.",
        ),
        Section(
            (Record("reward_hacking", "reward_hacking", figures=_same("reward_hacking")),),
            "The annotator of the second row likes long answers a little, and the reward model learns it.",
        ),
        Section(
            (Record("spell_backward", "spell_backward", {"ways": ("letter",)}, _same("spell_backward")),),
            "Without --ways two other ways run too, which pay the same sum. What differs is which letters are judged "
            "by which payments.",
        ),
        Section(
            (Record("rlhf", "rlhf", figures=_same("rlhf")),),
            "The gold score is a rule, and the annotator is simulated with it. The policy learns from the proxy.",
        ),
        Section(
            (
                Record("real_model", "real_model", figures=_same("real_model")),
                Record("real_model_variance", "real_model", {"parts": ("variance",)}),
                Record("real_model_tokens", "real_model", {"parts": ("tokens",)}),
            ),
            "The score looks at the form of an answer and not at its truth.",
        ),
    ),
)

GROUPS = (GRADIENTS, PAPERS, IMITATION, TRAINING, PROBLEMS, LANGUAGE)
