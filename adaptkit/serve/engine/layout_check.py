"""Ask what an embedding folder wants of a server, before one is started: vLLM would silently do otherwise.

Settings that vLLM does not know (a chat template around texts, several poolings, prompts left out of them)
are refused by `models.sentence.layout.check_servable`. Its imports take some seconds and much memory, so it
runs in another process:

    python -m adaptkit.serve.engine.layout_check FOLDER ...     # one JSON object: null, or what, where, fix
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.export.source import Source
from adaptkit.serve.engine.failures import last_line


def check(sources: Iterable[Source]) -> None:
    """Ask for the folders of embedding models; the others are not looked at.

    Raises: ModelError for the first that a server would answer for otherwise than the folder says.
    """
    folders = [str(source.folder.resolve()) for source in sources if source.kind == "embed"]
    if not folders:
        return
    command = [sys.executable, "-m", "adaptkit.serve.engine.layout_check", *folders]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    asked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if asked.returncode:
        what = f"cannot be read by transformers: {last_line(asked.stderr)}"
        raise ModelError(what, where=", ".join(folders), fix="export or copy it again")
    refusal = json.loads(asked.stdout.splitlines()[-1])
    if refusal is not None:
        raise ModelError(refusal["what"], where=refusal["where"], fix=refusal["fix"])


def first_refusal(folders: Iterable[Path]) -> ModelError | None:
    """Find the first folder that a server would not answer for as it says."""
    from adaptkit.model_uses import Use
    from adaptkit.models import load_tokenizer
    from adaptkit.models.capabilities import capabilities
    from adaptkit.models.sentence.layout import check_servable, read_layout

    for folder in folders:
        try:
            model = capabilities(folder)
            model.check(Use.SERVE)
            check_servable(read_layout(folder, model.config, load_tokenizer(folder)), str(folder))
        except ModelError as error:
            return error
    return None


if __name__ == "__main__":
    refused = first_refusal(map(Path, sys.argv[1:]))
    fields = None
    if refused is not None:
        fields = {"what": refused.what, "where": refused.where, "fix": refused.fix}
    print(json.dumps(fields))
