"""The offline default corpus: text that every machine with adaptkit's dependencies already holds.

    corpus = offline_corpus(cache)
    read(DataConfig(files=[str(corpus.general)]), "text")       # English prose of docstrings and descriptions
    read(DataConfig(files=[str(corpus.domain)]), "text")        # Python source without docstrings or comments
    read(DataConfig(files=[str(corpus.functions)]), "labelled") # functions, labelled with their package

Nothing is downloaded or shipped. The text depends on installed versions alone; the manifest names each
distribution with version, licence and bytes. Tests and vendored copies are left out, and so is every
paragraph, block or function of which a fifth was seen before. Modules that lend functions lend nothing to the
domain text, so the labelled task is not in the pretraining corpus. Functions of one module share a `group`,
so `split` keeps them on one side.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

from adaptkit.data.ngrams import Novelty
from adaptkit.data.python_source import docstrings, functions, parse, prose, strip
from adaptkit.disk import whole_folder
from adaptkit.errors import DataError
from adaptkit.run import digest, file_digest, read_json, write_json, write_jsonl

RECIPE = 3  # raise when the text this module makes changes
LABELS = ("transformers", "pandas", "sympy", "networkx")
OTHERS = (
    "torch",
    "numpy",
    "scipy",
    "sklearn",
    "python",
    "datasets",
    "huggingface_hub",
    "pydantic",
    "pyarrow",
    "peft",
    "accelerate",
    "aiohttp",
    "fsspec",
    "jinja2",
    "mpmath",
    "joblib",
    "rich",
    "click",
    "typer",
    "evaluate",
    "safetensors",
    "tokenizers",
    "filelock",
    "multiprocess",
    "dill",
)
DISTRIBUTION = {"sklearn": "scikit-learn"}  # where it is not the module's own name
_LEFT_OUT = re.compile(
    r"(?:^|[/_])(?:tests?|testing|site-packages|dist-packages|idlelib|lib2to3|encodings|pydoc_data|conftest|vendor(?:ed)?|_?vendored_\w+|third_party|extern(?:al)?s?|_?pb2?|generated)(?:[/_.]|$)"
)
_GIVE_AWAY = re.compile(
    r"pytorch|torch|transformers|numpy|scipy|sklearn|scikit|pandas|sympy|networkx|hugging_?face",
    re.IGNORECASE,
)
_ALIAS = re.compile(r"\b(?:np|pd|nx|sp|tf|jnp|jax|xp|xpx|hf)\b")
LARGEST_FILE = 100_000  # bytes; longer modules are tables more often than code
FUNCTION_SIZE = (120, 1600)  # characters
FUNCTIONS_PER_MODULE = 24
FUNCTION_MODULES = 0.75  # share of a labelled package's modules that lend functions rather than text


@dataclass(frozen=True)
class OfflineCorpus:
    """Paths of the three JSONL files, and the manifest.

    Rows hold `text`, `source` and `licence`; functions also `label` and `group`.
    """

    general: Path
    domain: Path
    functions: Path
    manifest: dict[str, Any]


def offline_corpus(
    cache_folder: str | Path,
    general_bytes: int = 8_000_000,
    domain_bytes: int = 8_000_000,
    num_functions: int = 6_000,
) -> OfflineCorpus:
    """Build the corpus, or find it in `cache_folder`, where its name is a digest of versions and sizes.

    Less than asked is returned when the installed packages hold less; the manifest has the true counts.
    Raises: DataError when hardly any of the packages are installed.
    """
    packages = {name: package for name in (*LABELS, *OTHERS) if (package := _package(name))}
    if sum(name in packages for name in LABELS) < 4:
        what, fix = "too few of the usual packages are installed", "install adaptkit with its dependencies"
        raise DataError(what, where=", ".join(LABELS), fix=fix)
    versions = {name: package["version"] for name, package in packages.items()}
    sizes = [general_bytes, domain_bytes, num_functions]
    key = digest({"recipe": RECIPE, "versions": versions, "sizes": sizes})[:12]
    folder = Path(cache_folder) / f"offline-{key}"
    if not _valid(folder):
        with whole_folder(folder) as temporary:
            _build(temporary, packages, general_bytes, domain_bytes, num_functions)
    manifest = read_json(folder / "manifest.json")
    return OfflineCorpus(
        folder / "general.jsonl", folder / "domain.jsonl", folder / "functions.jsonl", manifest
    )


def _valid(folder: Path) -> bool:
    if not (folder / "manifest.json").is_file():
        return False
    files = read_json(folder / "manifest.json")["files"]
    return all(
        (folder / name).is_file() and file_digest(folder / name) == item["sha256"]
        for name, item in files.items()
    )


def _build(
    folder: Path,
    packages: dict[str, dict[str, Any]],
    general_bytes: int,
    domain_bytes: int,
    num_functions: int,
) -> None:
    novel_prose, novel_code = Novelty(), Novelty()
    labelled = _functions(packages, num_functions, novel_code)
    code = {name: _code_rows(package, novel_code) for name, package in packages.items()}
    text = {name: _prose_rows(package, novel_prose) for name, package in packages.items()}
    parts = {
        "general.jsonl": _share_out(general_bytes, text),
        "domain.jsonl": _share_out(domain_bytes, code),
        "functions.jsonl": labelled,
    }
    files = {}
    for name, rows in parts.items():
        write_jsonl(folder / name, rows)
        sizes = Counter[str]()
        for row in rows:
            sizes[row["source"].split("/")[0]] += len(row["text"].encode())
        files[name] = {
            "rows": len(rows),
            "num_bytes": sum(sizes.values()),
            "sha256": file_digest(folder / name),
            "by_package": dict(sizes),
        }
    described = [
        {key: value for key, value in package.items() if key != "root"} for package in packages.values()
    ]
    write_json(folder / "manifest.json", {"recipe": RECIPE, "distributions": described, "files": files})


def _package(name: str) -> dict[str, Any] | None:
    """Distribution, version, licence and folder of an installed package; None if it is not there."""
    if name == "python":
        root = Path(os.__file__).parent
        return {
            "package": name,
            "distribution": "Python",
            "version": platform.python_version(),
            "licence": "PSF-2.0",
            "root": root,
        }
    try:
        distribution = importlib.metadata.distribution(DISTRIBUTION.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return None
    root = Path(str(distribution.locate_file(name)))
    if not root.is_dir():
        return None
    return {
        "package": name,
        "distribution": distribution.metadata["Name"],
        "version": distribution.version,
        "licence": _licence(_metadata(distribution)),
        "root": root,
    }


def _metadata(distribution: importlib.metadata.Distribution) -> Message:
    return cast(Message, distribution.metadata)  # an email message, which the declared type does not say


def _licence(metadata: Message) -> str:
    """The licence that a distribution states in a line of its own, else in its classifiers."""
    stated = metadata.get("License-Expression") or metadata.get("License") or ""
    if stated and "\n" not in stated:  # some packages put the whole licence there
        return stated
    classifiers = metadata.get_all("Classifier") or []
    licences = (line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::"))
    return next(licences, "not stated")


def _modules(root: Path) -> list[Path]:
    """The package's own .py files, in an order that depends on their names alone but is not alphabetical."""
    files = [path for path in root.rglob("*.py") if not _LEFT_OUT.search(path.relative_to(root).as_posix())]
    return sorted(files, key=lambda path: _name_hash(f"{root.name}/{path.relative_to(root).as_posix()}"))


def _name_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _source(path: Path) -> str:
    if path.stat().st_size > LARGEST_FILE:
        return ""
    return path.read_text(encoding="utf-8", errors="ignore").replace("\0", "")


def _share_out(total: int, supplies: dict[str, Iterator[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of about `total` bytes: packages give equal parts; what small ones leave goes to the others."""
    taken: list[dict[str, Any]] = []
    size, open_supplies = 0, dict(supplies)
    while open_supplies and size < total:
        part = max(1, (total - size) // len(open_supplies))
        for name in list(open_supplies):
            part_size = 0
            while part_size < part and size < total:
                row = next(open_supplies[name], None)
                if row is None:
                    del open_supplies[name]
                    break
                taken.append(row)
                num_bytes = len(row["text"].encode())
                part_size += num_bytes
                size += num_bytes
    return sorted(taken, key=lambda row: _name_hash(row["source"]))


def _prose_rows(package: dict[str, Any], novel: Novelty) -> Iterator[dict[str, Any]]:
    root: Path = package["root"]
    modules = ((path.relative_to(root).as_posix(), docstrings(_source(path))) for path in _modules(root))
    for name, parts in chain([("README", [_about(package)])], modules):
        paragraphs = [line for part in parts for line in prose(part) if novel(line)]
        if sum(map(len, paragraphs)) >= 300:
            yield _row(package, name, "\n".join(paragraphs))


def _about(package: dict[str, Any]) -> str:
    """A package's description; for Python the topics of its language reference."""
    if package["package"] == "python":
        from pydoc_data import topics

        return "\n\n".join(topics.topics.values())
    return str(_metadata(importlib.metadata.distribution(package["distribution"])).get_payload())


def _code_rows(package: dict[str, Any], novel: Novelty) -> Iterator[dict[str, Any]]:
    for path in _modules(package["root"]):
        name = path.relative_to(package["root"]).as_posix()
        source = _source(path)
        if _lends_functions(package["package"], name) or not source or (tree := parse(source)) is None:
            continue
        text = "\n".join(line.rstrip() for line in strip(source, tree))
        blocks = (block.strip("\n") for block in re.split(r"\n\s*\n", text) if block.strip())
        novel_text = "\n\n".join(block for block in blocks if novel(mask_give_aways(block)))
        if len(novel_text) >= 400:
            yield _row(package, name, novel_text)


def _lends_functions(package: str, name: str) -> bool:
    """Whether a module gives functions to the labelled task, and therefore nothing to the domain text."""
    return (
        package in LABELS
        and int(_name_hash(f"functions/{package}/{name}")[:8], 16) / 16**8 < FUNCTION_MODULES
    )


def _functions(packages: dict[str, dict[str, Any]], num_rows: int, novel: Novelty) -> list[dict[str, Any]]:
    """Equally many functions of each labelled package, in an order that does not tell the label.

    A package that has less than half of its part is left out rather than making all classes small.
    """
    each = -(-num_rows // sum(label in packages for label in LABELS))
    supply = {
        label: list(islice(_function_rows(packages[label], novel), each))
        for label in LABELS
        if label in packages
    }
    enough = {label: rows for label, rows in supply.items() if len(rows) >= each // 2}
    fewest = min(map(len, enough.values()))
    chosen = [row for rows in enough.values() for row in rows[:fewest]]
    return sorted(chosen, key=lambda row: _name_hash(row["text"]))


def _function_rows(package: dict[str, Any], novel: Novelty) -> Iterator[dict[str, Any]]:
    for path in _modules(package["root"]):
        name = path.relative_to(package["root"]).as_posix()
        if not _lends_functions(package["package"], name) or (tree := parse(_source(path))) is None:
            continue
        smallest, largest = FUNCTION_SIZE
        num_lent = 0
        for text in functions(tree, strip(_source(path), tree)):
            text = mask_give_aways(text)
            if num_lent < FUNCTIONS_PER_MODULE and smallest <= len(text) <= largest and novel(text):
                num_lent += 1
                row = _row(package, name, text)
                yield {**row, "label": package["package"], "group": row["source"]}


def mask_give_aways(text: str) -> str:
    """Replace package names and their usual aliases by `lib`, so that only habits tell the package."""
    return _ALIAS.sub("lib", _GIVE_AWAY.sub("lib", text))


def _row(package: dict[str, Any], name: str, text: str) -> dict[str, Any]:
    return {"text": text, "source": f"{package['package']}/{name}", "licence": package["licence"]}
