"""Small random causal models of many architectures, with windows, chunks and rotations that are short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as T

from adaptkit import models

_SIZES = {
    "vocab_size": 160,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 8}
_WINDOW = {"sliding_window": 16}
_MIXED = {**_WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_GPT2 = {"vocab_size": 160, "n_embd": 32, "n_layer": 2, "n_head": 4}
_SHORT = {"vocab_size": 160, "hidden_size": 32, "num_hidden_layers": 2}
_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
_LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 64,
}
_DYNAMIC_ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}

CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: T.GPT2Config(**_GPT2, n_positions=256),
    "gpt-neo": lambda: T.GPTNeoConfig(
        vocab_size=160,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        window_size=16,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=256,
    ),
    "gptj": lambda: T.GPTJConfig(**_GPT2, rotary_dim=4, n_positions=256),
    "opt": lambda: T.OPTConfig(
        **_SHORT, num_attention_heads=4, ffn_dim=64, max_position_embeddings=256, word_embed_proj_dim=32
    ),
    "gpt-neox": lambda: T.GPTNeoXConfig(**_SIZES),
    "bloom": lambda: T.BloomConfig(vocab_size=160, hidden_size=32, n_layer=2, n_head=4, **_IDS),
    "mpt": lambda: T.MptConfig(vocab_size=160, d_model=32, n_layers=2, n_heads=4, max_seq_len=256),
    "llama": lambda: T.LlamaConfig(**_GROUPED),
    "llama, dynamic rope": lambda: T.LlamaConfig(
        **_GROUPED, max_position_embeddings=64, rope_parameters=_DYNAMIC_ROPE
    ),
    "llama 4": lambda: T.Llama4TextConfig(
        **_HEADS,
        **_IDS,
        attention_chunk_size=16,
        num_local_experts=2,
        intermediate_size_mlp=64,
        layer_types=["chunked_attention", "full_attention", "chunked_attention"],
        no_rope_layers=[1, 0, 1],
    ),
    "mistral": lambda: T.MistralConfig(**_GROUPED, **_WINDOW),
    "mixtral": lambda: T.MixtralConfig(**_GROUPED, **_WINDOW, num_local_experts=4),
    "qwen2": lambda: T.Qwen2Config(**_GROUPED),
    "qwen2, windows": lambda: T.Qwen2Config(
        **_GROUPED, **_WINDOW, use_sliding_window=True, max_window_layers=1
    ),
    "qwen3": lambda: T.Qwen3Config(**_HEADS),
    "gemma 2": lambda: T.Gemma2Config(
        **_HEADS, **_WINDOW, query_pre_attn_scalar=8, final_logit_softcapping=3.0
    ),
    "gemma 3": lambda: T.Gemma3TextConfig(**_HEADS, **_MIXED, query_pre_attn_scalar=8),
    "phi3": lambda: T.Phi3Config(**_GROUPED, **_WINDOW, **_IDS),
    "phi3, long rope": lambda: T.Phi3Config(
        **_GROUPED,
        **_IDS,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_parameters=_LONG_ROPE,
    ),
    "falcon, rope": lambda: T.FalconConfig(**_SHORT, num_attention_heads=4),
    "falcon, alibi": lambda: T.FalconConfig(**_SHORT, num_attention_heads=4, alibi=True, multi_query=False),
    "stablelm": lambda: T.StableLmConfig(**_GROUPED),
    "olmo": lambda: T.OlmoConfig(**_GROUPED),
    "olmo 3": lambda: T.Olmo3Config(**_GROUPED, **_WINDOW),
    "cohere": lambda: T.CohereConfig(**_GROUPED, logit_scale=0.25),
    "cohere 2": lambda: T.Cohere2Config(**_GROUPED, **_MIXED, logit_scale=0.25),
    "granite": lambda: T.GraniteConfig(**_GROUPED, logits_scaling=4.0, attention_multiplier=0.2),
    "starcoder2": lambda: T.Starcoder2Config(**_GROUPED, **_WINDOW),
    "gpt-oss": lambda: T.GptOssConfig(**_HEADS, **_MIXED, num_local_experts=4, num_experts_per_tok=2),
    "mamba": lambda: T.MambaConfig(**_SHORT, state_size=8),
    "mamba 2": lambda: T.Mamba2Config(
        **_SHORT, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=16
    ),
    "lfm2": lambda: T.Lfm2Config(
        **_GROUPED, layer_types=["conv", "full_attention", "conv"], block_multiple_of=16
    ),
    "jamba": lambda: T.JambaConfig(
        **_GROUPED,
        num_experts=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        use_mamba_kernels=False,
        mamba_d_state=8,
    ),
    "bamba": lambda: T.BambaConfig(**_GROUPED, **_IDS, **_MAMBA, attn_layer_indices=[1], mamba_chunk_size=16),
    "recurrent gemma": lambda: T.RecurrentGemmaConfig(
        **_HEADS, lru_width=32, attention_window_size=16, block_types=["recurrent", "attention"]
    ),
    "minimax": lambda: T.MiniMaxConfig(
        **_HEADS,
        **_IDS,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        num_local_experts=2,
        block_size=16,
    ),
    "rwkv": lambda: T.RwkvConfig(
        **_SHORT, attention_hidden_size=32, intermediate_size=64, context_length=256
    ),
    "roberta, decoder": lambda: T.RobertaConfig(**_SIZES, is_decoder=True, max_position_embeddings=258),
}
SHARED = {
    "gpt2",
    "gptj",
    "opt",
    "gpt-neox",
    "llama",
    "llama, dynamic rope",
    "llama 4",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2, windows",
    "qwen3",
    "gemma 2",
    "gemma 3",
    "phi3",
    "phi3, long rope",
    "falcon, rope",
    "stablelm",
    "olmo",
    "olmo 3",
    "cohere",
    "cohere 2",
    "granite",
    "starcoder2",
    "gpt-oss",
}
"""Those whose prefix can be shared, and whose choices can stand side by side, in rows of some tokens."""


def build(name: str, sharpness: float = 3.0) -> Any:
    """A model with weights `sharpness` times as large as usual, so that what is attended to shows."""
    model = models.build(CONFIGS[name](), "causal", seed=0).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.dim() > 1 and "A_log" not in key:
                weight.mul_(sharpness)
    return model


def tokens(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(3, 160, (count,), generator=generator).tolist()
