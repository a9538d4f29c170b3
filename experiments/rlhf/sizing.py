"""The memory of the loop, estimated before it starts."""

from typing import Any

from experiments.shared import language, language_memory, memory
from pgjax import registry

# θ, θ_ref, two moments of Adam, the gradient and its update.
COPIES = 6


def estimated(config: Any) -> dict[str, float]:
    """The bytes of each part. The answers of an update are written and differentiated at once.

    The sizes of a model in a file are not read here: `width` and `layers` stand for them.
    """
    model = language.small_model(config.width, config.layers, config.context)
    params = language_memory.params_of(model)
    runs = len(config.combinations) * config.seeds
    with_value = 2 if "value" in registry.find(config.estimator).needs else 1
    sizes, new = config.sizes(), config.max_new_tokens
    at_once = max(config.episodes, 2 * sizes.compared, sizes.reference, config.evaluated * max(config.best_of))
    pairs = 2.0 * sizes.rounds * sizes.compared * (2 * config.places + 64) * runs
    return {
        **({} if config.policy is not None else language_memory.of_pretraining(model, 32)),
        f"parameters and optimisers of {runs} runs": memory.of_states(COPIES * with_value * runs, params),
        f"{at_once} answers at once": language_memory.of_answers(model, at_once, config.places, new),
        "comparisons": pairs,
    }
