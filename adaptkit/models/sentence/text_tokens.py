"""Turn texts into tokens as a folder's layout says: prompt, lower case, chat template, cut at the end.

One answer for training, encoding and export. A control token that is written out in a text is text; in the
prompt, which is the folder's own, it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import normalizers

from adaptkit.errors import ModelError
from adaptkit.models.control_tokens import encode, encode_rendered
from adaptkit.models.sentence.layout import Layout
from adaptkit.models.sentence.text_settings import ChatText
from adaptkit.models.stand_ins import StandIns


def token_ids(tokenizer: Any, layout: Layout, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
    """Ids of each text with `prompt` before it, special tokens included, cut to `layout.max_length`."""
    if not texts:
        return []
    if layout.chat is not None:
        return _in_chat(tokenizer, layout.chat, texts, prompt, layout.max_length)
    return encode(tokenizer, texts, prompt=prompt, max_length=layout.max_length)


def prompt_length(tokenizer: Any, layout: Layout, prompt: str) -> int:
    """First tokens of a text that are its prompt's, BOS included; 0 where pooling takes these in."""
    if layout.include_prompt or layout.chat is not None or not prompt:
        return 0
    ids = token_ids(tokenizer, layout, [prompt])[0]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def lower_cased(tokenizer: Any) -> Any:
    """The tokenizer, which lower-cases texts first; special tokens written in them stay what they are."""
    backend = tokenizer.backend_tokenizer
    present: Any = backend.normalizer
    steps: list[Any] = []
    if type(present) is normalizers.Sequence:
        steps = [present[place] for place in range(len(present))]
    elif present is not None:
        steps = [present]
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
    return tokenizer


def check_token_types(tokenizer: Any, where: str) -> None:
    """Raises: ModelError for a tokenizer that tells the parts of a single text apart (XLNet)."""
    if "token_type_ids" in tokenizer.model_input_names and any(tokenizer("a").get("token_type_ids") or ()):
        what = "the tokenizer marks tokens of one text by several types, which is not supported here"
        raise ModelError(what, where=where, fix="choose another base")


def _in_chat(
    tokenizer: Any, chat: ChatText, texts: Sequence[str], prompt: str, max_length: int
) -> list[list[int]]:
    def ids_of(contents: Sequence[str], **cut: Any) -> list[list[int]]:
        talks = [_messages(chat, text, prompt) for text in contents]
        encoded = tokenizer.apply_chat_template(talks, tokenize=True, return_dict=True, **cut, **chat.options)
        return [list(ids) for ids in encoded["input_ids"]]

    encoded = ids_of(texts, truncation=True, max_length=max_length, padding=False)
    for number, text in enumerate(texts):
        if stand_ins := StandIns(tokenizer, text):
            encoded[number] = _spelt_in_chat(tokenizer, chat, text, prompt, stand_ins, max_length)
    if not chat.restores_end or all(len(ids) < max_length for ids in encoded):
        return encoded
    end = _common_end(*ids_of(["0", "1 2 3 4"]))
    for ids in encoded:
        keep = min(len(end), len(ids))
        if len(ids) >= max_length and keep:
            ids[-keep:] = end[-keep:]
    return encoded


def _spelt_in_chat(
    tokenizer: Any, chat: ChatText, text: str, prompt: str, stand_ins: StandIns, max_length: int
) -> list[int]:
    """Ids of a text that spells control tokens: those that the template writes count, its own do not."""
    talk = _messages(chat, stand_ins.put(text), prompt)
    rendered = stand_ins.restore(
        str(tokenizer.apply_chat_template(talk, tokenize=False, **chat.options)), "a text to encode"
    )
    ids = [token for token, _, _ in encode_rendered(tokenizer, rendered.text, rendered.spelt)]
    if tokenizer.truncation_side == "left":
        return ids[-max_length:]
    return ids[:max_length]


def _messages(chat: ChatText, text: str, prompt: str) -> list[dict[str, Any]]:
    def content(words: str) -> Any:
        if chat.structured:
            return [{"type": "text", "text": words}]
        return words

    talk = [{"role": "user", "content": content(text)}]
    if prompt:
        talk.insert(0, {"role": "system", "content": content(prompt)})
    return talk


def _common_end(first: list[int], second: list[int]) -> list[int]:
    """What the template puts behind every text."""
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    if count >= min(len(first), len(second)):
        return []
    return first[len(first) - count :]
