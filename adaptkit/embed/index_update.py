"""Add, replace and delete documents of an index that answers meanwhile; what stays is not encoded again.

    change = plan_update(Index.open("index"), files=["new.jsonl"], delete=["PMC7"])
    index = apply_update("index", change, encoder_of)

An update is a version of its own: it keeps the files of the one before and adds small ones, or is written
whole where much has changed. It answers once it is complete; a process that is killed before leaves the index
as it was, and the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adaptkit.data.files import find_files
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import encode_documents
from adaptkit.embed.index import Index
from adaptkit.embed.index_folder import drop_others, next_folder, switch, version_folder
from adaptkit.embed.index_writing import is_whole, write_added, write_whole
from adaptkit.embed.migration import check_keeps_texts
from adaptkit.embed.stored_documents import Document, read_documents
from adaptkit.errors import DataError, ModelError
from adaptkit.run import digest

WRITTEN_WHOLE = 0.25
"""Share of an exact index's passages that may be added or gone before it is written whole."""


@dataclass(frozen=True)
class Change:
    """What an update does to an index.

    Attributes:
        new, replaced: documents with texts to be encoded: of ids that were not there, and that were.
        relabelled: documents whose texts stay, and whose fields are others.
        deleted: ids.
        num_unchanged: documents of the files that the index holds as they are.
        missing: ids to delete that the index does not hold.
    """

    old: Index
    new: tuple[Document, ...] = ()
    replaced: tuple[Document, ...] = ()
    relabelled: tuple[Document, ...] = ()
    deleted: tuple[str, ...] = ()
    num_unchanged: int = 0
    missing: tuple[str, ...] = ()

    @property
    def to_encode(self) -> tuple[Document, ...]:
        return (*self.new, *self.replaced)

    @property
    def changes(self) -> bool:
        """Whether anything is another than before."""
        return bool(self.to_encode or self.relabelled or self.deleted)

    @property
    def digest(self) -> str:
        """Of the documents that the index holds afterwards, as far as what was before is known by its own."""
        rows = [document.as_json() for document in (*self.to_encode, *self.relabelled)]
        return digest([self.old.info["files"], rows, sorted(self.deleted)])


def plan_update(old: Index, files: Sequence[str] = (), delete: Sequence[str] = ()) -> Change:
    """Compare documents with those that an index holds.

    Args:
        files: documents to add; one with an id that is there replaces it.
        delete: ids.
    Raises: DataError for unreadable rows, an id given twice, an id to add and to delete, or an index of an
        earlier release.
    """
    check_keeps_texts(old)
    wanted, seen = dict.fromkeys(delete), dict[str, str]()
    kinds: dict[str, list[Document]] = {"new": [], "replaced": [], "relabelled": []}
    num_unchanged = 0
    for document in read_documents(find_files(list(files))[0] if files else []):
        name = document.id
        if name in seen or name in wanted:
            first = f"first at {seen[name]}" if name in seen else "and to be deleted"
            fix = "give every document an id of its own, once"
            raise DataError(f"the id '{name}' is given twice, {first}", where=document.where, fix=fix)
        seen[name] = document.where
        if name not in old.places:
            kinds["new"].append(document)
            continue
        before = old.document(old.places[name])
        if not document.same_text(before):
            kinds["replaced"].append(document)
        elif document.fields != before.fields:
            kinds["relabelled"].append(replace(document, spans=before.spans))
        else:
            num_unchanged += 1
    missing = tuple(name for name in wanted if name not in old.places)
    deleted = tuple(name for name in wanted if name in old.places)
    new, replaced, relabelled = (tuple(kinds[kind]) for kind in ("new", "replaced", "relabelled"))
    return Change(old, new, replaced, relabelled, deleted, num_unchanged, missing)


def apply_update(folder: str | Path, change: Change, encoder_of: Callable[[Index], Encoder]) -> Index:
    """Write the version that holds a change, and let it answer; older ones are deleted.

    Args:
        encoder_of: opens the model of the index, which is asked for only where something is to be encoded.
    Raises: ModelError for another model than that of the index; DataError for a FAISS index that does not
        give back the vectors of a document whose fields alone have changed.
    """
    folder, old = Path(folder).resolve(), change.old
    if not change.changes:
        return old
    made_of = change.digest
    version = version_folder(folder, digest([made_of, old.info["model"], old.info["dimensions"]]))
    if not is_whole(version):
        parts = [*_encoded(folder, change, made_of, encoder_of), *_kept_vectors(change)]
        _write(version, change, made_of, parts)
    switch(folder, version)
    drop_others(folder)
    return Index.open(folder)


Part = tuple[Document, np.ndarray]
"""A document with its vectors, float32 [passages, D]."""


def _encoded(
    folder: Path, change: Change, made_of: str, encoder_of: Callable[[Index], Encoder]
) -> list[Part]:
    """Encode what is new, as the index's other documents were encoded."""
    if not change.to_encode:
        return []
    info, encoder = change.old.info, encoder_of(change.old)
    change.old.check(encoder)
    prompt = info["prompt_name"]
    if encoder.layout.prompt(prompt) != info["prompt"]:
        what = "puts other words before documents than those that the index was made with"
        raise ModelError(what, where=encoder.name, fix="encode and index all documents again")
    encoding = encode_documents(
        encoder,
        change.to_encode,
        next_folder(folder, made_of),
        made_of,
        prompt=prompt,
        dimensions=info["dimensions"],
        whole=info["whole"],
        total=len(change.to_encode),
    )
    documents, vectors_ND = encoding.documents(), encoding.vectors()
    ends = np.cumsum([len(spans) for spans in documents.spans])
    pieces = np.split(np.asarray(vectors_ND), ends[:-1])
    return [(documents[place], pieces[place]) for place in range(len(documents))]


def _kept_vectors(change: Change) -> list[Part]:
    """Documents that get other fields, with the vectors that they have."""
    old = change.old
    return [(document, old.vectors_of(old.places[document.id])) for document in change.relabelled]


def _write(version: Path, change: Change, made_of: str, parts: list[Part]) -> None:
    old, num_base = change.old, len(change.old.base)
    leaving = {document.id for document, _ in parts} | set(change.deleted)
    left = [place for name, place in old.places.items() if name in leaving]
    gone = sorted({*old.gone, *(place for place in left if place < num_base)})
    stay = [place for name, place in old.places.items() if name not in leaving]
    added = [(old.document(place), old.vectors_of(place)) for place in stay if place >= num_base] + parts
    per_document = np.diff(old.first_rows)
    num_gone, num_added = int(per_document[gone].sum()), sum(len(vectors) for _, vectors in added)
    counts = {
        "count": old.num_base_passages - num_gone + num_added,
        "documents": num_base - len(gone) + len(added),
    }
    info = {key: value for key, value in old.info.items() if key != "files_written"}
    info |= counts | {"files": made_of, "updates": info.get("updates", 0) + 1}
    much = num_gone + num_added > WRITTEN_WHOLE * old.num_base_passages
    if much and not old.info["faiss"]:
        kept = [(old.document(place), old.vectors_of(place)) for place in stay if place < num_base]
        whole = [*kept, *added]
        write_whole(old, version, info, [each for each, _ in whole], _stacked(whole, info["dimensions"]))
        return
    write_added(old, version, info, [each for each, _ in added], _stacked(added, info["dimensions"]), gone)


def _stacked(parts: Sequence[Part], dimensions: int) -> np.ndarray:
    empty_ND = np.zeros((0, dimensions), np.float32)
    return np.concatenate([empty_ND, *(vectors_ND for _, vectors_ND in parts)])
