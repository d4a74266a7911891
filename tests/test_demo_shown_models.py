"""How models are shown follows from what the server tells of them, and never from their names."""

from __future__ import annotations

import pytest

from adaptkit.client.identity import ModelIdentity
from adaptkit.client.openai import Model
from adaptkit.demo.shown_models import first_of_each_role, generic_and_domain, show_models

MISLEADING = "notes-scratch-full-distilled"


def model(name: str, role: str | None = None, **fields: str) -> Model:
    return Model(name, "generate", 512, ModelIdentity(role=role, **fields) if role else None)


@pytest.mark.parametrize(
    ("role", "title", "place"),
    [
        ("generic", "Generic", 0),
        ("finetuned", "Fine-tuned", 1),
        ("pretrained", "Domain-pretrained", 2),
        ("distilled", "Distilled", 3),
        ("other", "placebo+full", 4),
        ("a role of tomorrow", "placebo+full", 4),
    ],
)
def test_the_role_is_the_title_whatever_the_name_says(role: str, title: str, place: int) -> None:
    fields = {"origin": "placebo", "arm": "placebo+full", "task": "intent"}
    (shown,) = show_models([model(MISLEADING, role, **fields)])
    assert (shown.name, shown.title, shown.place) == (MISLEADING, title, place)
    assert (shown.origin, shown.arm, shown.task) == ("placebo", "placebo+full", "intent")
    assert shown.subtitle == ("" if title == "placebo+full" else "placebo+full")


def test_a_model_of_somebody_elses_server_is_shown_by_its_name() -> None:
    (shown,) = show_models([Model(MISLEADING)])
    assert (shown.title, shown.subtitle, shown.origin, shown.task) == (MISLEADING, "", "ink", "")
    (bare,) = show_models([model("mine", "generic")])
    assert (bare.title, bare.subtitle) == ("Generic", "mine")


def test_one_model_of_each_role_is_shown_first_and_generic_leads() -> None:
    roles = {
        "a": "distilled",
        "b": "other",
        "c": "pretrained",
        "d": "pretrained",
        "e": "finetuned",
        "f": "generic",
    }
    shown = show_models([model(name, role) for name, role in roles.items()])
    assert [each.name for each in shown] == ["f", "e", "c", "d", "a", "b"]
    assert first_of_each_role(shown) == ["f", "e", "c", "a"]
    assert first_of_each_role(shown, most=6) == ["f", "e", "c", "a", "d", "b"]
    assert first_of_each_role(shown[:1]) == ["f"] and first_of_each_role([]) == []


def test_a_pair_is_a_generic_and_a_domain_model() -> None:
    generic, domain, other = model("g", "generic"), model("d", "pretrained"), model("o")
    assert generic_and_domain(show_models([domain, generic])) == ("g", "d")
    assert generic_and_domain(show_models([generic, model("t", "finetuned")])) == ("g", "t")
    assert generic_and_domain(show_models([domain])) == ("d", None)
    assert generic_and_domain(show_models([generic, other])) == ("g", None)
    assert generic_and_domain([]) == (None, None)
