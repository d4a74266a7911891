"""Put an embedding model's own words before texts, as sentence-transformers does: `query: how do I ...`.

    config_sentence_transformers.json   {"prompts": {"query": "query: ", "passage": "passage: "},
                                         "default_prompt_name": null}

vLLM 0.32 reads none of it. A request says which prompt with `prompt_name`; without it the folder's default is
put there, and "" is none at all. Where a route names its texts, no word is needed: `/rerank` puts the prompt
of queries before the query and that of documents before the documents.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError, nearest
from adaptkit.prompt_names import DOCUMENT, QUERY, prompt_for
from adaptkit.serve.gateway.refused import Refused
from adaptkit.weight_files import read_json_object

FIELD = "prompt_name"
FILE = "config_sentence_transformers.json"
ROUTES = frozenset({"/v1/embeddings", "/pooling"})
"""Routes on which a request may name the prompt."""
OWN_FIELDS = dict.fromkeys(ROUTES, (FIELD,))
"""Route -> the fields of a request that are read here."""
PART_OF_FIELD = {
    "query": QUERY,
    "queries": QUERY,
    "documents": DOCUMENT,
    "items": DOCUMENT,
    "text_1": "",
    "text_2": "",
    "data_1": "",
    "data_2": "",
}
"""Field of two sides that are compared -> which texts it holds; "" for either, which get the default."""


@dataclass(frozen=True)
class TextPrompts:
    """The prompts of one folder.

    Attributes:
        words: name -> what is put before a text.
        default: name of the prompt where none is asked for; empty for none.
    """

    words: dict[str, str] = field(default_factory=dict)
    default: str = ""

    def body_with_prompts(self, path: str, body: dict[str, Any]) -> bytes | None:
        """Write a request's body anew with the prompts in its texts; None where the bytes may stay.

        Raises: Refused (400) for a prompt that the model does not have, or that cannot be put there.
        """
        changed = dict(body)
        named = changed.pop(FIELD, None)
        words = self._words_of(named)
        if words and not _holds_text(body.get("input")) and named is not None:
            raise Refused(400, f"`{FIELD}` goes with texts as `input`", param=FIELD)
        changed["input"] = _prefixed(body.get("input"), words)
        for name, part in PART_OF_FIELD.items():
            if name in body and path not in ROUTES:
                changed[name] = _prefixed(body[name], self._words_of(prompt_for(part, self.words)))
        changed = {name: value for name, value in changed.items() if name in body}
        if changed == body:
            return None
        return json.dumps(changed, ensure_ascii=False).encode()

    def _words_of(self, name: Any) -> str:
        """Find the words of a prompt by its name, or the default's for None."""
        if name is None:
            return self.words.get(self.default, "")
        if name == "":
            return ""
        if not isinstance(name, str) or name not in self.words:
            listed = ", ".join(self.words) or "none"
            meant = nearest(str(name)[:100], self.words)
            what = f"the model has no prompt named '{str(name)[:100]}'{meant}; it has: {listed}"
            raise Refused(400, what, param=FIELD)
        return self.words[name]


def read_prompts(folder: Path) -> TextPrompts:
    """Read the prompts that a folder of sentence-transformers' states; none for any other folder.

    Raises: ModelError for a file that cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return TextPrompts()
    stated = read_json_object(folder, FILE)
    prompts = stated.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        fix = 'write {"prompts": {"query": "query: "}}'
        raise ModelError("its prompts are no texts by name", where=str(path), fix=fix)
    return TextPrompts(
        {str(name): text or "" for name, text in prompts.items()},
        str(stated.get("default_prompt_name") or ""),
    )


def _holds_text(value: Any) -> bool:
    """Say whether a value is a text or a list that holds some; token ids are neither."""
    return isinstance(value, str) or (isinstance(value, list) and any(isinstance(x, str) for x in value))


def _prefixed(value: Any, words: str) -> Any:
    """Put words before a text, or before each text of a list; what is no text stays as it is."""
    if isinstance(value, str):
        return words + value
    if isinstance(value, list):
        return [words + item if isinstance(item, str) else item for item in value]
    return value
