"""The ideas of the course, in their order."""

from experiments.lecture import decisions, diversity, gradients, noise, texts, trouble

IDEAS = (
    decisions.MAZE,
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
