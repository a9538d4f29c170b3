"""What cannot take a policy that remembers says so by its own name."""

import jax
import jax.numpy as jnp
import pytest

from pgjax import environments, exact, imitation, networks
from pgjax.environments.recall import recall_mdp
from pgjax.imitation import experts
from pgjax.variance import decomposition, restarts

RECALL = environments.make("recall", cues=2, delay=1)
GRU = networks.make_policy(RECALL, network="gru", hidden=(), network_options={"memory_size": 2})
KEY, ACTION = jax.random.key(0), jnp.zeros((), jnp.int32)
EXPERT = experts.from_log_probs(lambda obs: jnp.zeros(2))

CALLS = {
    "visited_states": lambda: restarts.visited_states(RECALL, GRU, (), KEY, 3),
    "restarted_return": lambda: restarts.restarted_return(RECALL, GRU, (), KEY, None, ACTION),
    "variance_decomposition": lambda: decomposition.variance_decomposition(RECALL, GRU, (), KEY, 3),
    "experts.from_policy": lambda: experts.from_policy(GRU, ()),
    "imitation.collect": lambda: imitation.collect(KEY, RECALL, GRU, (), EXPERT, 2),
    "imitation.gradient_fit": lambda: imitation.gradient_fit(
        GRU, None, num_epochs=1, batch_size=1, loss="negative_log_likelihood"
    ),
    "dynamic program": lambda: exact.objective(GRU, (), recall_mdp(2, 1)),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_named(name):
    with pytest.raises(ValueError, match=r"needs a policy whose outputs are a function of one observation") as caught:
        CALLS[name]()
    assert name in str(caught.value)
