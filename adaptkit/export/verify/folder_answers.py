"""Ask a model folder everything that is compared, in this process, by transformers' own classes.

    model = FolderModel.load(folder)
    model.ask(questions)                 # kind of answer -> one answer for each question

Rounded weights are computed with as they are stored, in float32; that a server rounds what goes into a layer
as well is its own noise, and no matter of the folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from adaptkit import models
from adaptkit.embed.encoder import Encoder
from adaptkit.export.parity.reference import activated
from adaptkit.export.quantise.compressed_tensors import read_dequantised, rounded_layers
from adaptkit.export.record import ServedKind
from adaptkit.export.source import Source, of_model, problem_type
from adaptkit.export.verify.record import (
    ENDED,
    GOES_ON,
    STOPS,
    Answer,
    AnswerKind,
    Answers,
    Precision,
    Questions,
    bits_per_byte,
    log_odds,
    rounded,
)
from adaptkit.export.verify.verify_questions import make_questions
from adaptkit.export.weights import MODEL_KINDS
from adaptkit.models.folder import saved_shape
from adaptkit.models.generation_settings import end_ids
from adaptkit.models.sentence.dense import read_dense
from adaptkit.models.sentence.layout import num_positions, read_layout
from adaptkit.models.sentence.text_tokens import lower_cased
from adaptkit.trainer.device import default_device

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class FolderModel:
    """A model in memory, with what its folder says of how it is asked.

    Attributes:
        longest: tokens that it reads at once.
        encoder: the same model as a function from texts to vectors; None for other kinds.
    """

    source: Source
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    longest: int
    encoder: Encoder | None = None

    @classmethod
    def load(cls, folder: Path, dtype: Precision = "float32") -> FolderModel:
        """Load a folder.

        Raises: ModelError or DataError for a folder that cannot be loaded, or lacks weights.
        """
        source, tokenizer = of_model(folder), models.load_tokenizer(folder)
        model = load_weights(folder, source.kind)
        _place(model, dtype)
        if source.kind != "embed":
            longest = min(num_positions(model.config), int(tokenizer.model_max_length))
            return cls(source, model, tokenizer, longest)
        layout = read_layout(folder, model.config, tokenizer)
        dense = read_dense(folder, layout.dense)
        _place(dense, dtype)
        if layout.lower_case:
            tokenizer = lower_cased(tokenizer)
        encoder = Encoder(model, tokenizer, layout, dense=dense)
        return cls(source, model, tokenizer, layout.max_length, encoder)

    @property
    def folder(self) -> Path:
        return self.source.folder

    @property
    def kind(self) -> ServedKind:
        return self.source.kind

    def questions(self) -> Questions:
        """Choose what to ask this model: texts with a token that it has no row for are left out.

        transformers gives the tokenizers of some architectures such a token (Qwen2 `<|endoftext|>`).
        """
        questions = make_questions(
            lambda text: len(self.tokenizer(text, verbose=False)["input_ids"]),
            self.longest,
            writes=self.kind == "generate",
        )
        rows = len(cast(Tensor, self.model.get_input_embeddings().weight))
        known = tuple(text for text in questions.texts if max(self._input_ids(text), default=0) < rows)
        return questions.model_copy(update={"texts": known})

    @property
    def problem(self) -> str:
        """Of a classifier: one of several classes, a yes or no for each, or a number."""
        if self.kind == "classify":
            return problem_type(self.folder)
        return ""

    @property
    def prompts(self) -> dict[str, str]:
        """Name -> words that an encoder puts before a text; "" is what it uses where none is named."""
        if self.encoder is None:
            return {}
        return {"": self.encoder.layout.prompt(None), **self.encoder.layout.prompts}

    def ask(self, questions: Questions) -> Answers:
        """Ask everything that this kind of model answers."""
        answers = {AnswerKind.SETTINGS: self._settings(), AnswerKind.TOKENS: self._tokens(questions)}
        answers |= self.numbers(questions)
        if self.kind == "generate":
            answers[AnswerKind.STOPS] = self._stops()
            answers[AnswerKind.GREEDY] = self._greedy(questions)
            answers[AnswerKind.CHAT] = self._chat(questions)
        return answers

    @torch.inference_mode()
    def numbers(self, questions: Questions, *, long: bool = True) -> Answers:
        """Ask for what rounding moves; without `long` the long text is left out."""
        texts = [*questions.texts, *([questions.long] if long else [])]
        if self.kind == "embed":
            return {AnswerKind.VECTORS: self._vectors(texts)}
        if self.kind == "rerank":
            return {AnswerKind.RELEVANCE: self._relevance(texts)}
        if self.kind == "classify":
            return self._classes(texts)
        if self.kind == "tag":
            return {AnswerKind.TAGS: self._tags(texts)}
        return self._likelihoods(texts, questions)

    def _input_ids(self, text: str) -> list[int]:
        """Token ids of a text as a user of transformers gets them, cut to what the model reads."""
        return list(self.tokenizer(text, truncation=True, max_length=self.longest)["input_ids"])

    def _tokens(self, questions: Questions) -> tuple[Answer, ...]:
        texts = (*questions.texts, questions.long)
        return tuple(Answer(text=text, exact=tuple(self._input_ids(text))) for text in texts)

    def _chat(self, questions: Questions) -> tuple[Answer, ...]:
        talk = [{"role": role, "content": content} for role, content in questions.talk]
        answers = []
        for turns in (talk, talk[1:], talk[1:2]):
            ids: Any
            try:
                ids = self.tokenizer.apply_chat_template(
                    turns, tokenize=True, add_generation_prompt=True, return_dict=False
                )
            except Exception as error:  # a template is a program of the user's, and may refuse a turn
                ids = [f"refused: {type(error).__name__}"]
            answers.append(Answer(text=json.dumps(turns), exact=tuple(ids)))
        return tuple(answers)

    def _stops(self) -> tuple[Answer, ...]:
        """Say of each special token, and of one that is none, whether the model ends there."""
        ends = end_ids(self.model, self.tokenizer)
        special = sorted({*self.tokenizer.all_special_ids, *ends})
        plain = next(token for token in range(len(self.tokenizer)) if token not in special)
        return tuple(
            Answer(text=str(token), exact=(STOPS if token in ends else GOES_ON,))
            for token in [*special, plain]
        )

    def _settings(self) -> tuple[Answer, ...]:
        """Collect what decides how texts are cut, padded and compared, and where a text ends."""
        tokenizer, config = self.tokenizer, self.model.config
        settings: dict[str, Any] = {
            "architecture": type(self.model).__name__,
            "tokens read at once": self.longest,
            "side that texts are cut on": tokenizer.truncation_side,
            "side that texts are padded on": tokenizer.padding_side,
            "end of a text (tokenizer)": tokenizer.eos_token_id,
        }
        if self.kind == "generate":
            settings["end of a text (generation)"] = self._generation().eos_token_id
        if self.kind in ("classify", "tag"):
            settings["labels"] = self.source.labels
            settings["problem"] = self.problem
            settings["decision threshold"] = getattr(config, "decision_threshold", None)
        if self.encoder is not None:
            layout = self.encoder.layout
            settings |= {"prompts": layout.prompts, "prompt where none is named": layout.default_prompt}
            settings |= {"similarity": layout.similarity, "sizes to cut to": layout.dimensions}
        return tuple(Answer(text=name, exact=(json.dumps(value),)) for name, value in settings.items())

    def _generation(self) -> GenerationConfig:
        """Read how the folder generates; a sampled text cannot be compared, so it is never sampled."""
        from transformers import GenerationConfig

        if not (self.folder / "generation_config.json").is_file():
            return GenerationConfig.from_model_config(self.model.config)
        return GenerationConfig.from_pretrained(self.folder)

    @torch.inference_mode()
    def _greedy(self, questions: Questions) -> tuple[Answer, ...]:
        """Continue each opening by the likeliest token, with what the folder's own settings do to it."""
        ends = end_ids(self.model, self.tokenizer)
        settings = self._generation()
        settings.update(do_sample=False, max_new_tokens=questions.new_tokens, max_length=None, num_beams=1)
        settings.update(eos_token_id=ends or None, pad_token_id=self.tokenizer.pad_token_id)
        settings.update(return_dict_in_generate=True, output_scores=True, output_logits=True)
        writer = cast(Any, self.model)  # PreTrainedModel does not declare what generation needs
        answers = []
        for opening in questions.openings:
            prompt = self._batch(self._input_ids(opening))
            output = writer.generate(**prompt, generation_config=settings)
            tokens = output.sequences[0, prompt["input_ids"].shape[1] :].tolist()
            logits, scores = torch.cat(output.logits).double(), torch.cat(output.scores).double()
            best = scores.log_softmax(-1).topk(2, dim=-1).values
            values = logits.log_softmax(-1).gather(1, torch.tensor(tokens, device=logits.device)[:, None])
            stop = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
            exact = [*tokens[:stop], *([ENDED] if stop < len(tokens) else [])]
            gaps = (best[:, 0] - best[:, 1]).clamp(max=1e6)[: len(exact)]
            answers.append(
                Answer(
                    text=opening, exact=tuple(exact), values=_numbers(values[:stop, 0]), gaps=_numbers(gaps)
                )
            )
        return tuple(answers)

    def _batch(self, ids: list[int]) -> dict[str, Tensor]:
        input_ids = torch.tensor([ids], device=self.model.device)
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}

    def _likelihoods(self, texts: Sequence[str], questions: Questions) -> Answers:
        """Measure the log-probability of every token given those before it, and bits per byte of all."""
        answers, nats, num_bytes = [], 0.0, 0
        for text in texts:
            ids = self._input_ids(text)
            if len(ids) < 2:
                continue
            logits = self.model(**self._batch(ids)).logits[0, :-1].double()
            following = torch.tensor(ids[1:], device=logits.device)[:, None]
            values = logits.log_softmax(-1).gather(1, following)[:, 0]
            answers.append(Answer(text=text, values=_numbers(values[-questions.last_tokens :])))
            nats, num_bytes = nats - float(values.sum()), num_bytes + len(text.encode())
        return {
            AnswerKind.LOG_PROBABILITIES: tuple(answers),
            AnswerKind.BITS: (Answer(text="all texts", values=bits_per_byte(nats, num_bytes)),),
        }

    def _classes(self, texts: Sequence[str]) -> Answers:
        """Give each class's chance as log-odds, and the class that wins with how clearly it does."""
        labels, numbers = [], []
        names = self.source.labels
        for text in texts:
            chances = activated(
                self.model(**self._batch(self._input_ids(text))).logits.double(), self.problem
            )
            odds = log_odds(chances[0].tolist(), self.problem)
            numbers.append(Answer(text=text, values=odds))
            order = sorted(range(len(odds)), key=lambda place: -odds[place])
            gaps = () if len(odds) == 1 else (odds[order[0]] - odds[order[1]],)
            labels.append(Answer(text=text, exact=(names[order[0]],), gaps=gaps))
        return {AnswerKind.LABELS: tuple(labels), AnswerKind.PROBABILITIES: tuple(numbers)}

    def _tags(self, texts: Sequence[str]) -> tuple[Answer, ...]:
        answers = []
        for text in texts:
            chances = self.model(**self._batch(self._input_ids(text))).logits[0].double().softmax(-1)
            odds = [value for token in chances.tolist() for value in log_odds(token, "")]
            answers.append(Answer(text=text, values=tuple(odds)))
        return tuple(answers)

    def _relevance(self, texts: Sequence[str]) -> tuple[Answer, ...]:
        """Score each text as an answer to the first, with token types where the model tells them apart."""
        answers = []
        for text in texts:
            encoded = self.tokenizer(
                texts[0], text, truncation=True, max_length=self.longest, return_tensors="pt"
            ).to(self.model.device)
            if getattr(self.model.config, "type_vocab_size", 0) < 2:
                encoded.pop("token_type_ids", None)
            value = self.model(**encoded).logits.double().flatten()
            answers.append(Answer(text=text, query=texts[0], values=_numbers(value)))
        return tuple(answers)

    def _reads_as_others_do(self, text: str) -> bool:
        """Whether an encoder here gets the tokens that other libraries get: control tokens spelled in a text
        are text to it."""
        assert self.encoder is not None
        prompt = self.encoder.layout.prompt(None)
        plain = self.tokenizer(prompt + text, truncation=True, max_length=self.longest)["input_ids"]
        return self.encoder.layout.chat is not None or self.encoder.tokens([text], prompt) == [list(plain)]

    def _vectors(self, texts: Sequence[str]) -> tuple[Answer, ...]:
        """Encode each text with the folder's default prompt, and one with each prompt that it names."""
        assert self.encoder is not None
        answers = []
        for text in filter(self._reads_as_others_do, texts):
            answers.append(Answer(text=text, values=_vector(self.encoder, text, None)))
        for name in self.encoder.layout.prompts:
            answers.append(Answer(text=texts[0], query=name, values=_vector(self.encoder, texts[0], name)))
        return tuple(answers)


def load_weights(folder: Path, kind: ServedKind) -> PreTrainedModel:
    """Load a folder's weights in float32, whole or rounded.

    Raises: ModelError.
    """
    if not rounded_layers(folder):
        return models.load(folder, MODEL_KINDS[kind])
    models.find(folder)
    config = saved_shape(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model_class = type(models.build(config, MODEL_KINDS[kind], seed=0))
    return read_dequantised(model_class, config, folder)


def _place(module: nn.Module, dtype: Precision) -> None:
    """Move a model to this machine's device, and to a precision, for use."""
    module.to(default_device(), DTYPES[dtype]).eval()


def _vector(encoder: Encoder, text: str, prompt: str | None) -> tuple[float, ...]:
    return rounded(encoder.encode([text], prompt=prompt)[0].tolist())


def _numbers(values: Tensor) -> tuple[float, ...]:
    return rounded(values.tolist())
