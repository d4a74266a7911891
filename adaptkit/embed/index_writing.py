"""Write an index: a whole version of an encoding's vectors, or one that adds to the files of another.

index = build(Encoding.open("vectors"), "index")          # or build(..., faiss="HNSW32", words=True)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.disk import whole_folder
from adaptkit.embed.canary_vectors import CANARIES
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import Encoding
from adaptkit.embed.faiss_vectors import write_faiss
from adaptkit.embed.index import Index
from adaptkit.embed.index_folder import (
    ADDED,
    ADDED_DOCUMENTS,
    EXACT,
    FAISS,
    GONE,
    INFO,
    check_replaceable,
    drop_others,
    switch,
    version_folder,
)
from adaptkit.embed.stored_documents import FILE, Document, write_documents
from adaptkit.errors import ConfigError, DataError, ModelError
from adaptkit.run import digest, file_digest, write_json, write_sealed

TOLD = ("model", "encoder", "dimensions", "normalised", "prompt", "prompt_name", "whole", "files", "sources")
"""What an index says of the encoding that it was made of."""


def encoder_of(index: Index, dtype: str = "float32") -> Encoder:
    """The encoder that made an index, from where it lay then.

    Raises: ModelError where it is not there any more, or the index does not say where it was.
    """
    place = index.info.get("encoder")
    if not place:
        what = "does not say where its model lies: an earlier release made it"
        raise ModelError(what, where=str(index.folder), fix="encode and index the documents again")
    return Encoder.load(place, dtype=dtype)


def build(encoding: Encoding, folder: str | Path, *, faiss: str = "", words: bool = False) -> Index:
    """Write an index of an encoding's vectors, in place of an older index.

    Args:
        faiss: a FAISS factory string such as HNSW32 or IVF256,Flat; empty: exact, nothing but a matrix
            product.
        words: rank by words (BM25) as well as by vectors.
    Raises: MissingDependency without FAISS, DataError for a string it does not know, or a folder that holds
        something else; ConfigError for FAISS with words.
    """
    if faiss and words:
        what = "ranking by words needs the score of every passage, and FAISS looks at some"
        raise ConfigError(what, where="--words", fix="leave --faiss out")
    folder = Path(folder).resolve()
    check_replaceable(folder)
    switch(folder, write_version(encoding, folder, faiss=faiss, words=words))
    drop_others(folder)
    return Index.open(folder)


def write_version(encoding: Encoding, folder: Path, *, faiss: str = "", words: bool = False) -> Path:
    """Write the vectors of an encoding as a version of an index, which does not answer yet.

    Returns: its folder. One that is there already, whole, is not written again.
    Raises: as `build`.
    """
    kind = {"faiss": faiss, "words": words}
    version = version_folder(folder, digest({**encoding.info, **kind}))
    if is_whole(version):
        return version
    vectors_ND = np.ascontiguousarray(encoding.vectors(), np.float32)
    counted = {"count": len(vectors_ND), "documents": encoding.info["documents"]}
    info = {key: encoding.info[key] for key in TOLD if key in encoding.info} | counted | kind
    with whole_folder(version, num_bytes=vectors_ND.nbytes) as temporary:
        if faiss:
            write_faiss(temporary / FAISS, vectors_ND, faiss)
        else:
            np.save(temporary / EXACT, vectors_ND)
        for name in (FILE, CANARIES):
            shutil.copyfile(encoding.folder / name, temporary / name)
        _seal(temporary, info, {})
    return version


def write_whole(
    old: Index, version: Path, info: dict[str, Any], documents: Sequence[Document], vectors_ND: np.ndarray
) -> None:
    """Write a version of another one's model, exact, with these documents and vectors alone."""
    with whole_folder(version, num_bytes=vectors_ND.nbytes) as temporary:
        np.save(temporary / EXACT, vectors_ND)
        write_documents(temporary / FILE, documents)
        shutil.copyfile(old.folder / CANARIES, temporary / CANARIES)
        _seal(temporary, info, {})


def write_added(
    old: Index,
    version: Path,
    info: dict[str, Any],
    added: Sequence[Document],
    added_ND: np.ndarray,
    gone: Sequence[int],
) -> None:
    """Write a version that keeps the base of another one, the files themselves where links can be made.

    Args:
        added: the documents beside the base, all of them, with their vectors.
        gone: places of documents of the base that are no more.
    """
    kept = {
        name: sha256 for name, sha256 in old.info["files_written"].items() if not name.startswith("added")
    }
    kept.pop(GONE, None)
    with whole_folder(version, num_bytes=added_ND.nbytes) as temporary:
        for name in kept:
            _link(old.folder / name, temporary / name)
        np.save(temporary / ADDED, added_ND)
        write_documents(temporary / ADDED_DOCUMENTS, added)
        write_json(temporary / GONE, list(gone))
        _seal(temporary, info, kept)


def is_whole(version: Path) -> bool:
    """Whether a version is there and undamaged."""
    if not (version / INFO).exists():
        return False
    try:
        Index.open_version(version)
    except DataError:  # damaged: it is written again
        return False
    return True


def _seal(folder: Path, info: dict[str, Any], known: dict[str, str]) -> None:
    """Write what a version is, with the digests of its files.

    Args:
        known: digests of files that another version has.
    """
    names = sorted(path.name for path in folder.iterdir())
    listed = {name: known[name] if name in known else file_digest(folder / name) for name in names}
    write_sealed(folder / INFO, {**info, "files_written": listed})


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
