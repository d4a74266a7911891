"""What a model can be used for, asked before anything trains: one table for all commands.

    base = capabilities("models/base")
    base.check(Use.CONTINUE, adapter)          # ModelError: one sentence of why not, and what to do
    base.why_not(Use.PROMPT)                   # the same as a value; None where it works
    base.fitting(config.max_length, "max_length", chosen=True)

Facts come from the folder's files. What no file says is tried on a small random twin of the model (`twin`),
so an architecture that nobody has thought of is answered for too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch

from adaptkit.adapters import AdapterConfig
from adaptkit.errors import ConfigError, ModelError, first_line
from adaptkit.model_uses import Use
from adaptkit.models import twin
from adaptkit.models.fixed_vocabulary import why_fixed
from adaptkit.models.folder import (
    ENCODER_DECODER,
    ENCODER_DECODER_FIX,
    QUANTISED_FIX,
    Kind,
    find,
    has_own_encoder,
    is_encoder_decoder,
    model_kind,
    quantised_already,
    quantised_by,
)
from adaptkit.models.load_checks import check_finite, stored_weights
from adaptkit.models.own_tokens import own_tokens
from adaptkit.models.positions import usable_positions
from adaptkit.models.sentence.layout import read_layout
from adaptkit.models.store import has_form, load, load_tokenizer, quiet, read_config
from adaptkit.weight_files import AGAIN, check_weight_files, read_json_object

Form = Literal["causal", "masked", "classifier", "tagger", "encoder", "encoder-decoder"]
PRUNABLE = ("bert", "modernbert", "llama", "qwen3")
"""transformers' model types whose blocks can be copied into a student; servers run all of them."""
ROW_LENGTH = 256
"""Tokens of the row that two documents are tried in; windows of attention are rarely longer."""


WRITES = (Use.LABEL_WORDS, Use.SFT, Use.WRITE, Use.SCORE)
LANGUAGE_MODEL = (Use.CONTINUE, Use.PROMPT, *WRITES)


@dataclass(frozen=True)
class Capabilities:
    """What a folder holds, and what follows from it.

    Attributes:
        folder: where it lies.
        form: what its weights were saved as.
        config: transformers' config.
        positions: tokens that it can read at once; None where nothing ends them.
        quantised: what its weights are quantised by; empty for whole weights.
        without_row: tokens of its tokenizer that the model has no embedding for.
        has_mask, has_start, has_end: whether the tokenizer names a mask token, a token that a document begins
            with, and one that ends a text.
        unanswered: why its chat template writes no question with its answer; empty where there is no reason.
        broken: what is wrong with the files for any use; None where nothing is.
        hold_weights: hold the weights to what a use needs of them too.
    """

    folder: Path
    form: Form
    config: Any = None
    positions: int | None = None
    quantised: str = ""
    without_row: tuple[str, ...] = ()
    has_mask: bool = False
    has_start: bool = False
    has_end: bool = False
    unanswered: str = ""
    broken: ModelError | None = None
    hold_weights: bool = False
    _lacking: dict[Kind, ModelError | None] = field(default_factory=dict, compare=False, repr=False)

    def check(self, use: Use, adapter: AdapterConfig | None = None) -> None:
        """Raises: ModelError where the model cannot be used so, with all weights or by an adapter."""
        refusal = self.why_not(use, adapter)
        if refusal is not None:  # a new one: answers are kept, and a raised error keeps its frames alive
            raise ModelError(refusal.what, where=refusal.where, fix=refusal.fix)

    def why_not(self, use: Use, adapter: AdapterConfig | None = None) -> ModelError | None:
        """Why the model cannot be used so, and what to do; None where it can."""
        if use is Use.EXTEND:
            return self.why_not(Use.CONTINUE, adapter) or self._fixed_vocabulary()
        refusal = self.broken or self._by_files(use)
        if refusal is not None or use is Use.SERVE:
            return refusal
        refusal = _tried(_Question(self, use, adapter)) or self._by_weights(_head(self.form, use))
        return self._by_layout() if refusal is None and use is Use.EMBED else refusal

    def fitting(self, length: int, where: str, *, chosen: bool) -> int:
        """`length` if the model has so many positions, else as many as it has.

        Raises: ConfigError for a length that the user has chosen.
        """
        if self.positions is None or length <= self.positions:
            return length
        if not chosen:
            return self.positions
        what = f"{length} tokens, and {self.folder.name} has {self.positions} positions"
        raise ConfigError(what, where=where, fix=f"set {where}={self.positions} or less")

    def _by_files(self, use: Use) -> ModelError | None:
        if self.form == "encoder-decoder" and not (
            use is Use.EMBED and has_own_encoder({"model_type": self.config.model_type})
        ):
            return self._refusal(ENCODER_DECODER, ENCODER_DECODER_FIX)
        if self.quantised and use is not Use.SERVE:
            return self._refusal(quantised_already(self.quantised), QUANTISED_FIX)
        if self.without_row:
            return self._refusal(*_no_rows(self.without_row))
        if use in LANGUAGE_MODEL and self.form in ("classifier", "tagger"):
            return self._refusal(
                "holds a classifier, not a language model", "choose the model it was made from"
            )
        if use in WRITES and self.form != "causal":
            what = f"holds a {self.form} model, and {use} needs a causal one"
            return self._refusal(what, "choose a base that is a causal language model, or kind=classify")
        if use in (Use.CONTINUE, Use.PROMPT) and self.form in ("masked", "encoder") and not self.has_mask:
            return self._refusal("the tokenizer names no mask token", "choose a base with [MASK]")
        if use in (Use.CONTINUE, Use.SCORE, Use.EXPORT) and self.form == "causal" and not self.has_start:
            what = "the tokenizer names no BOS, CLS or EOS token to begin a document with"
            return self._refusal(what, "set bos_token in its tokenizer_config.json")
        if use is Use.SFT and not self.has_end:
            fix = "set eos_token in its tokenizer_config.json"
            return self._refusal(
                "the tokenizer names no token that ends a text: answers would never end", fix
            )
        if use in (Use.LABEL_WORDS, Use.SFT) and self.unanswered:
            fix = "put the template there that the model was published with, or take it out of the folder"
            return self._refusal(f"its chat template {self.unanswered}", fix)
        if use is Use.DISTILL and self.config.model_type not in PRUNABLE:
            what = f"a student of the shape '{self.config.model_type}' is not served"
            return self._refusal(
                f"{what}: only {', '.join(PRUNABLE)} are",
                "use student.start=fresh, which makes a Llama or a ModernBERT",
            )
        return None

    def _by_weights(self, kind: Kind) -> ModelError | None:
        """Why no model of this kind can be loaded: weights that the folder lacks, or of other shapes."""
        if not self.hold_weights or self.quantised:
            return None
        if kind not in self._lacking:
            self._lacking[kind] = None
            try:
                load(self.folder, kind, new_head=kind == "masked", names_only=True)
            except ModelError as error:
                self._lacking[kind] = self._refusal(error.what, error.fix or AGAIN)
        return self._lacking[kind]

    def _by_layout(self) -> ModelError | None:
        """Why an encoder's own files (pooling, prompts) cannot be followed."""
        try:
            read_layout(self.folder, self.config, load_tokenizer(self.folder))
        except ModelError as error:
            return error
        return None

    def _fixed_vocabulary(self) -> ModelError | None:
        """Why no entries can be added to its vocabulary."""
        fixed = why_fixed(load_tokenizer(self.folder))
        return None if fixed is None else self._refusal(*fixed)

    def _refusal(self, what: str, fix: str) -> ModelError:
        return ModelError(what, where=str(self.folder), fix=fix)


def capabilities(path: str | Path, *, read_weights: bool = False) -> Capabilities:
    """What the model of a folder or hub id can be used for.

    Args:
        read_weights: also look for values that are no numbers, and for weights that a use lacks;
            `models.load` does so by itself.
    Raises: ModelError where there is no such folder, or its config cannot be read.
    """
    folder = find(path)
    raw = read_json_object(folder, "config.json")
    form: Form = "encoder-decoder" if is_encoder_decoder(raw) else model_kind(folder)
    quantised = quantised_by(raw)
    try:
        check_weight_files(folder)
        if read_weights and not quantised:
            check_finite(stored_weights(folder), str(folder))
        config = read_config(folder)
        tokenizer = load_tokenizer(folder)
    except ModelError as error:
        return Capabilities(folder, form, broken=error)
    rows = config.get_text_config().vocab_size
    unknown = {token for token, number in own_tokens(folder, tokenizer).items() if number >= rows}
    return Capabilities(
        folder,
        form,
        config=config,
        positions=usable_positions(config),
        quantised=quantised,
        without_row=tuple(sorted(unknown)),
        has_mask=tokenizer.mask_token is not None,
        has_start=any((tokenizer.bos_token, tokenizer.cls_token, tokenizer.eos_token)),
        has_end=tokenizer.eos_token is not None or tokenizer.sep_token is not None,
        unanswered=_unanswered(tokenizer),
        hold_weights=read_weights,
    )


def _unanswered(tokenizer: Any) -> str:
    """What a chat template does to a question with its answer, where it does not write both."""
    if not tokenizer.chat_template:
        return ""
    words = {"user": "qzquestion", "assistant": "qzanswer"}
    turns = [{"role": role, "content": word} for role, word in words.items()]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False)).lower()
    except Exception as error:  # a template is a program of the user's
        return f"refuses a question with its answer: {first_line(error)}"
    left_out = [role for role, word in words.items() if word not in text]
    return f"leaves out what the {left_out[0]} says" if left_out else ""


def _no_rows(tokens: tuple[str, ...]) -> tuple[str, str]:
    """(what, fix) for tokens that a tokenizer gives and the model has no embedding for."""
    more = ", ..." if len(tokens) > 5 else ""
    verb = "token" if len(tokens) == 1 else "tokens"
    what = f"the model has no row for {len(tokens)} {verb} of its tokenizer: {', '.join(tokens[:5])}{more}"
    fix = "call model.resize_token_embeddings(len(tokenizer)) once in transformers, and save both"
    return what, fix


@dataclass(frozen=True)
class _Question:
    """A use of a model, told apart from others by what the answer depends on."""

    base: Capabilities
    use: Use
    adapter: AdapterConfig | None

    def _key(self) -> tuple[str, ...]:
        adapter = self.adapter.model_dump_json() if self.adapter else ""
        return (self.base.config.to_json_string(), self.base.form, str(self.base.folder), self.use, adapter)

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Question) and self._key() == other._key()


@lru_cache(maxsize=256)
def _tried(question: _Question) -> ModelError | None:
    """The answer of the model's twin; None too where no twin can be made."""
    base, use, kind = question.base, question.use, _head(question.base.form, question.use)
    where = str(base.folder)
    if not has_form(kind, base.config):
        what = f"transformers has no {kind} form of model_type '{base.config.model_type}'"
        return ModelError(what, where=where, fix=f"choose a base that can be a {kind} model")
    with torch.random.fork_rng(), quiet():  # a run's own numbers stay what they are without this question
        small = twin.small_twin(base.config, kind)
        if small is None:
            long_enough = base.positions is None or base.positions >= twin.TOKENS
            return twin.failure(partial(twin.try_copy, base.config, kind), where) if long_enough else None
        for check in _checks(small, use, kind, where):
            if refusal := twin.failure(check, where):
                return refusal
        adapter = question.adapter
        if adapter is None or adapter.kind == "none":
            return None
        fix = "set adapter.kind=lora" if adapter.kind == "qlora" else "set adapter.kind=none"
        return twin.failure(partial(twin.try_adapter, small, kind, adapter), where, fix)


def _checks(small: Any, use: Use, kind: Kind, where: str) -> list[Callable[[], None]]:
    """What a use needs of a model, in the order in which it is met."""
    language_model = kind in ("causal", "masked")
    if use is Use.PROBE:
        return [partial(twin.try_features, small)]
    if use in (Use.WRITE, Use.PROMPT):
        return [partial(twin.try_padded_rows, small)]
    checks: list[Callable[[], None]] = []
    if language_model:
        checks.append(partial(twin.try_language_model, small))
    if use in (Use.CLASSIFY, Use.TAG, Use.EMBED):
        checks.append(partial(twin.try_padded_rows, small))
    if use in (Use.CONTINUE, Use.DISTILL, Use.TEACH) and kind == "causal":
        checks.append(partial(twin.try_packing, small, ROW_LENGTH, where))
    return checks


def _head(form: Form, use: Use) -> Kind:
    """The head that a use puts on a model of this form."""
    if use is Use.CLASSIFY:
        return "classifier"
    if use is Use.TAG:
        return "tagger"
    if use is Use.EMBED or form == "encoder-decoder":
        return "encoder"
    if use in (Use.CONTINUE, Use.PROMPT) and form == "encoder":
        return "masked"
    return form
