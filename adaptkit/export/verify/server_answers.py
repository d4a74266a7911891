"""Ask a server the questions of a record: any OpenAI-compatible one, by vLLM's routes where it has them.

What a server does not give (its settings, token ids, log-probabilities of a prompt) is missing with the
reason, and of that nothing is told. Loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from adaptkit.client.connection import BadAnswer, Refusal
from adaptkit.client.openai import CUT, Client
from adaptkit.errors import ServerError
from adaptkit.export.source import REGRESSION
from adaptkit.export.verify.answer_changes import Given, shown
from adaptkit.export.verify.record import (
    ACTIVATIONS,
    ENDED,
    GOES_ON,
    STOPS,
    Answer,
    AnswerKind,
    AnswerRecord,
    Answers,
    Precision,
    bits_per_byte,
    log_odds,
    rounded,
)

LARGEST_BIAS = 100
"""Added to a token's logit: it is generated whatever the model thinks."""


def ask_server(client: Client, name: str | None, record: AnswerRecord, precision: Precision) -> Given:
    """Ask a server everything that it gives of what a record holds.

    Args:
        name: of the served model; None takes the only one.
        precision: what the server computes in, which it does not say itself.
    Raises: ServerError where nothing can be asked; a single refusal leaves its kind of answer out.
    """
    model = name or _only_model(client)
    asked = _Asked(client, model, record)
    where = f"{model} at {client.base_url}, taken to compute in {precision}"
    rounds = ACTIVATIONS in record.noise
    return Given(where, asked.everything(), asked.missing, precision, rounds_activations=rounds)


def _only_model(client: Client) -> str:
    names = [model.name for model in client.models()]
    if len(names) == 1:
        return names[0]
    what = f"serves {len(names)} models: {', '.join(names) or 'none'}"
    raise ServerError(what, where=client.base_url, fix="name one with --model")


@dataclass
class _Asked:
    """A server's answers to one record; `missing` fills with what it refused."""

    client: Client
    model: str
    record: AnswerRecord
    missing: dict[AnswerKind, str] = field(default_factory=dict)

    def everything(self) -> Answers:
        """Ask each kind of answer that the record holds."""
        ways: dict[AnswerKind, Callable[[], Answers]] = {
            AnswerKind.TOKENS: self._tokens,
            AnswerKind.CHAT: self._chat,
            AnswerKind.STOPS: self._stops,
            AnswerKind.GREEDY: self._greedy,
            AnswerKind.LOG_PROBABILITIES: self._likelihoods,
            AnswerKind.PROBABILITIES: self._classes,
            AnswerKind.TAGS: self._tags,
            AnswerKind.RELEVANCE: self._relevance,
            AnswerKind.VECTORS: self._vectors,
        }
        answers: Answers = {}
        for kind, ask in ways.items():
            if kind not in self.record.answers:
                continue
            try:
                answers |= ask()
            except (Refusal, BadAnswer) as error:
                self.missing[kind] = f"the server gives none: {shown(error.what)}"
        for kind in self.record.answers:
            if kind not in answers and kind not in self.missing:
                self.missing[kind] = "a server does not show them"
        return answers

    def _stored(self, kind: AnswerKind) -> tuple[Answer, ...]:
        return self.record.answers[kind]

    def _tokens(self) -> Answers:
        """Compare texts that no one cuts: a server tokenises without cutting."""
        texts = [text for text in self.record.questions.texts if self._is_whole(text)]
        rows = [self.client.tokenize(self.model, text, add_special_tokens=True) for text in texts]
        answers = [Answer(text=text, exact=tuple(ids)) for text, ids in zip(texts, rows, strict=True)]
        return {AnswerKind.TOKENS: tuple(answers)}

    def _is_whole(self, text: str) -> bool:
        """Whether a text has fewer tokens than the longest question, which may have been cut."""
        lengths = {answer.text: len(answer.exact) for answer in self._stored(AnswerKind.TOKENS)}
        return lengths[text] < lengths[self.record.questions.long]

    def _chat(self) -> Answers:
        answers = []
        for stored in self._stored(AnswerKind.CHAT):
            if any(isinstance(entry, str) for entry in stored.exact):
                continue  # the template refuses these turns
            ids = self.client.tokenize_chat(self.model, json.loads(stored.text))
            answers.append(Answer(text=stored.text, exact=tuple(ids)))
        return {AnswerKind.CHAT: tuple(answers)}

    def _stops(self) -> Answers:
        """Force each token, and see whether the text ends there."""
        answers = []
        opening = self.record.questions.openings[0]
        for stored in self._stored(AnswerKind.STOPS):
            bias = {stored.text: LARGEST_BIAS}
            completion = self.client.complete(self.model, opening, max_tokens=2, logit_bias=bias)
            ends = STOPS if completion.finish_reason == "stop" else GOES_ON
            answers.append(Answer(text=stored.text, exact=(ends,)))
        return {AnswerKind.STOPS: tuple(answers)}

    def _greedy(self) -> Answers:
        answers = []
        ends = {
            answer.text for answer in self.record.answers.get(AnswerKind.STOPS, ()) if STOPS in answer.exact
        }
        options = {"logprobs": 0, "return_token_ids": True}
        for opening in self.record.questions.openings:
            most = self.record.questions.new_tokens
            completion = self.client.complete(self.model, opening, max_tokens=most, **options)
            if completion.output_tokens and not completion.token_ids:
                raise BadAnswer("no token ids of what it wrote", where=self.client.base_url)
            tokens = list(completion.token_ids)
            if tokens and str(tokens[-1]) in ends:
                tokens.pop()
            exact = [*tokens, *([ENDED] if completion.finish_reason == "stop" else [])]
            values = rounded(completion.logprobs[: len(tokens)])
            answers.append(Answer(text=opening, exact=tuple(exact), values=values))
        return {AnswerKind.GREEDY: tuple(answers)}

    def _likelihoods(self) -> Answers:
        """Measure the log-probability of every token of a prompt but the first."""
        answers, nats, num_bytes = [], 0.0, 0
        for stored in self._stored(AnswerKind.LOG_PROBABILITIES):
            completion = self.client.complete(self.model, stored.text, max_tokens=1, prompt_logprobs=0)
            if not completion.prompt_logprobs:
                raise BadAnswer("no log-probabilities of prompts", where=self.client.base_url)
            values = [next(iter(entry.values())) for entry in completion.prompt_logprobs[1:]]
            last = values[-self.record.questions.last_tokens :]
            answers.append(Answer(text=stored.text, values=rounded(last)))
            nats, num_bytes = nats - sum(values), num_bytes + len(stored.text.encode())
        bits = Answer(text="all texts", values=bits_per_byte(nats, num_bytes))
        return {AnswerKind.LOG_PROBABILITIES: tuple(answers), AnswerKind.BITS: (bits,)}

    def _classes(self) -> Answers:
        texts = [answer.text for answer in self._stored(AnswerKind.PROBABILITIES)]
        labels, numbers = [], []
        for text, (label, chances) in zip(texts, self.client.classify(self.model, texts, **CUT), strict=True):
            numbers.append(Answer(text=text, values=log_odds(chances, self.record.problem)))
            labels.append(Answer(text=text, exact=(label,)))
        answers: Answers = {AnswerKind.PROBABILITIES: tuple(numbers)}
        if self.record.problem == REGRESSION:
            self.missing[AnswerKind.LABELS] = "a number has no label"
        else:
            answers[AnswerKind.LABELS] = tuple(labels)
        return answers

    def _tags(self) -> Answers:
        texts = [answer.text for answer in self._stored(AnswerKind.TAGS) if self._is_whole(answer.text)]
        answers = []
        for text, tokens in zip(texts, self.client.tag(self.model, texts), strict=True):
            odds = [value for chances in tokens for value in log_odds(chances, "")]
            answers.append(Answer(text=text, values=tuple(odds)))
        return {AnswerKind.TAGS: tuple(answers)}

    def _relevance(self) -> Answers:
        """Ask for logits: which function a server puts over them is the folder's business."""
        stored = self._stored(AnswerKind.RELEVANCE)
        texts, query = [answer.text for answer in stored], stored[0].query
        scores = self.client.rerank(self.model, query, texts, use_activation=False, **CUT)
        pairs = zip(texts, scores, strict=True)
        answers = [Answer(text=text, query=query, values=rounded([score])) for text, score in pairs]
        return {AnswerKind.RELEVANCE: tuple(answers)}

    def _vectors(self) -> Answers:
        """Send each text with the words of its prompt, which a server does not put there."""
        stored = self._stored(AnswerKind.VECTORS)
        texts = [self.record.prompts.get(answer.query, "") + answer.text for answer in stored]
        vectors = self.client.embed(self.model, texts, **CUT)
        pairs = zip(stored, vectors, strict=True)
        answers = [Answer(text=old.text, query=old.query, values=rounded(vector)) for old, vector in pairs]
        return {AnswerKind.VECTORS: tuple(answers)}
