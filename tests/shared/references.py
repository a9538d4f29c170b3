"""The mathematics of pgjax.returns, distributions, losses and rewards in plain Python: one number at a time.

Sums are written forwards, as their definitions have them, where the library scans backwards. Arguments and
results are lists of float64 numbers; episodes are lists of steps.
"""

import math
from statistics import fmean, pstdev


def total_return(rewards):
    return math.fsum(rewards)


def discount_weights(num_steps, discount):
    return [discount**t for t in range(num_steps)]


def discounted_return(rewards, discount):
    return math.fsum(discount**t * reward for t, reward in enumerate(rewards))


def reward_to_go(rewards, discount):
    return [discounted_return(rewards[t:], discount) for t in range(len(rewards))]


def _steps_to_cut(t, terminated, truncated):
    """How many rewards row t has before its trace is cut or the stream ends."""
    for k in range(t, len(terminated)):
        if terminated[k] or truncated[k]:
            return k - t + 1
    return len(terminated) - t


def _one_n_step_return(t, n, rewards, next_values, terminated, truncated, discount):
    n = min(n, _steps_to_cut(t, terminated, truncated))
    bootstrap = 0.0 if terminated[t + n - 1] else next_values[t + n - 1]
    return discounted_return(rewards[t : t + n], discount) + discount**n * bootstrap


def n_step_returns(rewards, next_values, terminated, truncated, n, discount):
    return [
        _one_n_step_return(t, n, rewards, next_values, terminated, truncated, discount) for t in range(len(rewards))
    ]


def lambda_returns(rewards, next_values, terminated, truncated, discount, lambda_):
    """(1 − λ) Σ_{n<N} λⁿ⁻¹ G⁽ⁿ⁾ + λᴺ⁻¹ G⁽ᴺ⁾, N steps to the cut."""
    returns = []
    for t in range(len(rewards)):
        longest = _steps_to_cut(t, terminated, truncated)
        g = lambda n, t=t: _one_n_step_return(t, n, rewards, next_values, terminated, truncated, discount)
        mixed = math.fsum((1 - lambda_) * lambda_ ** (n - 1) * g(n) for n in range(1, longest))
        returns.append(mixed + lambda_ ** (longest - 1) * g(longest))
    return returns


def gae(rewards, values, next_values, terminated, truncated, discount, lambda_):
    """Σ_k (γλ)ᵏ δ_{t+k} up to the cut."""
    errors = [
        reward + (0.0 if end else discount * following) - value
        for reward, value, following, end in zip(rewards, values, next_values, terminated)
    ]
    return [
        math.fsum((discount * lambda_) ** k * errors[t + k] for k in range(_steps_to_cut(t, terminated, truncated)))
        for t in range(len(rewards))
    ]


def softmax(logits):
    """Probabilities; a logit of −∞ has none."""
    top = max(logits)
    exponentials = [math.exp(logit - top) for logit in logits]
    return [x / math.fsum(exponentials) for x in exponentials]


def categorical_log_prob(logits, action):
    top = max(logits)
    return logits[action] - top - math.log(math.fsum(math.exp(logit - top) for logit in logits))


def categorical_entropy(logits):
    return -math.fsum(p * math.log(p) for p in softmax(logits) if p > 0)


def categorical_kl(logits, other):
    return math.fsum(p * math.log(p / q) for p, q in zip(softmax(logits), softmax(other)) if p > 0)


def categorical_quantile(logits, uniform):
    cumulative = 0.0
    for action, p in enumerate(softmax(logits)):
        cumulative += p
        if p > 0 and cumulative > uniform:
            return action
    raise AssertionError("rounding")


def gaussian_log_prob(mean, log_std, action):
    return math.fsum(
        -0.5 * ((a - m) / math.exp(s)) ** 2 - s - 0.5 * math.log(2 * math.pi) for m, s, a in zip(mean, log_std, action)
    )


def gaussian_entropy(mean, log_std):
    return math.fsum(0.5 * math.log(2 * math.pi * math.e * math.exp(s) ** 2) for s in log_std)


def gaussian_kl(mean, log_std, other_mean, other_log_std):
    return math.fsum(
        t - s + (math.exp(s) ** 2 + (m - n) ** 2) / (2 * math.exp(t) ** 2) - 0.5
        for m, s, n, t in zip(mean, log_std, other_mean, other_log_std)
    )


def squashed_log_prob(mean, log_std, low, high, action):
    """The density of a = c + h tanh u at a: p(u) / (da/du), with da/du = h (1 − y²) at y = (a − c)/h."""
    log_prob = 0.0
    for m, s, bottom, top, a in zip(mean, log_std, low, high, action):
        half = (top - bottom) / 2
        y = (a - (top + bottom) / 2) / half
        log_prob += gaussian_log_prob([m], [s], [math.atanh(y)]) - math.log(half * (1 - y * y))
    return log_prob


def bernoulli_log_prob(logits, action):
    return math.fsum(categorical_log_prob([0.0, logit], int(a)) for logit, a in zip(logits, action))


def bernoulli_entropy(logits):
    return math.fsum(categorical_entropy([0.0, logit]) for logit in logits)


def bernoulli_kl(logits, other):
    return math.fsum(categorical_kl([0.0, p], [0.0, q]) for p, q in zip(logits, other))


def score_function_loss(log_prob, weight):
    return -weight * log_prob


def importance_weighted_loss(log_prob, behaviour_log_prob, weight):
    return -weight * math.exp(log_prob) / math.exp(behaviour_log_prob)


def clipped_surrogate_loss(log_prob, behaviour_log_prob, weight, clip):
    ratio = math.exp(log_prob) / math.exp(behaviour_log_prob)
    return -min(ratio * weight, max(1 - clip, min(1 + clip, ratio)) * weight)


def value_loss(value, target):
    return (value - target) ** 2 / 2


def kl_k1(log_prob, reference_log_prob):
    return -math.log(math.exp(reference_log_prob) / math.exp(log_prob))


def kl_k2(log_prob, reference_log_prob):
    return math.log(math.exp(reference_log_prob) / math.exp(log_prob)) ** 2 / 2


def kl_k3(log_prob, reference_log_prob):
    ratio = math.exp(reference_log_prob) / math.exp(log_prob)
    return (ratio - 1) - math.log(ratio)


def centre(episodes):
    mean = fmean(reward for episode in episodes for reward in episode)
    return [[reward - mean for reward in episode] for episode in episodes]


def whiten(episodes):
    live = [reward for episode in episodes for reward in episode]
    return [[(reward - fmean(live)) / pstdev(live) for reward in episode] for episode in episodes]


def kl_regularised(rewards, log_probs, reference_log_probs, kl_coef):
    return [r - kl_coef * (p - q) for r, p, q in zip(rewards, log_probs, reference_log_probs)]
