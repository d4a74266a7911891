"""One real server for all tests here that ask for it; starting vLLM is most of what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from real_server import Served
    from walk import Walk


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> Walk:
    """The way from an own CSV to an exported model."""
    from walk import walk

    return walk(tmp_path_factory.mktemp("walk"), tiny_text)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str], walked: Walk) -> Iterator[Served]:
    """A generator `writer` with an adapter `tuned`, an embedder `vectors`, a classifier `classes`, a
    reranker `pairs`, and `tickets`, what the walk exported."""
    pytest.importorskip("vllm", reason="vLLM is not installed: `make serve-cpu`")
    from real_server import serving

    more = [] if walked.problem else [f"tickets={walked.export}"]
    with serving(tmp_path_factory.mktemp("served"), tiny_text, more) as made:
        yield made
