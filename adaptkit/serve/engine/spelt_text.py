"""Let vLLM take control tokens that its users write for text, as training does: they are spelt, not obeyed.

    install()       # before vLLM's command line is loaded

vLLM 0.32 writes messages by the chat template and encodes the whole alike, so that `<|im_end|>` in a user's
words ends the user's turn. Here words that spell a control token go through the template as stand-ins and are
encoded letter by letter; what the template writes counts as before. So it is with the prompts of a model that
has no chat template. A prompt for a model that has one is the caller's own template: its control tokens
count. Requests that spell none take vLLM's own way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from adaptkit.errors import AdaptkitError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NO_WORDS = ("chat_template", "tokenize")
"""Arguments of vLLM's rendering that hold nothing of a user's."""
Render = Callable[..., Any]


class SpellingTokenizer:
    """A folder's tokenizer for this use alone: vLLM's must not be changed while it is used."""

    def __init__(self, folder: str):
        self._folder, self._lock = folder, threading.Lock()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerFast:
        from adaptkit.models import load_tokenizer

        return load_tokenizer(self._folder)

    def render(self, write: Render, conversation: Any, settings: dict[str, Any]) -> list[int] | None:
        """Token ids of messages whose words spell a control token; None where they spell none.

        Args:
            write: gives what the chat template makes of (messages, settings), as text.
        Raises: AdaptkitError for words that the template rewrites, or that the tokenizer cannot spell.
        """
        from adaptkit.models.control_tokens import encode_rendered
        from adaptkit.models.stand_ins import StandIns

        words = {name: value for name, value in settings.items() if name not in NO_WORDS}
        with self._lock:
            stand_ins = StandIns(self._tokenizer, [conversation, words])
            if not stand_ins:
                return None
            hidden, others = stand_ins.put(conversation), stand_ins.put(words)
        text = write(hidden, {**settings, **others, "tokenize": False})
        rendered = stand_ins.restore(text, "messages")
        with self._lock:
            return [token for token, *_ in encode_rendered(self._tokenizer, rendered.text, rendered.spelt)]

    def encode(self, text: str, special: bool, max_length: int | None) -> list[int] | None:
        """Token ids of a prompt that spells a control token, for a model without a chat template; else None.

        Raises: AdaptkitError where the tokenizer cannot spell it.
        """
        from adaptkit.models.control_tokens import control_tokens, encode

        with self._lock:
            if self._tokenizer.chat_template or not control_tokens(self._tokenizer).spans(text):
                return None
            return encode(self._tokenizer, [text], special=special, max_length=max_length)[0]


@cache
def _spelling(folder: str) -> SpellingTokenizer:
    return SpellingTokenizer(folder)


def install() -> None:
    """Let vLLM's renderers ask for the token ids of such words here."""
    from vllm.exceptions import VLLMValidationError
    from vllm.renderers import hf
    from vllm.renderers.base import BaseRenderer

    hf.safe_apply_chat_template = rendering(hf.safe_apply_chat_template, VLLMValidationError)
    BaseRenderer._tokenize_prompt = tokenizing(BaseRenderer._tokenize_prompt, VLLMValidationError)


def rendering(render: Render, refusal: type[Exception]) -> Render:
    """vLLM's `safe_apply_chat_template`, for models that write; `refusal` becomes a 400."""

    def render_spelt(model_config: Any, tokenizer: Any, conversation: Any, **settings: Any) -> Any:
        def write(messages: Any, changed: dict[str, Any]) -> str:
            return str(render(model_config, tokenizer, messages, **changed))

        ids = None
        if model_config.runner_type == "generate":
            spelling = _spelling(str(model_config.tokenizer))
            ids = _or_refuse(refusal, lambda: spelling.render(write, conversation, settings))
        return render(model_config, tokenizer, conversation, **settings) if ids is None else ids

    return render_spelt


def tokenizing(tokenize: Render, refusal: type[Exception]) -> Render:
    """vLLM's `_tokenize_prompt`, for models that write; `refusal` becomes a 400."""

    def tokenize_spelt(self: Any, prompt: Any, params: Any) -> Any:
        ids = None
        if self.model_config.runner_type == "generate":
            spelling, options = _spelling(str(self.model_config.tokenizer)), params.get_encode_kwargs()
            max_length = options["max_length"] if options["truncation"] else None
            special = options["add_special_tokens"]
            ids = _or_refuse(refusal, lambda: spelling.encode(prompt["prompt"], special, max_length))
        return tokenize(self, prompt, params) if ids is None else self._build_tokens_prompt(ids, prompt)

    return tokenize_spelt


def _or_refuse(refusal: type[Exception], encode: Callable[[], list[int] | None]) -> list[int] | None:
    try:
        return encode()
    except AdaptkitError as error:
        raise refusal(f"{error.what}: {error.fix}") from error
