"""The table of networks by name: every network is one function, which policies and values share."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import numpy as np

from pgjax import spaces
from pgjax._checks import require_integer, require_one_of
from pgjax.networks import inputs
from pgjax.networks.bodies import MLP, Activation, ConvNet, RowScores
from pgjax.networks.language_models import make_gpt2, make_llama
from pgjax.networks.network import Network
from pgjax.networks.recurrent import make_gru
from pgjax.networks.transformer import make_transformer
from pgjax.spaces import Box
from pgjax.types import Memory, PyTree


def make_mlp(space: PyTree, outputs: int, *, hidden: Sequence[int], activation: Activation | None) -> Network:
    """Dense layers over all numbers of the observation."""
    module = MLP(hidden=hidden, outputs=outputs, activation=activation or "tanh")
    return _of_module(module, lambda obs, dtype: (inputs.flat(inputs.encode(space, obs, dtype)),))


def make_conv(
    space: PyTree, outputs: int, *, hidden: Sequence[int], activation: Activation | None, channels: int = 16
) -> Network:
    """A convolution over every image of the observation, then dense layers over its features and all other numbers.

    Raises:
        ValueError: if the observation has no image, or `channels` is not an integer of at least 1.
    """
    require_integer("channels", channels, 1, None)
    parts = [part for _, part in spaces.leaves(space)]
    if not any(map(inputs.is_image, parts)):
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(
            f"network='conv' needs observations of shape [H, W, C] with H and W at least 3, got shape {shapes}"
        )

    def arguments(obs: PyTree, dtype: Any) -> tuple:
        arrays = list(zip(map(inputs.is_image, parts), inputs.encode(space, obs, dtype)))
        images, numbers = ([x for image, x in arrays if image is wanted] for wanted in (True, False))
        return images, inputs.flat(numbers, dtype)

    return _of_module(
        ConvNet(hidden=hidden, outputs=outputs, channels=channels, activation=activation or "relu"), arguments
    )


def make_centred(
    space: PyTree, outputs: int, *, hidden: Sequence[int], activation: Activation | None, channel: int = 1
) -> Network:
    """Dense layers over an image that is moved so that the agent stands in its middle, and over all other numbers.

    The agent stands at the greatest number of one channel of the image `[H, W, C]`, and the layers see the other
    channels as `[2 H − 1, 2 W − 1, C − 1]`, with 0 outside of the image. So one weight means one place relative to the
    agent, such as "a wall on the left", and what is learned at one place holds at all others.

    Args:
        channel: the channel that shows the agent and nothing else.

    Raises:
        ValueError: if the observation does not have exactly one image, or the image has no such channel beside another.

    Source: Küttler et al. (2020), the NetHack learning environment, whose agents see a crop around them; Ye, Khalifa,
    Bontrager & Togelius (2020), "Rotation, translation, and cropping for zero-shot generalization".
    """
    parts = [part for _, part in spaces.leaves(space)]
    images = list(map(inputs.is_image, parts))
    if sum(images) != 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"network='centred' needs exactly one image [H, W, C] with H and W at least 3, got {shapes}")
    channels = parts[images.index(True)].shape[2]
    if channels < 2:
        raise ValueError(f"network='centred' needs an image with at least 2 channels, got {channels}")
    require_integer("channel", channel, 0, channels - 1)

    def arguments(obs: PyTree, dtype: Any) -> tuple[jax.Array]:
        arrays = list(zip(images, inputs.encode(space, obs, dtype)))
        (image,), numbers = ([x for is_image, x in arrays if is_image is wanted] for wanted in (True, False))
        return (inputs.flat([inputs.centred(image, channel), *numbers], dtype),)

    return _of_module(MLP(hidden=hidden, outputs=outputs, activation=activation or "relu"), arguments)


def make_items(space: PyTree, outputs: int, *, hidden: Sequence[int], activation: Activation | None) -> Network:
    """The same dense layers for every row of the observation's one matrix, such as candidates; one output for each row.

    All other numbers of the observation stand beside every row.

    Raises:
        ValueError: if not exactly one part of the observation is a matrix, or its rows are not as many as the outputs.
    """
    parts = [part for _, part in spaces.leaves(space)]
    matrices = [isinstance(part, Box) and len(part.shape) == 2 for part in parts]
    if sum(matrices) != 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(f"network='items' needs exactly one observed matrix, with a row for each item, got {shapes}")
    count = parts[matrices.index(True)].shape[0]
    if count != outputs:
        raise ValueError(f"network='items' gives an output for each of the {count} observed rows, but needs {outputs}")

    def arguments(obs: PyTree, dtype: Any) -> tuple[jax.Array, jax.Array]:
        arrays = list(zip(matrices, inputs.encode(space, obs, dtype)))
        (rows,), shared = ([x for matrix, x in arrays if matrix is wanted] for wanted in (True, False))
        return rows, inputs.flat(shared, dtype)

    return _of_module(RowScores(hidden=hidden, activation=activation or "tanh"), arguments)


def _of_module(module: nn.Module, arguments: Callable[[PyTree, Any], tuple]) -> Network:
    """The network of a linen module; `arguments` maps an observation and θ's float type to the module's arguments."""

    def apply(params: PyTree, obs: PyTree) -> Any:
        return module.apply(params, *arguments(obs, inputs.float_type_of(params)))

    return Network(
        init=lambda key, obs: module.init(key, *arguments(obs, np.float32)),
        apply=apply,
    )


# Users can add networks to `NETWORKS`, so the arguments are annotated `NetworkWord | str`.
NetworkWord = Literal["auto", "mlp", "conv", "centred", "items", "gru", "transformer", "gpt2", "llama"]
NETWORKS: dict[str, Callable[..., Network]] = {
    "mlp": make_mlp,
    "conv": make_conv,
    "centred": make_centred,
    "items": make_items,
    "gru": make_gru,
    "transformer": make_transformer,
    "gpt2": make_gpt2,
    "llama": make_llama,
}
"""Name → `(observation_space, outputs, *, hidden, activation, …) → Network`.

`observation_space` is a tree of spaces, `outputs` is the number O, `hidden` a tuple of widths, and `activation` a name
or None. Further keyword arguments belong to the network alone; they are plain JSON values with defaults, and
`network_options` sets them.
"""
SCANNED = ("gpt2", "llama")
"""The networks whose blocks are scanned, so that the length of `hidden` costs nothing."""


def build(
    network: NetworkWord | str,
    observation_space: PyTree,
    outputs: int,
    *,
    hidden: Sequence[int],
    activation: Activation | None,
    network_options: Mapping[str, Any] | None,
) -> Network:
    """The network of that name; "auto" takes "conv" if the observation has an image, else "mlp".

    Raises:
        ValueError: for an unknown name or option, or widths that are not a sequence of integers of at least 1.
    """
    require_one_of("network", network, ("auto", *NETWORKS))
    if activation is not None:
        require_one_of("activation", activation, get_args(Activation))
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise ValueError(f"hidden must be a sequence of integers of at least 1, got {hidden!r}")
    for width in hidden:
        require_integer("hidden", width, 1, None)
    if network == "auto":
        has_image = any(inputs.is_image(part) for _, part in spaces.leaves(observation_space))
        network = "conv" if has_image else "mlp"
    options = dict(network_options or {})
    parameters = inspect.signature(NETWORKS[network]).parameters.values()
    own = sorted({p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"hidden", "activation"})
    for option in options:
        if option not in own:
            choice = f"among {own}" if own else "left out, as it has none"
            raise ValueError(f"network_options of network={network!r} must be {choice}, got {option!r}")
    made = NETWORKS[network](observation_space, outputs, hidden=tuple(hidden), activation=activation, **options)
    return made._replace(
        init=inputs.checked(observation_space, made.init),
        apply=made.apply and inputs.checked(observation_space, made.apply),
        memory=made.memory and _checked_memory(observation_space, made.memory),
    )


def _checked_memory(space: PyTree, memory: Memory) -> Memory:
    return memory._replace(start=inputs.checked(space, memory.start), step=inputs.checked(space, memory.step))
