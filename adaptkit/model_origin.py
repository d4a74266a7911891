"""Read where a model folder comes from in its card: its licence, and its name on the hub. No torch.

stated_licence(folder)      # "apache-2.0", or UNKNOWN_LICENCE
hub_id("models/smollm2")    # "HuggingFaceTB/SmolLM2-135M-Instruct", or "" where no hub knows it
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*")
UNKNOWN_LICENCE = "not stated in its folder"
_HUB_ID = r"[A-Za-z0-9][\w.-]*/[\w.-]*\w"


def front_matter(folder: Path) -> dict[str, Any]:
    """Read the YAML header of a folder's README.md; empty where there is none that can be read."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    header = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    if header is None:
        return {}
    try:
        fields = yaml.safe_load(header[1])
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}


def stated_licence(folder: Path) -> str:
    """Read `license` (or `license_name` where that is `other`) in the header of the folder's card."""
    fields = front_matter(folder)
    if not fields.get("license"):
        return UNKNOWN_LICENCE
    if fields["license"] == "other" and fields.get("license_name"):
        return str(fields["license_name"])
    return str(fields["license"])


def licence_files(folder: Path) -> list[Path]:
    """Find the licence texts of a model folder."""
    return [path for pattern in LICENCE_FILES for path in sorted(folder.glob(pattern)) if path.is_file()]


def hub_id(model: str) -> str:
    """Find the hub's name of a base, which a card's `base_model` may hold; empty where it has none.

    A folder has the name that its card says it was made from, if this tool wrote that card.
    """
    if not model:  # as a path it would be the working directory
        return ""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model if re.fullmatch(_HUB_ID, model) else ""
    fields = front_matter(folder)
    tags = fields.get("tags")
    if isinstance(tags, list) and "adaptkit" in tags:
        named = str(fields.get("base_model") or "")
        return named if re.fullmatch(_HUB_ID, named) else ""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    packaged = re.search(rf"^From the package [^:\n]+:[^\n]*?({_HUB_ID})", text, re.MULTILINE)
    return packaged[1] if packaged else ""
