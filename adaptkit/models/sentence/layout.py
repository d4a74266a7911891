"""How a folder turns text into vectors: read from and written as the files of sentence-transformers.

    modules.json                        Transformer, Pooling, Dense (if any), Normalize
    1_Pooling/config.json               which pooling
    2_Dense/ ...                        a matrix and an activation over whole vectors: `models.sentence.dense`
    2_Normalize/
    sentence_bert_config.json           tokens after which a text is cut
    config_sentence_transformers.json   prompts by name, the default one
    config.json                         matryoshka_dimensions, which vLLM asks for before it cuts vectors

Written with the keys that every release of sentence-transformers since 2.0 and vLLM understand; the newer
ones of release 6 are read too.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.models.positions import usable_positions
from adaptkit.models.sentence.pooling import Pooling, by_structure
from adaptkit.run import read_json, write_json

MAX_LENGTH = 512
"""Tokens of a text where the folder does not say; longer contexts are there to be asked for."""
ENDLESS = 2**20
"""Stands for the positions of a model that counts none."""
_MODULE = "sentence_transformers.models."
_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")
_NAMES: dict[str, Pooling] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Layout:
    """What happens between text and vector.

    Attributes:
        max_length: tokens after which a text is cut, special ones included.
        longest: tokens that the model has positions for.
        prompts: name -> words put before a text.
        default_prompt: the name of the prompt used where none is asked for; "" is none.
        dimensions: sizes that vectors may be cut to, largest first; empty where the model was not trained for
            it.
        lower_case: whether text is lower-cased before it is tokenised.
        dense: folders of the Dense modules that pooled vectors go through, in order.
    """

    pooling: Pooling
    max_length: int
    longest: int
    normalised: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    dimensions: tuple[int, ...] = ()
    lower_case: bool = False
    dense: tuple[str, ...] = ()

    def prompt(self, name: str | None) -> str:
        """The words before a text: of the named prompt, or of the default one for None.

        Raises: ModelError for a name that the model does not have.
        """
        if name is None:
            name = self.default_prompt
        if name and name not in self.prompts:
            names = ", ".join(self.prompts) or "none"
            raise ModelError(
                f"the model has no prompt named '{name}'", where="prompts", fix=f"it knows: {names}"
            )
        return self.prompts.get(name, "")

    def prompt_if_any(self, name: str) -> str | None:
        """The name, where the model has such a prompt; else None, which stands for its default prompt."""
        if name in self.prompts:
            return name
        return None


def read_layout(folder: Path, config: Any, tokenizer: Any) -> Layout:
    """The layout that a folder's files state; pooling by structure and unit vectors for a plain transformers
    folder.

    Raises: ModelError for a module or pooling that is not supported.
    """
    longest = num_positions(config)
    dimensions = tuple(sorted(getattr(config, "matryoshka_dimensions", None) or (), reverse=True))
    if not (folder / "modules.json").exists():
        length = min(longest, int(min(tokenizer.model_max_length, MAX_LENGTH)))
        return Layout(by_structure(config), length, longest, dimensions=dimensions)
    kinds, dense = _read_modules(folder)
    settings = _read_optional(kinds["Transformer"] / "sentence_bert_config.json")
    prompts = _read_optional(folder / "config_sentence_transformers.json")
    return Layout(
        pooling=_read_pooling(kinds["Pooling"] / "config.json"),
        max_length=min(settings.get("max_seq_length") or longest, longest),
        longest=longest,
        normalised="Normalize" in kinds,
        prompts={name: prompt for name, prompt in (prompts.get("prompts") or {}).items() if prompt},
        default_prompt=prompts.get("default_prompt_name") or "",
        dimensions=dimensions,
        lower_case=bool(settings.get("do_lower_case")),
        dense=dense,
    )


def _read_optional(path: Path) -> Any:
    """What a JSON file holds, or an empty object where there is no such file."""
    if not path.exists():
        return {}
    return read_json(path)


def dense_names(count: int) -> tuple[str, ...]:
    """The folders that `count` Dense modules are written to: sentence-transformers numbers modules as they
    follow each other."""
    return tuple(f"{place + 2}_Dense" for place in range(count))


def write_layout(folder: Path, layout: Layout, width: int) -> None:
    """The files beside the model's own that make the folder a sentence-transformers one; `width` is its
    hidden size.

    The folders of Dense modules are named in modules.json; `write_dense` fills them.
    """
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), *((name, "Dense") for name in layout.dense)]
    normalize = f"{len(parts)}_Normalize"
    if layout.normalised:
        parts.append((normalize, "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": _MODULE + kind}
        for i, (path, kind) in enumerate(parts)
    ]
    write_json(folder / "modules.json", modules)
    name_of_pooling = next(name for name, pooling in _NAMES.items() if pooling == layout.pooling)
    flags = {flag: name == name_of_pooling for flag, name in _FLAGS.items()}
    pooling = {"word_embedding_dimension": width, **flags, "include_prompt": True}
    write_json(folder / "1_Pooling" / "config.json", pooling)
    if layout.normalised:
        write_json(folder / normalize / "config.json", {})
    limits = {"max_seq_length": layout.max_length, "do_lower_case": layout.lower_case}
    write_json(folder / "sentence_bert_config.json", limits)
    prompts = {
        "prompts": layout.prompts,
        "default_prompt_name": layout.default_prompt or None,
        "similarity_fn_name": "cosine",
    }
    write_json(folder / "config_sentence_transformers.json", prompts)


def changed(layout: Layout, width: int, **changes: Any) -> Layout:
    """The layout with some fields set.

    Raises: ModelError for dimensions that the hidden size `width` does not have.
    """
    layout = dataclasses.replace(layout, **changes)
    sizes = layout.dimensions
    if sizes and not 0 < sizes[-1] <= sizes[0] <= width:
        fix = f"choose sizes from 1 to {width}"
        raise ModelError(f"vectors have {width} dimensions", where="dimensions", fix=fix)
    return layout


def _read_modules(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """(kind -> folder of each module but the Dense ones, folders of those).

    Raises: ModelError for a module that is not supported, or an order of them that is not.
    """
    where, modules = str(folder / "modules.json"), read_json(folder / "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if odd := [kind for kind in kinds if kind not in _ORDER]:
        fix = f"choose a model of {', '.join(_ORDER)} modules alone"
        raise ModelError(f"has a {odd[0]} module", where=where, fix=fix)
    single = [kind for kind in kinds if kind != "Dense"]
    in_order = kinds == sorted(kinds, key=_ORDER.index) and single[:2] == ["Transformer", "Pooling"]
    if not in_order or len(set(single)) < len(single):
        what = f"has its modules in the order {', '.join(kinds)}"
        raise ModelError(what, where=where, fix=f"choose a model with the order {', '.join(_ORDER)}")
    folders = list(zip(kinds, (module["path"] for module in modules), strict=True))
    dense = tuple(path for kind, path in folders if kind == "Dense")
    return {kind: folder / path for kind, path in folders if kind != "Dense"}, dense


def _read_pooling(path: Path) -> Pooling:
    config = read_json(path)
    names = config.get("pooling_mode") or [name for flag, name in _FLAGS.items() if config.get(flag)]
    if isinstance(names, str):
        names = [names]
    if len(names) != 1 or names[0] not in _NAMES:
        fix = f"choose a model with one of {', '.join(_NAMES)}"
        raise ModelError(f"pooling '{'+'.join(names)}' is not supported", where=str(path), fix=fix)
    if config.get("include_prompt") is False:
        fix = "choose a model that pools all tokens"
        raise ModelError("leaves the prompt out of the pooling", where=str(path), fix=fix)
    return _NAMES[names[0]]


def num_positions(config: Any) -> int:
    """Tokens that the model has positions for; where nothing ends them, as many as anyone may ask for."""
    return usable_positions(config) or ENDLESS
