"""One real server for all tests here that ask for it; starting vLLM is most of what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from real_server import Served


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> Iterator[Served]:
    """A generator `writer` with an adapter `tuned`, an embedder `vectors`, a classifier `classes` and a
    reranker `pairs`."""
    pytest.importorskip("vllm", reason="vLLM is not installed: `make serve-cpu`")
    from real_server import serving

    with serving(tmp_path_factory.mktemp("served"), tiny_text) as made:
        yield made
