"""Write prompts through a base's chat template: the instruction first, examples as earlier turns, and the
template's own opening of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptkit.data.chat_template import Conversation
from adaptkit.data.readers import Row
from adaptkit.errors import DataError
from adaptkit.finetune.prompt_template import SEPARATOR, Sections
from adaptkit.models.control_tokens import control_tokens, encode, encode_rendered
from adaptkit.models.stand_ins import Rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Turn = dict[str, str]
TEMPLATE_OPTIONS = {"enable_thinking": False}
"""For templates that know it: answers are short, and are compared with labels and references."""


class ChatWriter:
    """Prompts as a conversation.

    The instruction is the system's turn where the template has one, else it stands in the first turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self._has_system = has_system_turn(tokenizer)

    def text(self, sections: Sections) -> str:
        return self._prompt(turns_of(sections, self._has_system)).text

    def ids(self, sections: Sections) -> list[int]:
        rendered = self._prompt(turns_of(sections, self._has_system))
        return [token for token, _, _ in encode_rendered(self.tokenizer, rendered.text, rendered.spelt)]

    def answer(self, answer: str) -> list[int]:
        """The tokens of an answer behind the opening of its turn."""
        asked: list[Turn] = [{"role": "user", "content": "a"}]
        prompt = self._prompt(asked).text
        answered = _rendered(self.tokenizer, [*asked, {"role": "assistant", "content": answer}], prompt=False)
        start, end = len(prompt), answered.text.rfind(answer) + len(answer)
        if answered.text.startswith(prompt):
            pieces = encode_rendered(self.tokenizer, answered.text, answered.spelt)
            ids = [token for token, first, stop in pieces if first >= start and stop <= end]
            if ids:
                return ids
        return encode(self.tokenizer, [answer], special=False)[0]

    def ending(self) -> list[int]:
        end = end_of_turn(self.tokenizer)
        return [] if end is None else [end]

    def first_part(self, written: Sequence[int]) -> str:
        """An answer up to the end of its turn."""
        ids, ends = list(written), self.ending()
        if ends and ends[0] in ids:
            ids = ids[: ids.index(ends[0])]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _prompt(self, turns: Sequence[Turn]) -> Rendered:
        return _rendered(self.tokenizer, turns, prompt=True)


def turns_of(sections: Sections, has_system: bool = True) -> list[Turn]:
    """The messages of a prompt; the instruction begins the first where there is no system's turn."""
    question = sections.question
    own = [text for role, text in question.before if role == "system"]
    turns: list[Turn] = []
    for asked, answer in sections.examples:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    turns += [{"role": role, "content": text} for role, text in question.before if role != "system"]
    looked_up = f"{question.looked_up}{SEPARATOR}" if question.passages else ""
    turns.append({"role": "user", "content": looked_up + question.text})
    head = SEPARATOR.join(part for part in [sections.block, *own] if part)
    if not head:
        return turns
    if has_system:
        return [{"role": "system", "content": head}, *turns]
    first = {"role": "user", "content": f"{head}{SEPARATOR}{turns[0]['content']}"}
    return [first, *turns[1:]]


def has_system_turn(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a chat template takes a system's turn and shows what it says."""
    turns = [{"role": "system", "content": "qzsystem"}, {"role": "user", "content": "a"}]
    try:
        return "qzsystem" in _rendered(tokenizer, turns, prompt=True).text
    except DataError:
        return False


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The control token that closes an answer in the chat template; else the tokenizer's EOS."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "zebra"}]
    rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
    closing = control_tokens(tokenizer).read(rendered.rpartition("zebra")[2])
    return closing[0][0] if closing else tokenizer.eos_token_id


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, prompt: bool) -> Rendered:
    """What the template writes.

    Raises: DataError where it refuses the turns.
    """
    values = {"messages": list(turns), "chat_template_kwargs": TEMPLATE_OPTIONS}
    conversation = Conversation(Row(values, "the prompt", ""), tokenizer)  # type: ignore[arg-type]
    return conversation.restore(conversation.render(len(turns), prompt=prompt))
