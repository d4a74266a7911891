"""What tokenizers lose of a text is counted and charged, whatever they do to it; ours lose nothing. Home of
subsequence."""

from __future__ import annotations

import math
import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from many_scripts import SCRIPTS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import ModelError
from adaptkit.models.round_trip import (
    LostText,
    check_known,
    check_round_trip,
    lost_sentence,
    lost_text,
    unknown_share,
)
from adaptkit.subsequence import longest_common_subsequence

ENGLISH = "The old printer in Room 7 stands idle;  it waits\nfor paper.\n\n\tCall Mr. Noe\u0308l\uff01 \u2460"
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def byte_level(*normal) -> PreTrainedTokenizerFast:
    """One token per byte of the normalised text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.normalizer = normalizers.Sequence(list(normal)) if normal else None
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def word_level() -> PreTrainedTokenizerFast:
    """Words it knows, and <unk>; blanks are gone."""
    vocab = {"<unk>": 0, "the": 1, "printer": 2}
    core = Tokenizer(models.WordLevel(vocab=vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def llama_like(byte_fallback: bool) -> PreTrainedTokenizerFast:
    """A blank before every text, and bytes or <unk> for letters that it does not know."""
    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=byte_fallback))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    core.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


LOSSY = {
    "lowercase": (byte_level(normalizers.Lowercase()), lambda text: text.lower()),
    "nfkc": (byte_level(normalizers.NFKC()), lambda text: unicodedata.normalize("NFKC", text)),
    "nfc": (byte_level(normalizers.NFC()), lambda text: unicodedata.normalize("NFC", text)),
    "blanks": (byte_level(normalizers.Replace("  ", " ")), lambda text: text.replace("  ", " ")),
    "newlines": (byte_level(normalizers.Replace("\n", "")), lambda text: text.replace("\n", "")),
    "strip": (byte_level(normalizers.Strip()), lambda text: text.strip()),
    "unknown": (word_level(), None),
    "no fallback": (llama_like(False), None),
}


def lost(tokenizer, text: str) -> LostText:
    return lost_text(tokenizer, text, tokenizer([text], add_special_tokens=False)["input_ids"][0])


def plain_table(left: bytes, right: bytes) -> int:
    row = [0] * (len(right) + 1)
    for a in left:
        before = row[:]
        for j, b in enumerate(right):
            row[j + 1] = before[j] + 1 if a == b else max(row[j], before[j + 1])
    return row[-1]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_the_longest_common_subsequence_equals_a_plain_table(left: bytes, right: bytes) -> None:
    assert longest_common_subsequence(left, right) == plain_table(left, right)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_tokenizers_trained_here_give_back_any_text(tiny_text: list[str], kind: str) -> None:
    tokenizer = train_tokenizer(tiny_text, kind, 400)
    rng = random.Random(0)
    texts = [script.text(rng, 20) for script in SCRIPTS.values()]
    texts += [
        ENGLISH,
        " a",
        "  ",
        "\u2581x\u2581",
        "<0x41>",
        "a\r\nb\x07\u200b\x85",
        "\ufeff\U0001f642\ufe0f",
    ]
    for text in texts:
        assert lost(tokenizer, text) == LostText(), text
        assert tokenizer.unk_token_id is None or tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


@settings(max_examples=150, deadline=None)
@given(any_text)
def test_unigram_gives_back_whatever_is_written(text: str) -> None:
    tokenizer = UNIGRAM
    if not any(token in text for token in tokenizer.all_special_tokens):
        assert lost(tokenizer, text) == LostText()


UNIGRAM = train_tokenizer(["some words to learn from", "and some more of them"] * 9, "unigram", 300)


@pytest.mark.parametrize("tokenizer", [byte_level(), llama_like(True)])
def test_lossless_tokenizers_are_charged_nothing(tokenizer) -> None:
    assert lost(tokenizer, ENGLISH) == LostText()
    assert check_round_trip(tokenizer, [ENGLISH], where="base", fix="") == 0.0


@settings(max_examples=80, deadline=None)
@given(st.sampled_from([name for name in LOSSY if LOSSY[name][1]]), any_text)
def test_what_is_lost_equals_a_plain_comparison(name: str, text: str) -> None:
    tokenizer, change = LOSSY[name]
    given_back = str(tokenizer.decode(tokenizer(text)["input_ids"]))
    left_out = lost(tokenizer, text)
    if given_back in (text, f" {text}"):
        assert left_out == LostText()
        return
    common = plain_table(text.encode(), given_back.encode())
    assert left_out.num_bytes == len(text.encode()) - common
    assert left_out.nats >= 0 and (left_out.nats > 0 or given_back == "")


@pytest.mark.parametrize("name", LOSSY)
def test_no_tokenizer_wins_by_what_it_drops(name: str) -> None:
    """The charge is what a code needs that says which bytes are missing, and where."""
    tokenizer, text = LOSSY[name][0], ENGLISH * 20
    if name == "strip":
        text = "\n" * 9 + text
    left_out = lost(tokenizer, text)
    size = len(text.encode())
    assert 0 < left_out.num_bytes <= size
    entropy = -sum(p * math.log(p) for p in (left_out.num_bytes / size, 1 - left_out.num_bytes / size) if p)
    assert left_out.nats > 0.95 * (left_out.num_bytes * math.log(256) + size * entropy) - 10
    assert left_out.nats < left_out.num_bytes * 60, "harmless changes are not charged beyond their worth"


def test_what_becomes_unknown_costs_more_than_bytes_do() -> None:
    """360 bytes of Chinese that become one cheap token: 8 bits each."""
    text = "\u5370" * 120
    left_out = lost(word_level(), text)
    assert left_out.num_bytes == 360 and left_out.nats == pytest.approx(360 * math.log(256))


def test_too_much_is_refused_with_its_share_and_little_is_said() -> None:
    with pytest.raises(ModelError, match=r"cannot give back \d+\.\d% of the bytes") as refused:
        check_round_trip(word_level(), [ENGLISH], where="base", fix="take another")
    assert refused.value.where == "base" and refused.value.fix == "take another"
    share = check_round_trip(byte_level(normalizers.Lowercase()), [ENGLISH], where="base", fix="")
    assert 0 < share < 0.1 and f"{share:.2%}" in lost_sentence(share)


def test_long_texts_are_compared_piece_by_piece() -> None:
    text = (ENGLISH + " ") * 300
    tokenizer = byte_level(normalizers.Lowercase())
    capitals = sum(letter.isupper() for letter in text)
    assert lost(tokenizer, text).num_bytes == capitals


def test_a_text_of_which_most_is_unknown_is_refused() -> None:
    tokenizer = word_level()
    known = [word for word in tokenizer.get_vocab() if word.isalpha()][:3]
    texts = [f"{known[0]} zzqq zzqq zzqq"]
    assert unknown_share(tokenizer, texts) == 0.75
    with pytest.raises(ModelError, match="75% of the tokens of the held-out text are unknown") as refused:
        check_known(tokenizer, texts, where="models/base", fix="take another")
    assert refused.value.where == "models/base"
    check_known(tokenizer, [" ".join(known)], where="", fix="")
    assert unknown_share(byte_level(), texts) == 0.0
