"""Policies f(x, θ) and values v(x) that are networks, as pgjax's records of plain functions.

`bodies` holds the layers, `inputs` turns an observation of any space into numbers, `recurrent`, `transformer` and
`language_models` hold networks with memory, `words` is the table of networks by name,
`precision` chooses the precision of matrix products, and `policy_networks` and
`value_networks` turn a network's outputs into a distribution or a value. A new network enters the table as one
function, and every policy and value can then use it by its name.
"""

from pgjax.networks.bodies import MLP, ConvNet, Convolution
from pgjax.networks.language_models import GPT2Config, LanguageModel, LlamaConfig, make_language_model
from pgjax.networks.language_policies import (
    make_language_policy,
    make_language_value,
    network_arguments,
    with_value_head,
)
from pgjax.networks.network import Network
from pgjax.networks.policy_networks import make_policy, policy_for_spaces
from pgjax.networks.precision import PRECISIONS, PrecisionWord, with_precision
from pgjax.networks.value_networks import (
    action_values_for_spaces,
    make_action_values,
    make_value,
    make_value_network,
    value_for_spaces,
    value_network_for_spaces,
)
from pgjax.networks.words import NETWORKS

__all__ = [
    "MLP",
    "NETWORKS",
    "PRECISIONS",
    "ConvNet",
    "Convolution",
    "GPT2Config",
    "LanguageModel",
    "LlamaConfig",
    "Network",
    "PrecisionWord",
    "action_values_for_spaces",
    "make_action_values",
    "make_language_model",
    "make_language_policy",
    "make_language_value",
    "make_policy",
    "make_value",
    "make_value_network",
    "network_arguments",
    "policy_for_spaces",
    "value_for_spaces",
    "value_network_for_spaces",
    "with_precision",
    "with_value_head",
]
