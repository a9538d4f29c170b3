"""The sizes of a language model, as frozen records that are checked when they are made."""

import dataclasses
import math

from pgjax._checks import require_in_range, require_integer


def _require_sizes(config: "GPT2Config | LlamaConfig", names: tuple[str, ...]) -> None:
    for name in names:
        require_integer(name, getattr(config, name), 1, None)
    if config.width % config.heads:
        raise ValueError(f"heads must divide the width {config.width}, got {config.heads}")
    require_in_range("epsilon", config.epsilon, 0.0, 1.0)
    if not isinstance(config.tied, bool):
        raise ValueError(f"tied must be True or False, got {config.tied!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """A language model in the layout of GPT-2: layer norm before each part, learned positions, GELU.

    Attributes:
        vocabulary: V, the number of symbols.
        width: W.
        layers: K, the number of blocks.
        heads: H, a divisor of W.
        context: C, the number of learned positions, so the longest text in tokens.
        inner: the inner units of the MLP; None takes 4 W.
        epsilon: ε of the norms.
        tied: whether the outputs use the table of symbols as their weights.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    context: int
    inner: int | None = None
    epsilon: float = 1e-5
    tied: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "inner", 4 * self.width if self.inner is None else self.inner)
        _require_sizes(self, ("vocabulary", "width", "layers", "heads", "context", "inner"))

    @property
    def inner_width(self) -> int:
        """The inner units of the MLP."""
        return 4 * self.width if self.inner is None else self.inner


@dataclasses.dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """A language model in the layout of Llama: root mean square norm, rotary positions, grouped queries, SwiGLU.

    Attributes:
        vocabulary: V, the number of symbols.
        width: W.
        layers: K, the number of blocks.
        heads: H heads of queries, a divisor of W; D = W / H, the width of a head, must be even.
        kv_heads: G heads of keys and values, a divisor of H; None takes H.
        inner: the inner units of the MLP.
        context: C, the longest text in tokens that the model was trained on. No array depends on it.
        rope_theta: the base of the rotary frequencies base^(−2 i / D).
        epsilon: ε of the norms.
        tied: whether the outputs use the table of symbols as their weights.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    inner: int
    context: int
    kv_heads: int | None = None
    rope_theta: float = 10_000.0
    epsilon: float = 1e-5
    tied: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "kv_heads", self.heads if self.kv_heads is None else self.kv_heads)
        _require_sizes(self, ("vocabulary", "width", "layers", "heads", "kv_heads", "inner", "context"))
        if self.heads % self.groups:
            raise ValueError(f"kv_heads must divide the {self.heads} heads, got {self.kv_heads}")
        if self.head_width % 2:
            raise ValueError(
                f"the width of a head must be even for rotary positions, got {self.width} / {self.heads} = "
                f"{self.head_width}"
            )
        if not (math.isfinite(self.rope_theta) and self.rope_theta > 1.0):
            raise ValueError(f"rope_theta must be a finite number above 1, got {self.rope_theta!r}")

    @property
    def groups(self) -> int:
        """G, the heads of keys and values."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_width(self) -> int:
        """D = W / H."""
        return self.width // self.heads


Config = GPT2Config | LlamaConfig
