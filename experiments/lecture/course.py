"""The ideas of the course, in their order."""

from experiments.lecture import decisions, diversity, gradients, noise, problems, texts, trouble

IDEAS = (
    decisions.MAZE,
    problems.NAVIGATION,
    problems.SWIMMER,
    problems.SLATES,
    problems.BREAKOUT,
    problems.COOLING,
    decisions.COPY,
    gradients.OBJECTIVE,
    gradients.FORMS,
    gradients.WITHOUT_P,
    gradients.REINFORCE,
    noise.CURES,
    trouble.LARGE_STEPS,
    trouble.FLAT,
    texts.SCORE,
    texts.PREFERENCES,
    texts.RLHF,
    diversity.DIVERSITY,
)
