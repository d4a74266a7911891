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

from adaptkit.errors import ModelError, first_line
from adaptkit.models.positions import usable_positions
from adaptkit.models.sentence.pooling import Pooling, by_structure, num_modes
from adaptkit.models.sentence.text_settings import ChatText, read_text_settings, settings_of_chat
from adaptkit.prompt_names import prompt_for
from adaptkit.run import read_json, write_json

SERVED_POOLINGS = ("mean", "cls", "last")
MAX_LENGTH = 512
"""Tokens of a text where the folder does not say; longer contexts are there to be asked for."""
ENDLESS = 2**20
"""Stands for the positions of a model that counts none."""
_LIBRARY = "sentence_transformers."
_MODULE = _LIBRARY + "models."
_MODULE_KEYS = {"idx", "name", "path", "type", "kwargs"}
_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")
_SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "last",
}
"""In the order in which several vectors stand one behind the other."""
_NAMES = {mode: "lasttoken" if mode == "last" else mode for mode in _FLAGS.values()}


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
        include_prompt: whether the tokens of a prompt are pooled too.
        truncated: numbers of a vector that the folder keeps by itself; 0 keeps all.
        similarity: what two vectors are compared by.
        chat: how texts go through the tokenizer's chat template, if they do.
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
    include_prompt: bool = True
    truncated: int = 0
    similarity: str = "cosine"
    chat: ChatText | None = None

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
        """The name, where the model has such a prompt; else None, which stands for its default prompt.

        A document's prompt may have any of the names that sentence-transformers looks for.
        """
        return prompt_for(name, self.prompts)


def read_layout(folder: Path, config: Any, tokenizer: Any) -> Layout:
    """The layout that a folder's files state; pooling by structure and unit vectors for a plain transformers
    folder.

    Raises: ModelError for a module or pooling that is not supported, or settings that cannot be read.
    """
    try:
        return _read_layout(folder, config, tokenizer)
    except (TypeError, ValueError, AttributeError, KeyError, OSError) as error:
        what = f"the settings of its pooling and prompts cannot be read: {first_line(error)}"
        fix = "copy or download the folder again"
        raise ModelError(what, where=str(folder / "modules.json"), fix=fix) from None


def _read_layout(folder: Path, config: Any, tokenizer: Any) -> Layout:
    longest = num_positions(config)
    dimensions = tuple(sorted(getattr(config, "matryoshka_dimensions", None) or (), reverse=True))
    if not (folder / "modules.json").exists():
        length = min(longest, int(min(tokenizer.model_max_length, MAX_LENGTH)))
        return Layout(by_structure(config), length, longest, dimensions=dimensions)
    kinds, dense = _read_modules(folder)
    settings = read_text_settings(kinds["Transformer"], tokenizer)
    stated = _read_optional(folder / "config_sentence_transformers.json")
    pooling, include_prompt = read_pooling(kinds["Pooling"] / "config.json")
    return Layout(
        pooling=pooling,
        max_length=int(min(settings.max_length or tokenizer.model_max_length, longest)),
        longest=longest,
        normalised="Normalize" in kinds,
        prompts={name: prompt or "" for name, prompt in (stated.get("prompts") or {}).items()},
        default_prompt=stated.get("default_prompt_name") or "",
        dimensions=dimensions,
        lower_case=settings.lower_case,
        dense=dense,
        include_prompt=include_prompt,
        truncated=int(stated.get("truncate_dim") or 0),
        similarity=_read_similarity(stated, folder),
        chat=settings.chat,
    )


def _read_similarity(stated: dict[str, Any], folder: Path) -> str:
    similarity = str(stated.get("similarity_fn_name") or "cosine")
    if similarity not in _SIMILARITIES:
        where, fix = (
            str(folder / "config_sentence_transformers.json"),
            f"known are {', '.join(_SIMILARITIES)}",
        )
        raise ModelError(f"has the similarity_fn_name '{similarity}'", where=where, fix=fix)
    return similarity


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
    write_json(folder / "1_Pooling" / "config.json", _pooling_config(layout, width))
    if layout.normalised:
        write_json(folder / normalize / "config.json", {})
    settings: dict[str, Any] = {"max_seq_length": layout.max_length, "do_lower_case": layout.lower_case}
    if layout.chat is not None:
        settings |= settings_of_chat(layout.chat)
    write_json(folder / "sentence_bert_config.json", settings)
    stated: dict[str, Any] = {
        "prompts": layout.prompts,
        "default_prompt_name": layout.default_prompt or None,
        "similarity_fn_name": layout.similarity,
    }
    if layout.truncated:
        stated["truncate_dim"] = layout.truncated
    write_json(folder / "config_sentence_transformers.json", stated)


def _pooling_config(layout: Layout, width: int) -> dict[str, Any]:
    """The flags that every release knows; for several vectors their names, which keep the order."""
    modes = layout.pooling.split("+")
    if num_modes(layout.pooling) > 1:
        names = [_NAMES[mode] for mode in modes]
        return {"embedding_dimension": width, "pooling_mode": names, "include_prompt": layout.include_prompt}
    flags = {flag: mode == modes[0] for flag, mode in _FLAGS.items()}
    return {"word_embedding_dimension": width, **flags, "include_prompt": layout.include_prompt}


def check_servable(layout: Layout, where: str) -> None:
    """Refuse what a server's /v1/embeddings would silently do otherwise than the folder says.

    vLLM pools by one way, over all tokens of the text as it is sent, and gives whole vectors.
    """
    what = ""
    if layout.chat is not None:
        what = "sends texts through its chat template, which a server does not"
    elif layout.pooling not in SERVED_POOLINGS:
        what = f"has {layout.pooling} pooling, which a server does not know"
    elif not layout.include_prompt and any(layout.prompts.values()):
        what = "leaves prompts out of its pooling, which a server does not"
    elif layout.truncated:
        what = f"cuts its vectors to {layout.truncated} numbers, which a server does not by itself"
    if what:
        fix = "encode with `adaptkit embed encode`, or train it once with `adaptkit embed train pooling=mean`"
        raise ModelError(what, where=where, fix=fix)


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
    for module in modules:
        _check_module(module, where)
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


def _check_module(module: dict[str, Any], where: str) -> None:
    """Refuse a module of other code, or one that wants what is not known here."""
    kind, path = str(module.get("type")), str(module.get("path") or "")
    if not kind.startswith(_LIBRARY):
        fix = "choose a model of sentence-transformers' own modules; no code of a folder is run"
        raise ModelError(f"has the module {kind}", where=where, fix=fix)
    odd = sorted(set(module) - _MODULE_KEYS)
    if odd or module.get("kwargs"):
        what = f"has a module with {odd[0] if odd else 'kwargs'}, which is not supported"
        raise ModelError(what, where=where, fix="choose a model without it")
    if kind.endswith(".Transformer") and path:
        fix = "move the model's files beside modules.json and set its path to ''"
        raise ModelError(f"keeps its model in the subfolder {path}", where=where, fix=fix)


def read_pooling(path: Path) -> tuple[Pooling, bool]:
    """(pooling, whether a prompt's tokens take part)."""
    config = read_json(path)
    names = (
        config.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if config.get(flag)] or ["mean"]
    )
    if isinstance(names, str):
        names = [names]
    mode_of = {"lasttoken": "last", **{mode: mode for mode in _NAMES}}
    if odd := [name for name in names if name not in mode_of]:
        fix = f"choose a model with some of {', '.join(_NAMES.values())}"
        raise ModelError(f"pooling '{odd[0]}' is not supported", where=str(path), fix=fix)
    known = {"pooling_mode", "include_prompt", "word_embedding_dimension", "embedding_dimension", *_FLAGS}
    if unknown := sorted(set(config) - known):
        what = f"has the setting {unknown[0]}, which is not supported"
        raise ModelError(what, where=str(path), fix="choose a model without it")
    return "+".join(mode_of[name] for name in names), config.get("include_prompt") is not False


def num_positions(config: Any) -> int:
    """Tokens that the model has positions for; where nothing ends them, as many as anyone may ask for."""
    return usable_positions(config) or ENDLESS
