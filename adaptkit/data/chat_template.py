"""Write a row's messages as the tokenizer's own chat template writes them, and find the answers in it.

Everything that a row holds goes to the template: tools, calls, reasoning, names. What the template leaves out
is refused by its name, since a model would be taught something else than the row says. Control tokens in the
row's own words are marked, so that they are encoded as text.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from adaptkit.data.message_fields import NAMES_ONLY, Message, content_texts, is_plain, taught_turns
from adaptkit.data.readers import Row
from adaptkit.errors import DataError
from adaptkit.models.control_tokens import Span
from adaptkit.models.stand_ins import Rendered, StandIns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Names that a message's reasoning goes by; a template knows one of them."""
_ACCEPTED: weakref.WeakKeyDictionary[Any, set[tuple[Any, ...]]] = weakref.WeakKeyDictionary()
"""For each tokenizer, its templates and the shapes of plain conversations that they render whole."""


class Conversation:
    """The messages of one row, as a chat template takes them.

    Attributes:
        messages: with a stand-in for each control token that is written out in them; `restore` undoes it.
        taught: where the assistant's turns stand that are taught.
    Raises: DataError at the row's place for what its template leaves out or refuses.
    """

    def __init__(self, row: Row, tokenizer: PreTrainedTokenizerFast):
        self.where, self._tokenizer = row.where, tokenizer
        if not tokenizer.chat_template:
            fix = "train the tokenizer with a chat template, set one, or give prompt and completion"
            raise DataError(
                "a conversation, but the tokenizer has no chat template", where=row.where, fix=fix
            )
        messages = _messages_of(row)
        self.taught = taught_turns(messages)
        messages = [{k: v for k, v in message.items() if k != "weight"} for message in messages]
        if not _reads_parts(tokenizer, messages):
            messages = [{**message, "content": "\n".join(content_texts(message))} for message in messages]
        self._inputs: dict[str, Any] = {
            name: row.values[name] for name in ("tools", "documents") if name in row.values
        }
        self._options = dict(row.values.get("chat_template_kwargs", {}))
        self._stand_ins = StandIns(tokenizer, [messages, self._inputs])
        self.messages: list[Message] = self._stand_ins.put(messages)
        self._inputs = self._stand_ins.put(self._inputs)

    def render(self, stop: int, prompt: bool = False) -> str:
        """The first `stop` messages; with `prompt`, what opens the assistant's turn behind them.

        Raises: DataError if the template refuses them.
        """
        return self._write(self.messages[:stop], self._inputs, prompt)

    def answer_span(self, turn: int, text: str) -> Span | None:
        """The characters of `text` that the model writes in this turn; None if it is rendered otherwise
        there."""
        if turn == 0:
            fix = 'give its first message "weight": 0, or begin with a user\'s message'
            raise DataError("the conversation begins with an answer", where=self.where, fix=fix)
        before, after = self.render(turn, prompt=True), self.render(turn + 1)
        if not (text.startswith(after) and after.startswith(before)):
            return None
        return len(before), len(after.rstrip())  # blanks after the closing token are never generated

    def restore(self, text: str) -> Rendered:
        """The rendered text in the row's own words."""
        return self._stand_ins.restore(text, self.where)

    def check(self) -> None:
        """Raises: DataError naming what the template leaves out."""
        stop = self.taught[-1] + 1
        accepted = _ACCEPTED.setdefault(self._tokenizer, set())
        shown = self.messages[:stop]
        shape = (str(self._tokenizer.chat_template), *((m["role"], bool(m["content"])) for m in shown))
        plain = not self._inputs and not self._options and all(map(is_plain, shown))
        if plain and shape in accepted:
            return  # texts alone make no difference: each is looked for under another word
        self._check_contents(shown)
        for name in self._inputs:
            self._check_input(name, stop)
        for number, message in enumerate(shown):
            for name in sorted(message.keys() - {"role", "content", *NAMES_ONLY}):
                self._check_field(number, name)
        if plain:
            accepted.add(shape)

    def _write(self, messages: list[Message], inputs: dict[str, Any], prompt: bool = False) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=prompt, **inputs, **self._options
            )
        except Exception as error:  # a template is a program of the user's: it may fail in any way
            fix = "order the turns as the template expects, or use another template"
            what = f"the chat template refuses this conversation: {error}"
            raise DataError(what, where=self.where, fix=fix) from None
        return str(text)

    def _check_contents(self, messages: list[Message]) -> None:
        """Write every text as a word of its own, and look for all of these words."""
        marked: list[Message] = []
        places: dict[str, int] = {}
        for number, message in enumerate(messages):
            parts = content_texts(message)
            words = [f"qz{number}x{place}w" if part else "" for place, part in enumerate(parts)]
            places |= {word: number for word in words if word}
            content: Any = words[0]
            if isinstance(message["content"], list):
                content = [{"type": "text", "text": word} for word in words]
            marked.append({**message, "content": content})
        try:
            text = self._write(marked, self._inputs).lower()
        except DataError:
            return  # it looks at the words themselves: they were accepted
        for word, number in places.items():
            if word not in text:
                role = messages[number]["role"]
                raise self._left_out(f"message {number + 1} (role {role}) is", "the message")

    def _check_input(self, name: str, stop: int) -> None:
        values = self._inputs[name]
        named = [_names_marked(value, f"qz{number}w") for number, value in enumerate(values)]
        try:
            text = self._write(self.messages[:stop], {**self._inputs, name: named})
        except DataError:
            return
        if any(f"qz{number}w" not in text for number in range(len(values))):
            raise self._left_out(f"'{name}' is", f"'{name}'")

    def _check_field(self, number: int, name: str) -> None:
        """Compare with the same messages without the field, as far as the model reads when it counts."""
        message = self.messages[number]
        if name == "name" and message["role"] == "tool" and self._is_answer(number):
            return  # it says again which call this answers
        if self._shows(number, name, message):
            return
        for other in REASONING if name in REASONING else ():
            renamed = {key: value for key, value in message.items() if key != name} | {other: message[name]}
            if self._shows(number, other, renamed):
                self.messages[number] = renamed
                return
        raise self._left_out(f"'{name}' of message {number + 1} is", f"'{name}'")

    def _is_answer(self, number: int) -> bool:
        calls = [call for message in self.messages[:number] for call in message.get("tool_calls", ())]
        names = {call.get("function", call)["name"] for call in calls}
        return self.messages[number]["name"] in names

    def _shows(self, number: int, name: str, message: Message) -> bool:
        """Whether the template writes another text for this message than for one without the field."""
        before = self.messages[:number]
        without = {key: value for key, value in message.items() if key != name}
        try:
            bare = self._write([*before, without], self._inputs)
        except DataError:
            return True
        if name != "tool_calls":
            return self._write([*before, message], self._inputs) != bare
        marks = [f"qz{place}w" for place in range(len(message[name]))]
        calls = [_names_marked(call, mark) for call, mark in zip(message[name], marks, strict=True)]
        text = self._write([*before, {**message, name: calls}], self._inputs)
        emptied = [_without_arguments(call) for call in message[name]]
        full = self._write([*before, message], self._inputs)
        shows_arguments = emptied == message[name] or full != self._write(
            [*before, {**message, name: emptied}], self._inputs
        )
        return all(mark in text for mark in marks) and shows_arguments

    def _left_out(self, what: str, field: str) -> DataError:
        fix = f"use a base whose chat template renders {field}, or take {field} out of the rows"
        return DataError(f"{what} left out by the chat template", where=self.where, fix=fix)


def _messages_of(row: Row) -> list[Message]:
    if "messages" in row.values:
        messages: list[Message] = row.values["messages"]
        return messages
    answer = row.values.get("completion", "-")
    return [{"role": "user", "content": row.values["prompt"]}, {"role": "assistant", "content": answer}]


def _names_marked(value: Any, mark: str) -> Any:
    """A tool, call or document under another name."""
    if not isinstance(value, dict):
        return mark
    if isinstance(value.get("function"), dict):
        return {**value, "function": {**value["function"], "name": mark}}
    names = [name for name in ("name", "text", "content", "contents", "title") if name in value]
    return {**value, names[0]: mark} if names else value


def _without_arguments(call: Message) -> Message:
    inner = call.get("function", call)
    if not inner.get("arguments"):
        return call
    emptied = {**inner, "arguments": {}}
    return {**call, "function": emptied} if "function" in call else emptied


def _reads_parts(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> bool:
    """Whether the template takes content in parts as it takes the same text; asked where there are parts."""
    if all(isinstance(message["content"], str) for message in messages):
        return True
    written = []
    contents: tuple[Any, ...] = ("qztext", [{"type": "text", "text": "qztext"}])
    for content in contents:
        try:
            turn = [{"role": "user", "content": content}]
            written.append(tokenizer.apply_chat_template(turn, tokenize=False))
        except Exception:  # a template that adds texts fails on a list
            return False
    return written[0] == written[1]
