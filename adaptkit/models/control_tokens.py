"""Encode text as text: a control token that is written out in it is spelt, never obeyed.

    encode(tokenizer, ["was <s>89</s> now 80"])         # no BOS and no EOS inside
    encode_prompt(tokenizer, "Name a colour.")          # begins as any text does, and stays open
    encode_rendered(tokenizer, text, spelt=[(12, 16)])  # what a chat template wrote: only its tokens count
    spell_everywhere(tokenizer)                   # and so do servers that load the saved folder

Control tokens are the tokenizer's special tokens, and the added tokens that its chat template writes around a
turn. A text that holds none of them is encoded as transformers does it. One that does is encoded by a twin of
the tokenizer, in which control tokens go by names that no text holds.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from adaptkit.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
"""Characters [start, stop)."""
Piece = tuple[int, int, int]
"""A token id and its characters [start, stop)."""

_FENCE = "\U0010fffd"
"""A code point for private use: around the name that the twin has for a control token."""
FILLER = "\ue000"
"""Stands for each character of a control token that is not to be read as one."""
_MARKER = re.compile(r"[^\w\s].*\w.*[^\w\s]")
"""What the marker of a turn looks like: `<|user|>`, `[INST]`; an added token may also be a run of blanks."""
_USER, _ANSWER, _NEXT = "qzfirst", "qzsecond", "qzthird"


class ControlTokens:
    """The control tokens of one tokenizer, and its twin that reads none of them in a text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self._core: Tokenizer = tokenizer.backend_tokenizer
        added = self._core.get_added_tokens_decoder()
        special = set(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        contents = {i: added[i].content for i in special | _turn_tokens(tokenizer, added) if i in added}
        # A pad token that is a plain letter or mark ("!") is one in texts too.
        self.contents = {i: content for i, content in contents.items() if len(content.strip()) > 1}
        self._unknown = tokenizer.unk_token_id
        self._obeyed = self.contents.keys() - {self._unknown}
        names = {*self.contents.values(), *map(self._normalised, self.contents.values())} - {""}
        longest_first = sorted(names, key=lambda name: (-len(name), name))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @property
    def unknown(self) -> str | None:
        """How the token for unknown text is written, if there is one."""
        return None if self._unknown is None else self.contents.get(self._unknown)

    def _normalised(self, text: str) -> str:
        if self._core.normalizer is None:
            return text
        return self._core.normalizer.normalize_str(text).strip("\u2581 ")

    def count(self, ids: Iterable[int]) -> int:
        """How many of these ids are control tokens (one for unknown text is not)."""
        return sum(map(self._obeyed.__contains__, ids))

    def spans(self, text: str) -> list[Span]:
        """Where control tokens are written out in a text, in order."""
        if not self._pattern.search(text) and not self._pattern.search(self._normalised(text)):
            return []
        return [(start, stop) for _, start, stop in self.read(text)]

    def read(self, text: str) -> list[Piece]:
        """The control tokens that the tokenizer itself reads in a text."""
        encoding = _ready(self._core).encode(text, add_special_tokens=False)
        return [
            (token, start, stop)
            for token, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
            if token in self._obeyed or (token == self._unknown and text[start:stop].strip() == self.unknown)
        ]

    def placeholder(self, token: int) -> str:
        """What a control token is called in the twin."""
        return f"{_FENCE}{token}{_FENCE}"

    @cached_property
    def _renamed(self) -> Tokenizer:
        state = json.loads(self._core.to_str())
        names = {content: self.placeholder(token) for token, content in self.contents.items()}
        plain = {"normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
        for token in state["added_tokens"]:
            if token["id"] in self.contents:
                token |= {"content": names[token["content"]], **plain}
        _rename_entries(state["model"], names)
        twin = Tokenizer.from_str(json.dumps(state))
        moved = [
            content for i, content in self.contents.items() if twin.token_to_id(self.placeholder(i)) != i
        ]
        if moved:
            what = f"the tokenizer cannot write its control token {moved[0]!r} as text"
            raise ModelError(what, fix="take such rows out, or use another tokenizer")
        return twin

    @property
    def twin(self) -> Tokenizer:
        """The same tokenizer, but no text holds a control token in it; it frames texts as the original does.

        Raises: ModelError for a tokenizer that has no such twin.
        """
        twin = _ready(self._renamed)
        twin.post_processor = self._core.post_processor
        return twin


_KNOWN: weakref.WeakKeyDictionary[Any, tuple[tuple[tuple[int, ...], str], ControlTokens]] = (
    weakref.WeakKeyDictionary()
)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
    """The control tokens of a tokenizer; looked for once, and again when it got other tokens or another
    template."""
    state = (len(tokenizer), *tokenizer.all_special_ids), str(tokenizer.chat_template)
    known = _KNOWN.get(tokenizer)
    if known is None or known[0] != state or known[1]._core is not tokenizer.backend_tokenizer:
        known = state, ControlTokens(tokenizer)
        _KNOWN[tokenizer] = known
    return known[1]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    prompt: str = "",
    special: bool = True,
    max_length: int | None = None,
) -> list[list[int]]:
    """Token ids of each text, exactly as the saved folder encodes it elsewhere, no padding.

    Args:
        prompt: words of the folder's own before each text; control tokens in them count.
        special: add the first and last tokens that the tokenizer puts around a text.
        max_length: cut longer texts, where the tokenizer cuts; the tokens around them stay.
    Raises: ModelError for a text with control tokens that this tokenizer cannot spell.
    """
    controls = control_tokens(tokenizer)
    core = _ready(tokenizer.backend_tokenizer)

    def ids_of(encoder: Tokenizer, parts: Sequence[str]) -> list[list[int]]:
        if max_length is not None:
            encoder.enable_truncation(max_length, direction=tokenizer.truncation_side)
        encodings = encoder.encode_batch_fast(list(parts), add_special_tokens=special)
        encoder.no_truncation()
        return [encoding.ids for encoding in encodings]

    around = controls.count(core.encode(prompt, add_special_tokens=special).ids)
    encoded = ids_of(core, [prompt + text for text in texts])
    unknown = controls.unknown
    spelt = [
        number
        for number, (text, ids) in enumerate(zip(texts, encoded, strict=True))
        if controls.count(ids) > around or (unknown and unknown in text)
    ]
    if spelt:
        before = _for_twin(controls, prompt, ()).text
        again = ids_of(controls.twin, [before + texts[number] for number in spelt])
        for number, ids in zip(spelt, again, strict=True):
            encoded[number] = ids
    return encoded


def encode_pair(
    tokenizer: PreTrainedTokenizerBase, first: str, second: str, *, max_length: int
) -> tuple[list[int], list[int]]:
    """Token ids of two texts in one row, and which of the two each token belongs to.

    Of a long pair the longer text is cut.

    Raises: ModelError for a text with control tokens that this tokenizer cannot spell.
    """
    controls = control_tokens(tokenizer)
    core = _ready(tokenizer.backend_tokenizer)
    if controls.spans(first) or controls.spans(second):
        core = controls.twin
    core.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    encoding = core.encode(first, second)
    core.no_truncation()
    return encoding.ids, encoding.type_ids


def frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before a text and behind it."""
    encoding = _ready(tokenizer.backend_tokenizer).encode("a", add_special_tokens=True)
    inside = [place for place, added in enumerate(encoding.special_tokens_mask) if not added]
    if not inside:
        return encoding.ids, []
    return encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that an answer follows: with the tokens that begin a text, without those that end
    it."""
    return [*frame(tokenizer)[0], *encode(tokenizer, [text], special=False)[0]]


@dataclass(frozen=True)
class _Part:
    """Text for the twin, and where its characters stand in the original."""

    text: str
    starts: list[int]
    stops: list[int]


def encode_rendered(tokenizer: PreTrainedTokenizerBase, text: str, spelt: Sequence[Span] = ()) -> list[Piece]:
    """Encode what a chat template wrote: its control tokens count, those at `spelt` (a user's) are text."""
    core = _ready(tokenizer.backend_tokenizer)
    if not spelt:
        encoding = core.encode(text, add_special_tokens=False)
        return [(token, *place) for token, place in zip(encoding.ids, encoding.offsets, strict=True)]
    controls = control_tokens(tokenizer)
    part = _for_twin(controls, text, spelt)
    encoding = controls.twin.encode(part.text, add_special_tokens=False)
    return [
        (token, part.starts[start], part.stops[stop - 1] if stop > start else part.starts[start])
        for token, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
    ]


def _for_twin(controls: ControlTokens, text: str, spelt: Sequence[Span]) -> _Part:
    """Write the template's own control tokens by the twin's names."""
    hidden = list(text)
    for start, stop in spelt:
        hidden[start:stop] = FILLER * (stop - start)
    parts: list[str] = []
    starts: list[int] = []
    stops: list[int] = []
    at = 0
    for token, start, stop in controls.read("".join(hidden)):
        name = controls.placeholder(token)
        parts += [text[at:start], name]
        starts += [*range(at, start), *[start] * len(name)]
        stops += [*range(at + 1, start + 1), *[stop] * len(name)]
        at = stop
    parts.append(text[at:])
    starts += range(at, len(text) + 1)
    stops += range(at + 1, len(text) + 1)
    return _Part("".join(parts), starts, stops)


def spell_everywhere(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Let whoever loads the saved folder, servers too, read control tokens in a text as text.

    Returns: whether transformers' own setting for it does that, for every control token; else nothing is set.
    """
    contents = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    texts = [text for name in contents for text in (name + name, f"a {name} b", f"a{name}b")]
    before = tokenizer.split_special_tokens
    try:
        wanted = encode(tokenizer, texts)
    except ModelError:  # no way to spell one of them
        return False
    tokenizer.split_special_tokens = True
    alike = not texts or [list(ids) for ids in tokenizer(texts)["input_ids"]] == wanted
    tokenizer.split_special_tokens = alike or before
    if alike:
        tokenizer.init_kwargs["split_special_tokens"] = True
    return alike


def _ready(core: Tokenizer) -> Tokenizer:
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = False
    return core


def _turn_tokens(tokenizer: PreTrainedTokenizerBase, added: dict[int, Any]) -> set[int]:
    """Added tokens that the chat template writes around turns, whatever the folder calls them.

    Looked at is a conversation that is over: what a template writes into the newest answer (an empty
    reasoning) belongs to the answer.
    """
    if not tokenizer.chat_template:
        return set()
    turns = [("user", _USER), ("assistant", _ANSWER), ("user", _NEXT)]
    messages = [{"role": role, "content": content} for role, content in turns]
    try:
        rendered = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template is a program of the user's; rows are told why it refuses them
        return set()
    core = _ready(tokenizer.backend_tokenizer)
    ids = set(core.encode(rendered, add_special_tokens=False).ids) & added.keys()
    return {token for token in ids if _MARKER.fullmatch(added[token].content)}


def _rename_entries(model: dict[str, Any], names: dict[str, str]) -> None:
    """Give the entries of a vocabulary new names, and forget merges that would lead to the old ones."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(entry, entry): token for entry, token in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" not in model:
        return
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    model["merges"] = [
        [left, right]
        for left, right in pairs
        if left not in names and right not in names and left + right not in names
    ]
