"""How a served model is shown: its title, colour and place follow from the fields that its server tells.

Names are never taken apart: a model of a server that tells no such fields is shown by its plain name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from adaptkit.client.identity import ModelIdentity
from adaptkit.client.openai import Model
from adaptkit.export.source import ModelRole

TITLES = {
    ModelRole.GENERIC.value: "Generic",
    ModelRole.FINETUNED.value: "Fine-tuned",
    ModelRole.PRETRAINED.value: "Domain-pretrained",
    ModelRole.DISTILLED.value: "Distilled",
}
"""Role -> what the page calls it, in the order of the page."""
DOMAIN_ROLES = (ModelRole.PRETRAINED.value, ModelRole.FINETUNED.value)
"""Roles of models that were trained on the domain."""
NO_ORIGIN = "ink"
"""Colour of a model whose origin is not told."""


@dataclass(frozen=True)
class ShownModel:
    """A served model as the page shows it.

    Attributes:
        name: what the server calls it.
        title: its role, else its arm, else its name.
        origin: decides the colour.
        role: empty where the server tells none.
        arm, task: of the study; empty outside one.
        max_len: tokens that it reads and writes together; None where its server does not tell.
        prompts: names of the words that an embedding model may put before texts.
    """

    name: str
    title: str
    origin: str = NO_ORIGIN
    role: str = ""
    arm: str = ""
    task: str = ""
    max_len: int | None = None
    prompts: tuple[str, ...] = ()

    @property
    def place(self) -> int:
        """Where it stands on the page: by role, models without a known one last."""
        if self.role not in TITLES:
            return len(TITLES)
        return list(TITLES).index(self.role)

    @property
    def subtitle(self) -> str:
        """Which model it is, beside the title; empty where the title says it."""
        detail = self.arm or self.name
        if detail == self.title:
            return ""
        return detail


def show_models(models: Iterable[Model]) -> list[ShownModel]:
    """Describe each model as it is shown, generic ones first."""
    shown = [_shown(model) for model in models]
    return sorted(shown, key=lambda model: (model.place, model.name))


def _shown(model: Model) -> ShownModel:
    identity = model.identity or ModelIdentity()
    role, arm = identity.role or "", identity.arm or ""
    return ShownModel(
        name=model.name,
        title=TITLES.get(role) or arm or model.name,
        origin=identity.origin or NO_ORIGIN,
        role=role,
        arm=arm,
        task=identity.task or "",
        max_len=model.max_len,
        prompts=model.prompts,
    )


def first_of_each_role(models: Sequence[ShownModel], most: int = 4) -> list[str]:
    """Name the models to show at first: one of each role, then others, at most `most`."""
    by_place = sorted(models, key=lambda model: model.place)
    firsts = {model.role: model.name for model in reversed(by_place) if model.role in TITLES}
    chosen = [firsts[role] for role in TITLES if role in firsts]
    others = [model.name for model in models if model.name not in chosen]
    return (chosen + others)[:most]


def generic_and_domain(models: Sequence[ShownModel]) -> tuple[str | None, str | None]:
    """Pick a generic and a domain model by name; a single model stands first, whatever it is."""
    if len(models) == 1:
        return models[0].name, None
    domain = next((model.name for model in models if model.role in DOMAIN_ROLES), None)
    generic = next((model.name for model in models if model.name != domain), None)
    return generic, domain
