"""Find the model that a folder stands for: the one a study recommends, a run's, an export, any model.

source = resolve("runs/study-1a2b3c4d")            # the recommended arm's, or the next contender's
source.folder, source.kind, source.name, source.why
"""

from __future__ import annotations

from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.export.pick import choose
from adaptkit.export.source import Source, of_model, of_run
from adaptkit.model_gate import check_folder
from adaptkit.run import Run
from adaptkit.study.record import is_study
from adaptkit.weight_files import check_weight_files


def resolve(
    path: str | Path, *, arm: str | None = None, task: str | None = None, seed: int | None = None
) -> Source:
    """Find the model that `path` stands for.

    Args:
        path: a study's or a training's run directory, an exported folder, or a HF model folder.
        arm, task, seed: for a study, instead of the recommended arm on its primary task and of the seed with
            the best dev score.
    Raises: ModelError or DataError where there is nothing to serve, saying what the folder holds and what to
        give.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        fix = "give the directory of a study or run (runs/NAME-1a2b3c4d), an export or a HF model folder"
        raise ModelError("no such folder", where=str(path), fix=fix)
    if is_study(folder):
        return choose(folder, arm=arm, task=task, seed=seed)
    source = _of_folder(folder)
    for option, value in {"--arm": arm, "--task": task, "--seed": seed}.items():
        if value is not None:
            what = f"{option} picks from a study, and this is none"
            raise ModelError(what, where=str(folder), fix=f"leave {option} out")
    return source


def _of_folder(folder: Path) -> Source:
    """Find the model of a folder that is no finished study.

    Raises: ModelError for a folder without a whole model; DataError for a run that has not ended.
    """
    is_adapter = (folder / "adapter_config.json").is_file()
    if (folder / "config.json").is_file():
        check_folder(folder)
        check_weight_files(folder)  # says so where an adapter stands beside whole weights
        return of_model(folder)
    if Run(folder).config_path.is_file():
        return of_run(folder)
    if is_adapter:
        fix = "give the run directory that it lies in, which holds the merged model, or merge it first"
        raise ModelError("this is an adapter, not a whole model", where=str(folder), fix=fix)
    files = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    fix = "give a study's or run's directory, an exported folder or a HF model folder"
    raise ModelError(f"neither a run nor a model (the folder holds: {files})", where=str(folder), fix=fix)
