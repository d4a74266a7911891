"""Count the bytes of a text that a tokenizer cannot give back, and what they cost.

    check_round_trip(tokenizer, texts, where="base", fix="...")     # before anything trains
    lost = lost_text(tokenizer, text, ids)
    lost.num_bytes, lost.nats

A model predicts tokens. Where they say less than the text did - an unknown word became <unk>, capitals became
small, line breaks became blanks - what they leave out would be predicted for nothing. So bits per byte charge
it as if it were sent beside the tokens: 8 bits for each byte that is missing, and the logarithm of the number
of ways in which the missing bytes can lie in the text, and those that the tokens add in what they give back.
With that any tokenizer describes the whole text, and none wins by what it dropped. A blank that a tokenizer
puts before every text costs nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptkit.errors import ModelError
from adaptkit.subsequence import longest_common_subsequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOST_LIMIT = 0.1
"""Share of lost bytes above which bits per byte say more about the tokenizer than about the model."""
UNKNOWN_LIMIT = 0.5
"""Share of unknown tokens above which a text is in another script than the tokenizer was made for."""
MAX_CHECKED = 4_000_000
"""Characters that a tokenizer is checked on before a training; scores look at every text."""
_PIECE = re.compile(r"(?s).{1,2000}(?<=\s)|.{1,2000}")
"""Texts that change are compared piece by piece, cut at blanks: the cost grows with the square of a piece."""


@dataclass(frozen=True)
class LostText:
    """What tokens leave out of a text.

    Attributes:
        num_bytes: UTF-8 bytes of the text that what the tokens give back lacks.
        nats: what bits per byte charge for them.
    """

    num_bytes: int = 0
    nats: float = 0.0


def lost_text(tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int]) -> LostText:
    """What the token ids of a text, without those that a tokenizer adds, leave out of it."""
    if _same(text, _given_back(tokenizer, ids)):
        return LostText()
    missing = added = num_given = 0
    for piece in _PIECE.findall(text):
        encoded = tokenizer([piece], add_special_tokens=False, return_attention_mask=False, verbose=False)
        given = _given_back(tokenizer, encoded["input_ids"][0])
        before, after = piece.encode(errors="replace"), given.encode(errors="replace")
        common = len(before) if _same(piece, given) else longest_common_subsequence(before, after)
        missing += len(before) - common
        added += max(0, len(after) - common)
        num_given += max(common, len(after))
    num_bytes = len(text.encode(errors="replace"))
    nats = missing * math.log(256) + _ways(num_bytes, missing) + _ways(num_given, added)
    return LostText(missing, nats)


def check_round_trip(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, where: str, fix: str
) -> float:
    """The share of the bytes of some texts that a tokenizer cannot give back.

    Args:
        where: the setting that the tokenizer comes from.
        fix: what to do about one that loses too much.
    Raises: ModelError above LOST_LIMIT.
    """
    num_bytes = num_lost = num_checked = 0
    for text in texts:
        encoded = tokenizer([text], add_special_tokens=False, return_attention_mask=False, verbose=False)
        num_lost += lost_text(tokenizer, text, encoded["input_ids"][0]).num_bytes
        num_bytes += len(text.encode(errors="replace"))
        num_checked += len(text)
        if num_checked >= MAX_CHECKED:
            break
    share = num_lost / max(1, num_bytes)
    if share > LOST_LIMIT:
        what = f"the tokenizer cannot give back {share:.1%} of the bytes of the held-out text"
        raise ModelError(f"{what}: bits per byte would not measure the model", where=where, fix=fix)
    return share


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> float:
    """The share of the tokens of some texts that stand for unknown text."""
    unknown = tokenizer.unk_token_id
    if unknown is None or unknown == tokenizer.eos_token_id:
        return 0.0
    num_unknown = num_tokens = num_checked = 0
    for text in texts:
        ids = tokenizer([text], add_special_tokens=False, verbose=False)["input_ids"][0]
        num_unknown += ids.count(unknown)
        num_tokens += len(ids)
        num_checked += len(text)
        if num_checked >= MAX_CHECKED:
            break
    return num_unknown / max(1, num_tokens)


def check_known(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, where: str, fix: str) -> None:
    """Refuse a tokenizer to which most of some texts is unknown: a model would learn nothing of them.

    Raises: ModelError.
    """
    share = unknown_share(tokenizer, texts)
    if share > UNKNOWN_LIMIT:
        what = f"{share:.0%} of the tokens of the held-out text are unknown to the tokenizer"
        raise ModelError(what, where=where, fix=fix)


def lost_sentence(share: float) -> str:
    """What a user is told about a share of lost bytes that is charged."""
    lost = f"the tokenizer cannot give back {share:.2%} of the bytes of the held-out text"
    return f"{lost}; bits per byte charge each of them 8 bits, and where it stood"


def _given_back(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The text that tokens stand for; an unknown one stands for none."""
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown not in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        ids = [token for token in ids if token != unknown]
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _same(text: str, given: str) -> bool:
    return given in (text, f" {text}")


def _ways(places: int, chosen: int) -> float:
    """Logarithm of the number of ways to choose among places."""
    return math.lgamma(places + 1) - math.lgamma(chosen + 1) - math.lgamma(places - chosen + 1)
