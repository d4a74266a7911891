"""Try a model folder's chat templates and tokenizer in a child process with limits of time and memory.

    check_templates(Path("models/base"))      # ModelError for one that does not come to an end
    check_tokenizer(Path("models/base"))

A chat template is a program, and a tokenizer may hold regular expressions: whether they end, and in how much
memory, only a try can tell. The child (`folder_trial_child`) loads neither torch nor transformers. What has
plain parts alone is not tried: none of them takes more than time in proportion to a text.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from adaptkit import folder_trial_child
from adaptkit.errors import ModelError
from adaptkit.weight_files import AGAIN, check_plain, read_json_object, read_json_value

MAX_TEMPLATE_CHARS = 1 << 18
MAX_TRIAL_S = 60.0
"""Of the clock, for a machine that is busy; the processor's time is what is bounded: `CPU_S` of the child."""
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
MORE_TEMPLATES = "additional_chat_templates"
PLAIN_PARTS = {
    "normalizer": {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "BertNormalizer"},
    "pre_tokenizer": {
        "ByteLevel",
        "BertPreTokenizer",
        "Whitespace",
        "WhitespaceSplit",
        "Metaspace",
        "Punctuation",
        "Digits",
    },
    "model": {"BPE", "WordPiece", "WordLevel", "Unigram"},
}
_GROWS = re.compile(
    r"[*~|]|\b(range|macro|recursive|call|set|namespace|import|include|extends|filter|block)\b|\w\s*\("
    r"|(?<!\{)%(?!\})"
)
MAX_PARTS, MAX_ADDED, MAX_WORD_CHARS, MAX_SPECIAL = 16, 4096, 1000, 64


def check_templates(folder: Path) -> None:
    """Refuse a chat template that does not end soon, or writes far more than it is given.

    Raises: ModelError.
    """
    for where, template in _templates(folder):
        if len(template) > MAX_TEMPLATE_CHARS:
            what = f"a chat template of {len(template):,} characters; no model's has {MAX_TEMPLATE_CHARS:,}"
            raise ModelError(what, where=str(where), fix=AGAIN)
        if _is_plain_template(template):
            continue
        if problem := _tried("template", template):
            fix = "put the template there that the model was published with"
            raise ModelError(f"the chat template {problem}", where=str(where), fix=fix)


def check_tokenizer(folder: Path) -> None:
    """Refuse a tokenizer that takes more time, memory or tokens for a text than its length explains.

    Raises: ModelError.
    """
    file = folder / "tokenizer.json"
    if not os.path.lexists(file):
        return
    if _is_plain(read_json_object(folder, "tokenizer.json")):
        return
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if problem := _tried("tokenizer", str(file.absolute()), digest):
        fix = "put the tokenizer there that the model was published with"
        raise ModelError(f"the tokenizer {problem}", where=str(file), fix=fix)


def _is_plain_template(template: str) -> bool:
    """Whether a template can only write each message a few times: it has no range, filter, macro or call."""
    return not _GROWS.search(template) and template.count("for ") <= 2


def _templates(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, text) of every chat template that a library may take from the folder."""
    files = [folder / "chat_template.jinja", *sorted((folder / MORE_TEMPLATES).glob("*.jinja"))]
    for path in files:
        if path.is_file():
            check_plain(path)
            yield path, path.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json", "processor_config.json"):
        if not (folder / name).is_file():
            continue
        settings = read_json_value(folder / name)
        written = settings.get("chat_template") if isinstance(settings, dict) else None
        for template in written if isinstance(written, list) else [written]:
            text = template.get("template") if isinstance(template, dict) else template
            if isinstance(text, str):
                yield folder / name, text


@lru_cache(maxsize=64)
def _tried(kind: str, subject: str, digest: str = "") -> str | None:
    """What the child says of a template's text or a tokenizer's file; None where nothing is wrong."""
    command = [sys.executable, "-I", folder_trial_child.__file__, kind]
    environment = {"TOKENIZERS_PARALLELISM": "false", "PATH": os.environ.get("PATH", "")}
    text = json.dumps(subject)
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=MAX_TRIAL_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"did not come to an end within {MAX_TRIAL_S:.0f} s"
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        problem = json.loads(lines[-1])
        return None if problem is None else str(problem)
    if "MemoryError" in done.stderr or "memory allocation" in done.stderr:
        return f"asks for more than {folder_trial_child.MEMORY_MIB[kind]:,} MiB of memory"
    return f"takes more than {folder_trial_child.CPU_S[kind]} s, or ends the process that reads it"


def _is_plain(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer has no part that can take more than time in proportion to a text."""
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens") or []
    if not isinstance(model, dict):
        return True  # none at all, as is said where it is loaded
    if tokenizer.get("truncation") is not None or tokenizer.get("padding") is not None:
        return False
    for name, known in PLAIN_PARTS.items():
        parts = list(_parts(tokenizer.get(name)))
        if len(parts) > MAX_PARTS or not all(part.get("type") in known for part in parts):
            return False
    longest = model.get("max_input_chars_per_word") or 0
    if not isinstance(longest, int) or longest > MAX_WORD_CHARS:
        return False
    if len(added) > MAX_ADDED or len(json.dumps(tokenizer.get("post_processor"))) > MAX_SPECIAL * 64:
        return False
    return len(json.dumps(tokenizer.get("decoder"))) < MAX_SPECIAL * 64


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """A part of a tokenizer.json, or those of a sequence of parts."""
    if not isinstance(part, dict):
        return
    inner = [item for key in ("normalizers", "pretokenizers") for item in part.get(key) or ()]
    if part.get("type") != "Sequence":
        yield part
    for item in inner:
        yield from _parts(item)
