"""Plan a model: a table of sizes, and what is the best buy for a goal; see `PlanConfig`.

    plan = make_plan(PlanConfig(size=13_000_000_000, ...))
    plan.rows, plan.answers, plan.saved, plan.assumptions

The table's sizes are compute-optimal: each is trained for as long as its law says is best for its FLOPs.
FLOPs of the table are counted on the model that would be built (`models.flops_per_token`), with attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adaptkit.data.readers import read
from adaptkit.errors import ConfigError
from adaptkit.planning.assumptions import assumptions_of
from adaptkit.planning.config import PlanConfig
from adaptkit.planning.gpus import Gpu, choose_gpu
from adaptkit.planning.optimum import Choice, Costs, best_within, cheapest, compute_optimal_within
from adaptkit.planning.outcome import Answer, Plan, Row
from adaptkit.planning.own_law import ChosenLaw, choose_law
from adaptkit.planning.published_law import Law, worth_of_tokens
from adaptkit.planning.sizing import SERVED_SPEED, Size, gpus_needed, size_of
from adaptkit.study.breakeven import HOURS_PER_MONTH, Workload, num_servers
from adaptkit.study.record import StudyRecord, read_study
from adaptkit.study.task_size import BYTES_PER_TOKEN

SAME = 0.01
"""Two answers whose sizes differ by less are one."""


def make_plan(config: PlanConfig) -> Plan:
    """Plan for a goal, a text, a traffic and a machine.

    Raises: ConfigError for a goal that cannot be reached, or a price that is missing.
    """
    record = read_study(config.study) if config.study else None
    config = config.model_copy(update={"bytes_per_token": bytes_per_token(config, record)})
    sizes, left_out = sizes_of(config)
    chosen, gpu, text = choose_law(config), choose_gpu(config.gpu, record), text_tokens(config)
    planner = Planner(config, chosen, gpu, text, sizes)
    answers = planner.answers()
    saved = 0.0
    if len(answers) == 2 and not (config.usd or config.gpu_hours):
        saved = 1 - answers[1].whole / answers[0].whole
    return Plan(
        law=chosen.law,
        gpu=gpu,
        unit="FLOPs" if config.minimise == "flops" else "GPU hours",
        rows=tuple(map(planner.row, sizes)),
        left_out=left_out,
        answers=answers,
        saved=saved,
        text_tokens=text,
        assumptions=assumptions_of(config, chosen, gpu, text),
    )


def sizes_of(config: PlanConfig) -> tuple[tuple[Size, ...], dict[str, str]]:
    """The sizes of the table, laid out, and why others cannot be."""
    sizes, left_out = [], {}
    for params in config.sizes:
        try:
            sizes.append(size_of(params, config))
        except ConfigError as error:
            left_out[f"{params:,}"] = f"{error.what}; {error.fix}"
    return tuple(sizes), left_out


def bytes_per_token(config: PlanConfig, record: StudyRecord | None) -> float:
    """What the config says; else as the study's tokenizer of its own text measured; else a usual one."""
    if config.bytes_per_token:
        return config.bytes_per_token
    tokenizers = record.data.tokenizers if record is not None else {}
    own = tokenizers.get("domain") or tokenizers.get("generic")
    return own.bytes_per_token if own is not None else BYTES_PER_TOKEN


def text_tokens(config: PlanConfig) -> float:
    """Tokens of the text at hand; inf where none is named."""
    num_bytes = config.text_bytes
    if config.text is not None:
        num_bytes = float(read(config.text).num_bytes)
    return num_bytes / config.bytes_per_token if num_bytes else math.inf


@dataclass(frozen=True)
class Planner:
    """A config with the law, the GPU, the text and the sizes that it comes to."""

    config: PlanConfig
    chosen: ChosenLaw
    gpu: Gpu
    text_tokens: float
    sizes: tuple[Size, ...]

    @property
    def law(self) -> Law:
        return self.chosen.law

    @property
    def peak_flops(self) -> float:
        """Per second, at best; a measured speed of training stands for `mfu` of it."""
        return self.gpu.flops / self.config.gpu.mfu if self.gpu.measured else self.gpu.flops

    @property
    def served_tokens(self) -> float:
        """Read and written over all months."""
        traffic = self.config.traffic
        return traffic.requests_per_month * traffic.months * (traffic.tokens_in + traffic.tokens_out)

    def row(self, size: Size) -> Row:
        """A compute-optimal model of this size."""
        params = size.shape.parameters
        tokens = self.law.best_tokens(params, self.text_tokens)
        flops = tokens * size.train_flops
        hours = self._train_hours(flops)
        serve_hours = self._serve_hours(size.read_flops)
        memory, price = self.gpu.memory_bytes, self.gpu.price
        serving_gpus = gpus_needed(size.serving_bytes, 0.0, memory) if memory else 0
        servers = self._servers(size.read_flops) * max(1, serving_gpus)
        serve_usd = None
        if price is not None:
            serve_usd = servers * HOURS_PER_MONTH * price.usd_per_hour
        loss, loss_low, loss_high = self._loss(params, tokens)
        return Row(
            params=params,
            layers=size.shape.layers,
            width=size.shape.width,
            vocab_size=size.vocab_size,
            tokens=tokens,
            passes=self._passes(tokens),
            loss=loss,
            loss_low=loss_low,
            loss_high=loss_high,
            train_flops=flops,
            train_hours=hours,
            train_usd=None if price is None else hours * price.usd_per_hour,
            training_bytes=size.training_bytes,
            training_gpus=gpus_needed(size.state_bytes, size.kept_bytes, memory) if memory else 0,
            serving_bytes=size.serving_bytes,
            serving_gpus=serving_gpus,
            serve_hours=serve_hours,
            servers=servers,
            serve_usd_per_month=serve_usd,
            beyond=self._why_beyond(params, tokens),
        )

    def answers(self) -> tuple[Answer, ...]:
        """The compute-optimal model for the goal, and the best one where serving counts too.

        Raises: ConfigError for a goal that no model reaches.
        """
        config, text = self.config, self.text_tokens
        costs, training = self._costs(serving=True), self._costs(serving=False)
        choices: list[tuple[str, Choice | None]]
        if config.usd or config.gpu_hours:
            budget = config.gpu_hours or config.usd / self._usd_per_hour()
            choices = [
                ("compute-optimal", compute_optimal_within(self.law, budget, costs, text)),
                ("inference-aware", best_within(self.law, budget, costs, text)),
            ]
        elif config.size or config.loss:
            loss, first = config.loss, None
            if config.size:
                first = Choice(config.size, self.law.best_tokens(config.size, text))
                loss = self.law.loss(first.params, first.tokens, text)
            first = first or cheapest(self.law, loss, training, text)
            choices = [("compute-optimal", first), ("inference-aware", cheapest(self.law, loss, costs, text))]
        else:
            return ()
        answers = [self._answer(title, choice, costs) for title, choice in choices]
        same = abs(answers[1].params / answers[0].params - 1) < SAME
        return (answers[0],) if same or not self.served_tokens else tuple(answers)

    def _answer(self, title: str, choice: Choice | None, costs: Costs) -> Answer:
        if choice is None:
            raise self._out_of_reach()
        params, tokens = choice.params, choice.tokens
        train, serve = costs.train(params) * tokens, costs.serve(params)
        usd = None
        if self.gpu.price is not None and self.config.minimise == "gpu_hours":
            usd = (train + serve) * self.gpu.price.usd_per_hour
        loss, loss_low, loss_high = self._loss(params, tokens)
        return Answer(
            title=title,
            params=params,
            tokens=tokens,
            passes=self._passes(tokens),
            loss=loss,
            loss_low=loss_low,
            loss_high=loss_high,
            train=train,
            serve=serve,
            usd=usd,
            beyond=self._why_beyond(params, tokens),
        )

    def _loss(self, params: float, tokens: float) -> tuple[float, float | None, float | None]:
        """A loss with its interval; by a published law there is none."""
        interval = self.chosen.interval(params, tokens, self.text_tokens)
        if interval is None:
            return self.law.loss(params, tokens, self.text_tokens), None, None
        return interval.mean, interval.low, interval.high

    def _why_beyond(self, params: float, tokens: float) -> str:
        return self.law.why_beyond(params, worth_of_tokens(tokens, self.text_tokens))

    def _out_of_reach(self) -> ConfigError:
        if self.config.usd or self.config.gpu_hours:
            where = "usd" if self.config.usd else "gpu_hours"
            fix = "raise it, or plan for fewer requests or months"
            return ConfigError("buys no model that serves this traffic", where=where, fix=fix)
        what = f"no model reaches a loss of {self.config.loss:g} on this text by the law {self.law.name}"
        fix = f"ask for more than its floor of {self.law.floor:g}, or bring more text"
        return ConfigError(what, where="loss", fix=fix)

    def _usd_per_hour(self) -> float:
        if self.gpu.price is None:
            what = f"a budget in dollars needs the price of {self.gpu.name}, and none is known"
            fix = "set gpu.price.usd_per_hour, gpu.price.source and gpu.price.date, or use gpu_hours"
            raise ConfigError(what, where="usd", fix=fix)
        return self.gpu.price.usd_per_hour

    def _costs(self, *, serving: bool) -> Costs:
        """FLOPs, 6 N and 2 N a token as the laws count them; or hours of one GPU, for FLOPs as counted."""
        served = self.served_tokens if serving else 0.0
        if self.config.minimise == "flops":
            return Costs(lambda params: 6 * params, lambda params: 2 * params * served)
        months = self.config.traffic.months if serving else 0.0
        return Costs(
            lambda params: self._train_hours(6 * params * self._beside(params, training=True)),
            lambda params: months * self._serve_hours(2 * params * self._beside(params, training=False)),
        )

    def _beside(self, params: float, *, training: bool) -> float:
        """FLOPs counted on the models of the table, beside 6 N or 2 N; between sizes, in proportion."""
        if not self.sizes:
            return 1.0
        sizes = sorted(self.sizes, key=lambda size: size.shape.parameters)
        at = [math.log(size.shape.parameters) for size in sizes]
        if training:
            ratios = [size.train_flops / (6 * size.shape.parameters) for size in sizes]
        else:
            ratios = [size.read_flops / (2 * size.shape.parameters) for size in sizes]
        return float(np.interp(math.log(params), at, ratios))

    def _train_hours(self, flops: float) -> float:
        return flops / (self.peak_flops * self.config.gpu.mfu) / 3600

    def _request_seconds(self, flops_per_token: float) -> float:
        """Of one GPU for one request, with as many at once as keep it busy."""
        traffic, gpu = self.config.traffic, self.config.gpu
        weighted = traffic.tokens_in / gpu.mfu_prefill + traffic.tokens_out / gpu.mfu_decode
        return flops_per_token * weighted / (self.peak_flops * SERVED_SPEED[self.config.serve_in])

    def _serve_hours(self, flops_per_token: float) -> float:
        """Of one GPU, a month."""
        return self.config.traffic.requests_per_month * self._request_seconds(flops_per_token) / 3600

    def _servers(self, flops_per_token: float) -> int:
        """GPUs rented around the clock; none where nothing is served."""
        traffic, seconds = self.config.traffic, self._request_seconds(flops_per_token)
        if not traffic.requests_per_month or not seconds:
            return 0
        work = Workload(traffic.requests_per_month, 1 / seconds, traffic.used_share)
        return num_servers(traffic.requests_per_month, work.capacity)

    def _passes(self, tokens: float) -> float:
        return tokens / self.text_tokens if math.isfinite(self.text_tokens) else 0.0
