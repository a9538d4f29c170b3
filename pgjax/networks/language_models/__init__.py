"""Decoder-only language models in two layouts, GPT-2 and Llama: for whole texts, and as policies that write.

`make_language_model` gives logits of whole texts, for pretraining and evaluation. The same θ is that of the networks
"gpt2" and "llama" over a buffer of tokens, and `pgjax.saving.weights` reads it from files.
"""

from pgjax.networks.language_models.configs import Config, GPT2Config, LlamaConfig
from pgjax.networks.language_models.models import LanguageModel, make_gpt2, make_language_model, make_llama

__all__ = [
    "Config",
    "GPT2Config",
    "LanguageModel",
    "LlamaConfig",
    "make_gpt2",
    "make_language_model",
    "make_llama",
]
