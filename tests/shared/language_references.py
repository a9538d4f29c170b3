"""NumPy references of the two layouts of language models, written from the layouts' definitions, one text at a time.

The weights are dictionaries with the names and the orientation of the files: those of GPT-2 are stored (in, out), those
of Llama (out, in).
"""

import numpy as np


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def attention(q, k, v):
    """One head: q, k, v `[L, D]`; a loop over the places, each of which sees only itself and those before it."""
    return np.stack([softmax(k[: t + 1] @ q[t] / np.sqrt(q.shape[1])) @ v[: t + 1] for t in range(len(q))])


def gpt2_logits(weights, tokens, heads, epsilon=1e-5):
    def norm(name, x):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + epsilon) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def conv1d(name, x):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu(x):
        return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))

    x = weights["wte.weight"][tokens] + weights["wpe.weight"][: len(tokens)]
    width = x.shape[1] // heads
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("h."))
    for i in range(layers):
        q, k, v = np.split(conv1d(f"h.{i}.attn.c_attn", norm(f"h.{i}.ln_1", x)), 3, axis=1)
        parts = [slice(h * width, (h + 1) * width) for h in range(heads)]
        found = np.concatenate([attention(q[:, p], k[:, p], v[:, p]) for p in parts], axis=1)
        x = x + conv1d(f"h.{i}.attn.c_proj", found)
        x = x + conv1d(f"h.{i}.mlp.c_proj", gelu(conv1d(f"h.{i}.mlp.c_fc", norm(f"h.{i}.ln_2", x))))
    head = weights.get("lm_head.weight", weights["wte.weight"])
    return norm("ln_f", x) @ head.T


def llama_logits(weights, tokens, heads, kv_heads, theta, epsilon):
    def norm(name, x):
        return weights[f"{name}.weight"] * (x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon))

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T

    def rotated(x):
        """Each pair as a complex number, multiplied by exp(i place · frequency)."""
        half = x.shape[1] // 2
        turned = np.exp(1j * np.outer(np.arange(len(x)), theta ** (-2.0 * np.arange(half) / x.shape[1])))
        pairs = (x[:, :half] + 1j * x[:, half:]) * turned
        return np.concatenate([pairs.real, pairs.imag], axis=1)

    x = weights["model.embed_tokens.weight"][tokens]
    width = x.shape[1] // heads
    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("model.layers."))
    part = lambda y, h: y[:, h * width : (h + 1) * width]
    for i in range(layers):
        block = f"model.layers.{i}"
        read = norm(f"{block}.input_layernorm", x)
        q, k, v = (linear(f"{block}.self_attn.{name}_proj", read) for name in "qkv")
        found = []
        for h in range(heads):
            g = h * kv_heads // heads
            found.append(attention(rotated(part(q, h)), rotated(part(k, g)), part(v, g)))
        x = x + linear(f"{block}.self_attn.o_proj", np.concatenate(found, axis=1))
        read = norm(f"{block}.post_attention_layernorm", x)
        gate = linear(f"{block}.mlp.gate_proj", read)
        x = x + linear(f"{block}.mlp.down_proj", gate / (1.0 + np.exp(-gate)) * linear(f"{block}.mlp.up_proj", read))
    return norm("model.norm", x) @ weights.get("lm_head.weight", weights["model.embed_tokens.weight"]).T
