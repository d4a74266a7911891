"""Every number of every config has bounds, and a value outside is refused with its key and both numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import annotated_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from adaptkit.cli.arguments import CONFIGS
from adaptkit.config import Config, load
from adaptkit.errors import ConfigError
from adaptkit.study.config import StudyConfig


def config_classes() -> set[type[Config]]:
    """Every class that a config of some command is made of."""
    waiting, seen = list(CONFIGS.values()), set()
    while waiting:
        schema = waiting.pop()
        if schema not in seen:
            seen.add(schema)
            for field in schema.model_fields.values():
                waiting += inside(field.annotation)
    return seen


def inside(annotation: Any) -> Iterator[type[Config]]:
    if isinstance(annotation, type) and issubclass(annotation, Config):
        yield annotation
    for argument in get_args(annotation):
        yield from inside(argument)


def numbers(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[type, tuple[Any, ...]]]:
    """Each number type within an annotation, with what is said of it."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        yield from numbers(inner, (*metadata, *flat(more)))
    elif annotation in (int, float):
        yield annotation, metadata
    else:
        for argument in get_args(annotation):
            if argument is not bool and not isinstance(argument, str):
                yield from numbers(argument)


def flat(metadata: Any) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        else:
            yield item


def bounds(metadata: tuple[Any, ...]) -> tuple[float, float]:
    low, high = -math.inf, math.inf
    for item in metadata:
        if isinstance(item, (annotated_types.Ge, annotated_types.Gt)):
            low = max(low, getattr(item, "ge", None) or getattr(item, "gt", 0))
        if isinstance(item, (annotated_types.Le, annotated_types.Lt)):
            high = min(high, item.le if isinstance(item, annotated_types.Le) else item.lt)
    return low, high


def numeric_fields() -> list[Any]:
    cases = []
    for schema in sorted(config_classes(), key=lambda schema: schema.__name__):
        for name, field in schema.model_fields.items():
            for kind, said in numbers(Annotated[field.annotation, *field.metadata, None]):
                case = (schema, name, kind, tuple(said))
                cases.append(pytest.param(*case, id=f"{schema.__name__}.{name}.{kind.__name__}"))
    return cases


NUMERIC = numeric_fields()


def test_the_walk_finds_the_numbers():
    names = {case.id for case in NUMERIC}
    assert {
        "StudyConfig.confidence.float",
        "TrainerConfig.num_steps.int",
        "BudgetConfig.amount.float",
    } <= names
    assert {"EmbedConfig.dimensions.int", "DistillConfig.losses.float", "ForecastConfig.share.float"} <= names
    assert len(NUMERIC) > 55


@pytest.mark.parametrize(("schema", "name", "kind", "said"), NUMERIC)
def test_every_number_has_bounds_and_refuses_what_lies_outside(schema, name, kind, said):
    low, high = bounds(said)
    assert low >= 0 and math.isfinite(high), f"{schema.__name__}.{name} has no bounds"
    adapter = TypeAdapter(Annotated[kind, *said])

    @given(st.one_of(below(kind, low), above(kind, high)))
    def refused(value):
        with pytest.raises(ValidationError):
            adapter.validate_python(value, strict=True)

    refused()


def below(kind: type, low: float) -> st.SearchStrategy[Any]:
    if kind is int:
        return st.integers(max_value=math.ceil(low) - 1)
    return st.floats(max_value=low, exclude_max=True, allow_nan=False)


def above(kind: type, high: float) -> st.SearchStrategy[Any]:
    if kind is int:
        return st.integers(min_value=math.floor(high) + 1)
    return st.floats(min_value=high, exclude_min=True, allow_nan=False)


STUDY = [
    "name=x",
    "base_flops=1e12",
    "domain.train.files=[a.jsonl]",
    "general.train.files=[b.jsonl]",
    "budget.amount=1e12",
    "tasks=[{name: t, train: {files: [t.jsonl]}}]",
]


@pytest.mark.parametrize(
    "nonsense",
    [
        "confidence=95",
        "confidence=-0.5",
        "confidence=1",
        "margin=-0.01",
        "margin=1",
        "seeds=0",
        "seeds=-3",
        "jobs=-1",
        "replay_share=1.5",
        "forecast.share=-0.5",
        "forecast.share=1.5",
        "base_flops=-1e12",
        "budget.amount=0",
        "budget.amount=-3e12",
        "budget.total=-1",
        "budget.trials=0",
        "budget.trial_share=0",
        "budget.task_share=1",
        "budget.price={usd_per_hour: -1, source: x, date: 2026-11-26}",
        "decision.months=0",
        "decision.base_studies=0",
        "decision.requests_per_month=-1",
        "tasks.0.max_length=-1",
        "tasks.0.max_epochs=0",
        "tasks.0.test_items=-1",
        "domain.test_items=-1",
        "domain.train.max_bytes=-1",
        "trainer.warmup_fraction=1.0",
        "adapter.rank=0",
        "size.seq_len=1",
    ],
)
def test_nonsense_is_refused_before_anything_is_read(nonsense):
    assert load(StudyConfig, None, STUDY).config.seeds == 3
    with pytest.raises(ConfigError) as caught:
        load(StudyConfig, None, [*STUDY, nonsense])
    key = nonsense.partition("=")[0].rpartition(".")[2]
    assert key in str(caught.value), str(caught.value)
