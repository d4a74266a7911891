"""Tokenizers trained here: lossless where promised, one BOS, the same ids after saving, extension without
damage. Home of data.extension and models.fixed_vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from adaptkit.data.extension import extend_tokenizer
from adaptkit.data.tokenizers import CHAT_TEMPLATE, bytes_per_token, encode, tokenizer_digest, train_tokenizer
from adaptkit.errors import DataError, ModelError
from adaptkit.models.fixed_vocabulary import why_fixed

HARD = "H\u00e9llo  w\u00f6rld \n\n\t x=1 p<0.05 \u6f22\u5b57 \U0001f600 \u200b<s> </s>"
KINDS = ["bpe", "unigram", "wordpiece"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [False, True])
def test_saved_folder_gives_the_same_ids_with_one_bos(
    tmp_path: Path, tiny_text: list[str], kind: str, masked: bool
) -> None:
    from transformers import AutoTokenizer

    tokenizer = train_tokenizer(tiny_text, kind, 400, masked=masked)
    assert len(tokenizer) <= 400 and tokenizer.pad_token_id is not None
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in (tiny_text[0], "Hello world", ""):
        ids = tokenizer(text).input_ids
        assert ids == loaded(text).input_ids == encode(tokenizer, [text])[0] == encode(loaded, [text])[0]
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    closed = masked or kind == "wordpiece"
    assert (tokenizer.mask_token_id is not None) == closed and (ids[-1] == tokenizer.eos_token_id) == closed
    assert (loaded.all_special_ids, loaded.eos_token_id) == (
        tokenizer.all_special_ids,
        tokenizer.eos_token_id,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_texts_give_the_same_tokenizer(tiny_text: list[str], kind: str) -> None:
    texts = [*tiny_text, HARD, "\u03b1\u03b2\u03b3 once"]
    assert (
        len({tokenizer_digest(train_tokenizer(iter(texts), kind, size)) for size in (300, 300, 300, 300)})
        == 1
    )


def test_letters_of_a_wordpiece_vocabulary_are_not_special(tiny_text: list[str]) -> None:
    tokenizer = train_tokenizer(tiny_text, "wordpiece", 400)
    assert len(tokenizer.all_special_ids) == 5 and "##e" in tokenizer.get_vocab()
    assert not {"##e", "e"} & set(tokenizer.get_added_vocab())
    assert "##e" not in tokenizer.tokenize("a ##e b")


def test_bpe_is_lossless_on_any_text(tiny_text: list[str]) -> None:
    tokenizer = train_tokenizer(tiny_text, "bpe", 400)
    text = HARD.replace("<s>", "").replace("</s>", "")
    assert tokenizer.decode(tokenizer(text).input_ids[1:]) == text
    assert bytes_per_token(tokenizer, tiny_text) > 1.5


def test_a_tokenizer_fits_its_domain_better(tiny_text: list[str]) -> None:
    other = [" ".join(word[::-1] for word in text.split()) for text in tiny_text]
    own, foreign = train_tokenizer(tiny_text, "bpe", 500), train_tokenizer(other, "bpe", 500)
    assert bytes_per_token(own, tiny_text) > 1.1 * bytes_per_token(foreign, tiny_text)


def test_chat_template_is_saved_and_its_markers_are_single_tokens(
    tmp_path: Path, tiny_text: list[str]
) -> None:
    from transformers import AutoTokenizer

    train_tokenizer(tiny_text, "bpe", 400, chat_template=CHAT_TEMPLATE).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|begin_of_text|><|user|>\nhi\n<|assistant|>\nyes<|end_of_text|>\n"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1 and tokenizer.convert_tokens_to_ids("<|user|>") in ids


@pytest.mark.parametrize(
    ("kind", "size", "texts"), [("sentencepiece", 400, ["a"]), ("bpe", 100, ["a"]), ("bpe", 400, [])]
)
def test_impossible_tokenizers_are_refused(kind: str, size: int, texts: list[str]) -> None:
    with pytest.raises(DataError):
        train_tokenizer(texts, kind, size)


def model(vocab_size: int, tied: bool) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=tied, **shape))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_extension_adds_mean_rows_and_keeps_the_rest(
    tmp_path: Path, tiny_text: list[str], kind: str, tied: bool
) -> None:
    from transformers import AutoTokenizer

    tokenizer = train_tokenizer(tiny_text, kind, 400)
    domain = [f"interleukin receptor antagonist number {i} inhibits phosphorylation" for i in range(30)]
    net = model(len(tokenizer), tied)
    before = net.get_input_embeddings().weight.detach().clone()
    extended = extend_tokenizer(tokenizer, net, domain, 12)
    size = len(tokenizer)
    assert size < len(extended) <= size + 12
    assert bytes_per_token(extended, domain) > 1.2 * bytes_per_token(tokenizer, domain)
    assert [extended(t).input_ids for t in tiny_text[:9]] == [tokenizer(t).input_ids for t in tiny_text[:9]]
    after, head = net.get_input_embeddings().weight, net.get_output_embeddings().weight
    assert after.shape[0] == len(extended) and torch.equal(after[:size], before) and (head is after) == tied
    used = sorted({i for text in domain for i in extended(text).input_ids if i >= size})
    assert used
    for i in used:
        pieces = tokenizer.backend_tokenizer.model.tokenize(extended.convert_ids_to_tokens(i))
        torch.testing.assert_close(after[i], before[[p.id for p in pieces]].mean(dim=0))
    extended.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(domain[0]).input_ids == extended(domain[0]).input_ids
    if kind == "bpe":
        assert extended.decode(extended(domain[0]).input_ids[1:]) == domain[0]


def blank_cut_bpe(texts: list[str], size: int = 300) -> PreTrainedTokenizerFast:
    """A byte-level BPE that cuts at blanks alone, so that a whole `<|tool|>` may be one word."""
    core = Tokenizer(models.BPE())
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), bytes_only])
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


def test_no_entry_is_spelt_like_a_control_token_and_texts_keep_spelling_it(tiny_text: list[str]) -> None:
    tokenizer = blank_cut_bpe(tiny_text)
    written = ["<|end|> <|end|> thrombocytopenia <|end|> thrombocytopenia"] * 20
    extended = extend_tokenizer(tokenizer, model(len(tokenizer), True), written, 40)
    assert extended.eos_token_id == tokenizer.eos_token_id
    assert [token for token in extended.get_vocab() if token == "<|end|>"] == ["<|end|>"]
    (spelt,) = encode(extended, ["thrombocytopenia <|end|>"], special=False)
    assert extended.eos_token_id not in spelt and max(spelt) >= len(tokenizer)
    assert "".join(extended.convert_ids_to_tokens(spelt)) == "thrombocytopenia<|end|>"


def test_a_tokenizer_that_marks_blanks_and_cuts_no_words_is_extended_without_loss(
    tiny_text: list[str],
) -> None:
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    letters = sorted({letter for text in tiny_text for letter in text if letter.isalnum()})
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["<unk>", *fallback, "\u2581", *letters, "th"]
    core.model = models.BPE(
        {piece: i for i, piece in enumerate(pieces)}, [("t", "h")], byte_fallback=True, unk_token="<unk>"
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    domain = ["the thorax \u6f22\u5b57 thorax the thorax \u6f22\u5b57"] * 9
    extended = extend_tokenizer(tokenizer, model(len(tokenizer), True), domain, 6)
    assert "\u2581thorax" in extended.get_vocab()
    assert not [token for token in extended.get_added_vocab() if "<0x" in token]
    assert not [token for token in extended.get_vocab() if "<0x" in token and len(token) > 6]
    assert extended.decode(encode(extended, domain[:1], special=False)[0]) == domain[0]


def test_tokenizers_that_take_no_entries_are_refused_in_a_sentence(tiny_text: list[str]) -> None:
    whole = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    whole.pre_tokenizer = pre_tokenizers.Whitespace()
    marked = Tokenizer(models.BPE({"a": 0, "##a": 1}, [], continuing_subword_prefix="##"))
    marked.pre_tokenizer = pre_tokenizers.Whitespace()
    for core, why in (
        (whole, "a WordLevel tokenizer takes no new entries"),
        (marked, "within a word by '##'"),
    ):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
        reason = why_fixed(tokenizer)
        assert reason is not None and why in reason[0]
        with pytest.raises(ModelError, match=why):
            extend_tokenizer(tokenizer, model(len(tokenizer), True), tiny_text, 4)
    for kind in KINDS:
        assert why_fixed(train_tokenizer(tiny_text, kind, 400)) is None


def test_extension_keeps_added_tokens_beyond_the_vocabulary(tiny_text: list[str]) -> None:
    tokenizer = train_tokenizer(tiny_text, "bpe", 400)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|tool|>"]})
    place = tokenizer.convert_tokens_to_ids("<|tool|>")
    extended = extend_tokenizer(tokenizer, model(len(tokenizer), True), ["phosphorylation " * 5] * 3, 6)
    assert extended.convert_tokens_to_ids("<|tool|>") == place
    assert place in extended("a <|tool|> b").input_ids and max(extended("phosphorylation").input_ids) > place
