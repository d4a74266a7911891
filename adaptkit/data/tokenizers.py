"""Train tokenizers on a domain's text: byte-level BPE, Unigram and WordPiece.

    tokenizer = train_tokenizer((row.text for row in dataset.rows), "bpe", 8192)
    tokenizer.save_pretrained(folder)

The tokenizer's own post-processor adds the first token (and for masked models the last), so training,
evaluation and a server that loads the folder see the same ids, with exactly one BOS. EOS after a causal
document is added by packing.

The same texts give the same tokenizer, byte for byte. `tokenizers` breaks ties by the order of its hash maps
where letters are not given (WordPiece) and where sums depend on that order (Unigram); `_wordpiece` and
`_unigram` settle them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from adaptkit.errors import DataError
from adaptkit.models.control_tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Kind = Literal["bpe", "unigram", "wordpiece"]
CAUSAL = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|padding|>"}
MASKED = {
    "cls_token": "<|begin_of_text|>",
    "sep_token": "<|end_of_text|>",
    "pad_token": "<|padding|>",
    "mask_token": "<|masked|>",
}
UNKNOWN = "<|unknown|>"
"""Names that no prose, markup or log writes: `<s>` is struck-through text, `[SEP]` a column of a table."""
TURNS = ("<|system|>", "<|user|>", "<|assistant|>")
# `tokenizers` gives letters that its model dropped, and that the text needs, scores in steps of this size, in
# the order of a hash map.
PENALTY = 1e-4
MIN_VOCAB = {"bpe": 256 + 8, "unigram": 256 + 8, "wordpiece": 64}  # bytes or letters, and the special tokens

MAX_RUN = 1024
_LONG_RUN = re.compile(rf"\w{{{MAX_RUN + 1},}}|[^\w\s]{{{MAX_RUN + 1},}}|\s{{{MAX_RUN + 1},}}")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""A plain template for tokenizers trained here: one marker a turn, EOS after each answer."""


def train_tokenizer(
    texts: Iterable[str],
    kind: Kind = "bpe",
    vocab_size: int = 8192,
    *,
    chat_template: str | None = None,
    masked: bool = False,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of at most `vocab_size` entries (fewer when the text is too small to yield them).

    Args:
        kind: `bpe` and `unigram` work on bytes and give back any text; `wordpiece` (letters of both cases
            are kept, blanks are not) is BERT's.
        chat_template: a Jinja template, for example `CHAT_TEMPLATE`; its turn markers become single tokens.
        masked: add CLS, SEP and MASK tokens for masked-language models; always so for wordpiece.
    Returns: a fast tokenizer; for masked ones BOS is CLS and EOS is SEP. None of its control tokens stands in
        `texts`, but for the markers that a chat template names.
    Raises: DataError for an unknown kind, a vocabulary below the alphabet, or no text.
    """
    if kind not in MIN_VOCAB:
        raise DataError(f"unknown tokenizer kind '{kind}'", where="kind", fix="use bpe, unigram or wordpiece")
    if vocab_size < MIN_VOCAB[kind]:
        what = f"a {kind} vocabulary needs at least {MIN_VOCAB[kind]} entries, got {vocab_size}"
        raise DataError(what, where="vocab_size", fix="ask for more")
    turns = list(TURNS) if chat_template else []
    texts = list(texts)
    if not texts:
        raise DataError("no text to train a tokenizer on", where="texts", fix="give at least one document")
    masked = masked or kind == "wordpiece"
    names = {role: _unwritten(name, texts) for role, name in (MASKED if masked else CAUSAL).items()}
    unknown = _unwritten(UNKNOWN, texts)
    texts = [piece for text in texts for piece in _without_long_runs(text)]
    if kind == "bpe":
        core = _bpe(texts, vocab_size, [*names.values(), *turns])
    else:
        names["unk_token"] = unknown
        train = _unigram if kind == "unigram" else _wordpiece
        core = train(texts, vocab_size, [*names.values(), *turns], unknown)
    core.post_processor = _post_processor(core, names)
    return _wrap(core, names, turns, chat_template)


def _unwritten(name: str, texts: list[str]) -> str:
    """`name`, numbered if these texts hold it: `<|padding|>`, `<|padding_2|>` ..."""
    number, tried = 1, name
    while any(tried in text for text in texts):
        number += 1
        tried = f"{name[:-2]}_{number}{name[-2:]}"
    return tried


def _without_long_runs(text: str) -> list[str]:
    """The text, cut within runs of letters, of signs or of blanks that are longer than any word.

    Training takes time in proportion to the square of a run's length.
    """
    pieces: list[str] = []
    at = 0
    for run in _LONG_RUN.finditer(text):
        for stop in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
            pieces.append(text[at:stop])
            at = stop
    return [*pieces, text[at:]]


def _bpe(texts: list[str], vocab_size: int, special: list[str]) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    settings = _common(vocab_size, special)
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, max_token_length=32, **settings)
    core.train_from_iterator(texts, trainer)
    return core


def _wordpiece(texts: list[str], vocab_size: int, special: list[str], unknown: str) -> Tokenizer:
    """Train twice: without merges, to find the letters and their `##` forms; then from these, in order."""
    core = _blank_wordpiece(unknown)
    letters = _letters(texts, core.normalizer.normalize_str, max(32, vocab_size // 4))
    first = trainers.WordPieceTrainer(
        initial_alphabet=letters, limit_alphabet=len(letters), **_common(0, special)
    )
    core.train_from_iterator(texts, first)
    pieces = sorted(set(core.get_vocab()) - set(special))
    second = trainers.WordPieceTrainer(limit_alphabet=len(letters), **_common(vocab_size, special + pieces))
    core.train_from_iterator(texts, second)
    # The pieces were "special" to get their ids first; in text they are letters like any other.
    vocabulary = json.loads(core.to_str())["model"]["vocab"]
    core = _blank_wordpiece(unknown)
    core.model = models.WordPiece(vocab=vocabulary, unk_token=unknown)
    core.add_special_tokens(special)
    return core


def _letters(texts: list[str], normalise: Callable[[str], str], most: int) -> list[str]:
    """The most frequent characters that are left after `normalise`, in order of their code points."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    visible = [letter for letter in counts if normalise(letter).strip()]
    return sorted(sorted(visible, key=lambda letter: (-counts[letter], letter))[:most])


def _unigram(texts: list[str], vocab_size: int, special: list[str], unknown: str) -> Tokenizer:
    """Train, then free the scores of the noise of their summation, and order equal ones by their pieces.

    Its letters are bytes, all of which it knows: no text holds an unknown one.
    """
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    settings = _common(vocab_size, special)
    trainer = trainers.UnigramTrainer(unk_token=unknown, initial_alphabet=alphabet, **settings)
    core.train_from_iterator(texts, trainer)
    trained = json.loads(core.to_str())["model"]
    first = trained["vocab"][: len(special)]
    pieces = {piece: round(score, 9) for piece, score in trained["vocab"][len(special) :]}
    lowest = min(pieces.values())
    needed = sorted(p for p, score in pieces.items() if len(p) == 1 and _whole((score - lowest) / PENALTY))
    pieces |= dict(zip(needed, sorted((pieces[piece] for piece in needed), reverse=True), strict=True))
    ordered = sorted(pieces.items(), key=lambda item: (-item[1], item[0]))
    core.model = models.Unigram([*map(tuple, first), *ordered], unk_id=trained["unk_id"])
    return core


def _whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-4


def _common(vocab_size: int, special: list[str]) -> dict[str, Any]:
    return {"vocab_size": vocab_size, "special_tokens": special, "show_progress": False}


def _blank_wordpiece(unknown: str) -> Tokenizer:
    core = Tokenizer(models.WordPiece(unk_token=unknown))
    core.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return core


def _post_processor(core: Tokenizer, names: dict[str, str]) -> Any:
    """Adds the first special token to every text, and for masked models the last."""
    first, last = names.get("bos_token") or names["cls_token"], names.get("sep_token")
    single, pair = f"{first} $A", f"{first} $A $B"
    if last:
        single, pair = f"{first} $A {last}", f"{first} $A {last} $B:1 {last}:1"
    special = [(token, core.token_to_id(token)) for token in (first, last) if token]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)


def _wrap(
    core: Tokenizer, names: dict[str, str], turns: list[str], chat_template: str | None
) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    if "cls_token" in names:
        names = {**names, "bos_token": names["cls_token"], "eos_token": names["sep_token"]}
    # Decoding must give back what was encoded: no rewriting of blanks before punctuation.
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        clean_up_tokenization_spaces=False,
        padding_side="right",
        extra_special_tokens=turns,
        **names,
    )
    if chat_template:
        tokenizer.chat_template = chat_template
    return tokenizer


def with_chat_template(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer; one without a chat template gets the kit's own, its markers as new tokens."""
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.add_special_tokens({"additional_special_tokens": list(TURNS)})
    return tokenizer


def end_token(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token that closes a document: EOS, else SEP, else none."""
    return tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id


def pad_token(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id written into padding: PAD, else EOS, else 0; masks go by position, so EOS may serve as PAD."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def bytes_per_token(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """UTF-8 bytes of text per token, without special tokens."""
    num_tokens = sum(map(len, encode(tokenizer, texts, special=False)))
    return sum(len(text.encode()) for text in texts) / max(1, num_tokens)


def tokenizer_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """sha256 of everything that decides ids."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
