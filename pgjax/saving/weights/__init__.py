"""Language models in the files that other programs write: safetensors (GPT-2, Llama) and GGUF (Llama).

`load` gives the sizes and θ of `networks.make_language_model`; `save` writes safetensors files in the same layouts.
"""

from pgjax.saving.weights.files import Loaded, config_json, load, save

__all__ = ["Loaded", "config_json", "load", "save"]
