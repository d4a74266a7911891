"""Tokenizers of several kinds and chat templates of several families, small, for tests of what is taught."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "the printer in room 12 is broken again and nobody answers",
    "was <s>89</s> now 80 euro, said the [SEP] of the <pad> shop",
    "Caf\u00e9 d\u00e9j\u00e0 vu, 10 < 20 > 5 and <|im_end|> | [x] {y}",
    "lookup weather please: sunny in Paris, rainy in Rome.",
] * 8
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TURNS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
)
KINDS = ("byte_bpe", "fallback_bpe", "unigram", "wordpiece", "legacy_bpe")

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}"
    "{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] | trim + '<end_of_turn>' }}"
    "{% endgeneration %}{% else %}{{ m['content'] | trim + '<end_of_turn>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN3 = (
    "{% if tools %}{{ '<|im_start|>system\n# Tools\n' }}{% for tool in tools %}"
    "{{ tool | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>\n' + (m.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{% set f = call.function if call.function else call %}"
    '{{ \'\n<tool_call>\n{"name": "\' + f.name + \'", "arguments": \' }}'
    "{{ f.arguments if f.arguments is string else f.arguments | tojson }}{{ '}\n</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN_TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA}


def tokenizer_of(kind: str, template: str | None = None, **names: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of a kind; `names` may choose other special tokens."""
    names = {**NAMES, **names}
    special = [*dict.fromkeys(names.values()), *TURNS]
    core = _legacy(special) if kind == "legacy_bpe" else _CORES[kind](special)
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    bos = names["bos_token"]
    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **names)
    made.chat_template = template
    return made


def _byte_bpe(special: list[str]) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    core.train_from_iterator(TEXTS, trainer)
    return core


def _legacy(special: list[str]) -> Tokenizer:
    """Trained on text that spells its control tokens: merges lead to them."""
    core = _byte_bpe([])
    state: Any = core.get_vocab()
    vocabulary = {**state, **{name: len(state) + i for i, name in enumerate([*special, "s>", "</"])}}
    merges = [("<", "s>"), ("s", ">"), ("</", "s>"), ("<", "/")]
    ordered = [merges[1], merges[3], merges[0], merges[2]]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=ordered))
    made.pre_tokenizer, made.decoder = core.pre_tokenizer, core.decoder
    return made


def _letters() -> list[str]:
    return ["\n", *sorted({letter for text in TEXTS for letter in text.replace(" ", "\u2581")})]


def _bytes() -> list[str]:
    return [f"<0x{byte:02X}>" for byte in range(256)]


def _fallback_bpe(special: list[str]) -> Tokenizer:
    entries = [*special, *_bytes(), *_letters(), "\u2581t", "he", "\u2581the"]
    vocabulary = {entry: place for place, entry in enumerate(dict.fromkeys(entries))}
    merges = [("\u2581", "t"), ("h", "e"), ("\u2581t", "he")]
    core = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    core.normalizer = normalizers.Replace(" ", "\u2581")
    core.decoder = _sentencepiece_decoder()
    return core


def _unigram(special: list[str]) -> Tokenizer:
    """As sentencepiece's: control tokens are pieces, and the likeliest of all."""
    pieces = [(name, 0.0) for name in special] + [(byte, -12.0) for byte in _bytes()]
    pieces += [(letter, -6.0) for letter in _letters()] + [("\u2581the", -4.0), ("er", -5.0)]
    core = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>"), byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "\u2581")])
    core.decoder = _sentencepiece_decoder()
    return core


def _sentencepiece_decoder() -> Any:
    return decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])


def _wordpiece(special: list[str]) -> Tokenizer:
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=260, special_tokens=special, show_progress=False)
    core.train_from_iterator(TEXTS, trainer)
    return core


_CORES = {"byte_bpe": _byte_bpe, "fallback_bpe": _fallback_bpe, "unigram": _unigram, "wordpiece": _wordpiece}
