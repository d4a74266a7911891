"""Which documents have which values, for filters such as `source=pubmed`. Imports no torch.

    values = FieldValues([{"source": "pubmed", "year": 2019}, {"source": "registry", "tags": ["a", "b"]}])
    values.allowed({"source": ["pubmed", "registry"], "year": ["2019"]})       # bool [M]: True, False

Values are compared as they are written: the number 2019 is "2019", true is "true". Of a list, one has to fit.
Shape suffix: M = documents.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptkit.errors import DataError, nearest

FILTER = "filter"
"""Where a mistake in a filter is, for messages."""
Filter = Mapping[str, Sequence[str]]
"""Field -> values, one of which a document must have; all fields must fit."""


class FieldValues:
    """Fields of documents, looked up by their values.

    Args:
        fields: of each document, in order.
    """

    def __init__(self, fields: Sequence[Mapping[str, Any]]):
        self._fields = fields
        self._places: dict[str, dict[str, list[int]]] = {}

    def allowed(self, filter: Filter) -> np.ndarray:
        """Which documents fit, bool [M].

        Raises: DataError for a field that no document has.
        """
        allowed_M = np.ones(len(self._fields), bool)
        for name, values in filter.items():
            fitting_M = np.zeros(len(self._fields), bool)
            places = self._places_of(name)
            for value in values:
                fitting_M[places.get(value, [])] = True
            allowed_M &= fitting_M
        return allowed_M

    def _places_of(self, name: str) -> dict[str, list[int]]:
        """Value -> documents that have it."""
        if name not in self._places:
            places = defaultdict[str, list[int]](list)
            for place, fields in enumerate(self._fields):
                for value in _listed(fields.get(name)):
                    places[as_text(value)].append(place)
            if not places:
                known = sorted({known for fields in self._fields for known in fields})
                meant = nearest(name[:100], known)
                fix = f"filter by one of: {', '.join(known)}" if known else "leave the filter out"
                raise DataError(f"no document has a field '{name[:100]}'{meant}", where=FILTER, fix=fix)
            self._places[name] = dict(places)
        return self._places[name]


def as_text(value: str | float | bool) -> str:
    """A value as filters write it."""
    return value if isinstance(value, str) else json.dumps(value)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
