"""The settings of a model behind an API, and what asking it will cost at most."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from adaptkit.config import Config, Count, Magnitude, in_unit, refuse_credentials


class ApiPrice(Config):
    """What an API asks, with where and when that was read."""

    name: str = ""
    """What it is called on the page; empty is the model's name."""
    usd_per_million_in: Annotated[Magnitude, in_unit("US dollars per million tokens")]
    """US dollars per million tokens of prompts."""
    usd_per_million_out: Annotated[Magnitude, in_unit("US dollars per million tokens")]
    """US dollars per million tokens of answers."""
    source: str
    """Where the price was read."""
    date: str
    """When it was read, YYYY-MM-DD."""


class ApiConfig(Config):
    """A model behind an OpenAI-compatible address. Giving it sends your development and test texts there, and
    a few training rows as examples; the arm api+rag also sends passages of the text that it searches."""

    COST_ONLY: ClassVar[frozenset[str]] = frozenset({"key_file", "ceiling", "at_once", "patience"})

    url: str
    """Its address: https://host or http://host:port, with or without /v1. No key stands in it."""
    model: str
    """What the server calls the model."""
    key_file: str = ""
    """File that holds the key, readable by you alone; empty for a server that wants none."""
    price: ApiPrice
    """What tokens cost; 0 for a server of your own."""
    ceiling: Annotated[Magnitude, in_unit("US dollars")]
    """What the study may spend there. A plan that may cost more is refused, and spending stops there."""
    at_once: Annotated[Count, in_unit("requests at once")] = Field(4, ge=1, le=256)
    """Requests at once."""
    patience: Annotated[Magnitude, in_unit("seconds")] = 600.0
    """How long a request is tried again while the server is overloaded, limits your rate or is gone."""

    @field_validator("url")
    @classmethod
    def _no_secret_in_the_address(cls, url: str) -> str:
        refuse_credentials(url, where="api.url", fix="give the key in api.key_file")
        if not url.startswith(("http://", "https://")):
            raise ValueError("an address begins with http:// or https://")
        return url
