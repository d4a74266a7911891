"""Approximate search by FAISS, which is optional: make its index, read it, take vectors back out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.doctor import extras
from adaptkit.errors import DataError


def read_faiss(path: Path) -> Any:
    """Raises: MissingDependency."""
    return _faiss().read_index(str(path))


def write_faiss(path: Path, vectors_ND: np.ndarray, factory: str) -> None:
    """Write FAISS's index of some vectors.

    Raises: DataError for a factory string that it does not know; MissingDependency.
    """
    library = _faiss()
    try:
        index = library.index_factory(vectors_ND.shape[1], factory, library.METRIC_INNER_PRODUCT)
        index.train(vectors_ND)
    except RuntimeError as error:
        first = next(iter(str(error).splitlines()), "refused")
        what = f"FAISS cannot build '{factory}': {first}"
        raise DataError(what, where="--faiss", fix="try HNSW32, or leave it out") from None
    index.add(vectors_ND)
    library.write_index(index, str(path))


def vectors_from_faiss(index: Any, rows: Sequence[int], factory: str, where: str) -> np.ndarray:
    """Vectors of some rows, float32 [rows, D].

    Raises: DataError for a kind of index that cannot give them back.
    """
    try:
        cells = _faiss().try_extract_index_ivf(index)
        if cells is not None:
            cells.make_direct_map()
        return np.stack([index.reconstruct(int(row)) for row in rows])
    except RuntimeError:
        what = f"a FAISS index '{factory}' does not give its vectors back"
        fix = "index the documents again; to compare two models, ask questions: --queries FILE"
        raise DataError(what, where=where, fix=fix) from None


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        what = "approximate search needs FAISS (the exact one does not)"
        raise extras.missing_extra("faiss", what, where="--faiss") from None
    return faiss
