"""Tiny random model folders of many transformers architectures, as `save_pretrained` writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedTokenizerFast

from adaptkit.data.tokenizers import train_tokenizer

POSITIONS = 64
"""Usable positions of each architecture that has a table or a limit of them."""
WIDTH, LAYERS, HEADS = 32, 2, 2


@dataclass(frozen=True)
class Architecture:
    """How a tiny model of one architecture is made.

    Attributes:
        shape: (entries of the vocabulary, ids of the special tokens) -> transformers config.
        head: the auto class that gives the model.
        vocabulary: causal (byte-level BPE), masked (byte-level BPE with [CLS] and [MASK]) or wordpiece.
    """

    shape: Callable[[int, dict[str, int]], Any]
    head: Any
    vocabulary: str = "causal"


def _sizes(vocab_size: int, **others: Any) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        **others,
    }


def _causal(shape: Any, **others: Any) -> Architecture:
    def config(vocab_size: int, ids: dict[str, int]) -> Any:
        return shape(**_sizes(vocab_size, **ids, **others))

    return Architecture(config, hf.AutoModelForCausalLM)


def _masked(shape: Any, vocabulary: str = "wordpiece", extra: int = 0, **others: Any) -> Architecture:
    """`extra` = 1: the rows of the position table up to the padding id are never used; 2: two are not."""

    def config(vocab_size: int, ids: dict[str, int]) -> Any:
        sizes = _sizes(vocab_size, **ids, **others)
        if extra == 2:
            sizes["max_position_embeddings"] = POSITIONS + extra
        elif extra:
            sizes["max_position_embeddings"] = POSITIONS + ids["pad_token_id"] + 1
        return shape(**sizes)

    return Architecture(config, hf.AutoModelForMaskedLM, vocabulary)


def _gpt2(vocab_size: int, ids: dict[str, int]) -> Any:
    return hf.GPT2Config(
        vocab_size=vocab_size, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, **ids
    )


def _bloom(vocab_size: int, ids: dict[str, int]) -> Any:
    return hf.BloomConfig(vocab_size=vocab_size, hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS, **ids)


def _opt(vocab_size: int, ids: dict[str, int]) -> Any:
    sizes = _sizes(vocab_size, ffn_dim=2 * WIDTH, word_embed_proj_dim=WIDTH)
    sizes.pop("intermediate_size")
    return hf.OPTConfig(**sizes, **ids)


def _mamba(vocab_size: int, ids: dict[str, int]) -> Any:
    return hf.MambaConfig(
        vocab_size=vocab_size, hidden_size=WIDTH, num_hidden_layers=LAYERS, state_size=4, **ids
    )


def _falcon(vocab_size: int, ids: dict[str, int]) -> Any:
    return hf.FalconConfig(**_sizes(vocab_size, **ids))


def _distilbert(vocab_size: int, ids: dict[str, int]) -> Any:
    return hf.DistilBertConfig(
        vocab_size=vocab_size,
        max_position_embeddings=POSITIONS,
        n_layers=LAYERS,
        n_heads=HEADS,
        dim=WIDTH,
        hidden_dim=2 * WIDTH,
        pad_token_id=ids["pad_token_id"],
    )


def _t5(vocab_size: int, ids: dict[str, int]) -> Any:
    return hf.T5Config(
        vocab_size=vocab_size,
        d_model=WIDTH,
        d_kv=WIDTH // HEADS,
        d_ff=2 * WIDTH,
        num_layers=LAYERS,
        num_heads=HEADS,
        decoder_start_token_id=ids["pad_token_id"],
        **ids,
    )


def _bart(vocab_size: int, ids: dict[str, int]) -> Any:
    return hf.BartConfig(
        vocab_size=vocab_size,
        d_model=WIDTH,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH,
        max_position_embeddings=POSITIONS,
        decoder_start_token_id=ids["eos_token_id"],
        forced_eos_token_id=ids["eos_token_id"],
        **ids,
    )


_GROUPED = {"num_key_value_heads": 1}
_WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(_gpt2, hf.AutoModelForCausalLM),
    "opt": Architecture(_opt, hf.AutoModelForCausalLM),
    "gpt-neox": _causal(hf.GPTNeoXConfig),
    "bloom": Architecture(_bloom, hf.AutoModelForCausalLM),
    "llama": _causal(hf.LlamaConfig, **_GROUPED),
    "mistral": _causal(hf.MistralConfig, **_GROUPED, sliding_window=8),
    "mixtral": _causal(hf.MixtralConfig, **_GROUPED, num_local_experts=2, num_experts_per_tok=1),
    "qwen2": _causal(hf.Qwen2Config, **_GROUPED),
    "qwen3": _causal(hf.Qwen3Config, **_GROUPED, head_dim=WIDTH // HEADS),
    "gemma2": _causal(hf.Gemma2Config, **_GROUPED, head_dim=WIDTH // HEADS, **_WINDOWS),
    "gemma3": _causal(hf.Gemma3TextConfig, **_GROUPED, head_dim=WIDTH // HEADS, **_WINDOWS),
    "phi3": _causal(hf.Phi3Config, **_GROUPED),
    "falcon": Architecture(_falcon, hf.AutoModelForCausalLM),
    "mamba": Architecture(_mamba, hf.AutoModelForCausalLM),
    "lfm2": _causal(hf.Lfm2Config, **_GROUPED, layer_types=["conv", "full_attention"]),
    "bert": _masked(hf.BertConfig),
    "roberta": _masked(hf.RobertaConfig, "masked", extra=1),
    "xlm-roberta": _masked(hf.XLMRobertaConfig, "masked", extra=1),
    "distilbert": Architecture(_distilbert, hf.AutoModelForMaskedLM, "wordpiece"),
    "mpnet": _masked(hf.MPNetConfig, "wordpiece", extra=2),
    "deberta-v3": _masked(
        hf.DebertaV2Config,
        "masked",
        relative_attention=True,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type="p2c|c2p",
        position_biased_input=False,
        max_relative_positions=-1,
        type_vocab_size=0,
    ),
    "modernbert": _masked(hf.ModernBertConfig, "masked", local_attention=16),
    "electra": _masked(hf.ElectraConfig, embedding_size=WIDTH),
    "t5": Architecture(_t5, hf.AutoModelForSeq2SeqLM, "masked"),
    "bart": Architecture(_bart, hf.AutoModelForSeq2SeqLM, "masked"),
}


def make_tokenizers(texts: list[str]) -> dict[str, PreTrainedTokenizerFast]:
    """One tokenizer of each kind of vocabulary."""
    return {
        "causal": train_tokenizer(texts, "bpe", 320),
        "masked": train_tokenizer(texts, "bpe", 320, masked=True),
        "wordpiece": train_tokenizer(texts, "wordpiece", 160, masked=True),
    }


def make_folder(name: str, tokenizers: dict[str, PreTrainedTokenizerFast], root: Path) -> Path:
    """Save a random model of an architecture with its tokenizer, as transformers itself does."""
    architecture = ARCHITECTURES[name]
    tokenizer = tokenizers[architecture.vocabulary]
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = architecture.shape(len(tokenizer), ids)
    torch.manual_seed(1)
    model = architecture.head.from_config(shape)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3.0)  # random weights as small as at birth hide differences
    folder = root / name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
