"""Optional trackers: each gets the rows that metrics.jsonl gets. Imported only when a config names them."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from types import ModuleType
from typing import TYPE_CHECKING, Any

from adaptkit.doctor.extras import missing_extra
from adaptkit.run import Run
from adaptkit.trainer.progress import Hooks

if TYPE_CHECKING:
    from adaptkit.trainer.result import TrainResult


class Tracker(Hooks, ABC):
    """Turns rows into `log(numbers, step)`; a tracker implements that and `close`."""

    @abstractmethod
    def log(self, numbers: dict[str, float], step: int) -> None:
        """One row of finite numbers by name."""

    @abstractmethod
    def close(self) -> None:
        """The run has ended, well or not."""

    def on_step_end(self, row: dict[str, Any]) -> None:
        self.log(_numbers(row), row["step"])

    def on_eval(self, row: dict[str, Any]) -> None:
        self.log(_numbers(row), row["step"])

    def on_end(self, result: TrainResult | None) -> None:
        self.close()


class Tensorboard(Tracker):
    def __init__(self, run: Run):
        _need("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.tensorboard))

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class Trackio(Tracker):
    def __init__(self, run: Run):
        self.module = _need("trackio")
        self.module.init(project="adaptkit", name=run.path.name)

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.module.log(numbers, step=step)

    def close(self) -> None:
        self.module.finish()


class Wandb(Tracker):
    def __init__(self, run: Run):
        self.session = _need("wandb").init(project="adaptkit", name=run.path.name, dir=str(run.path))

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.session.log(numbers, step=step)

    def close(self) -> None:
        self.session.finish()


class Mlflow(Tracker):
    def __init__(self, run: Run):
        self.module = _need("mlflow")
        self.module.set_experiment("adaptkit")
        self.module.start_run(run_name=run.path.name)

    def log(self, numbers: dict[str, float], step: int) -> None:
        self.module.log_metrics(numbers, step=step)

    def close(self) -> None:
        self.module.end_run()


_TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": Tensorboard,
    "trackio": Trackio,
    "wandb": Wandb,
    "mlflow": Mlflow,
}


def tracker(name: str, run: Run) -> Tracker:
    """The tracker of that name.

    Raises: MissingDependency with the install command if its package is not there.
    """
    return _TRACKERS[name](run)  # type: ignore[call-arg]


def _need(name: str) -> ModuleType:
    """Import a tracker's package, which the extra of its name brings.

    Raises: MissingDependency with the one command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise missing_extra(name, f"report_to={name} needs {name}", "trainer.report_to") from None


def _numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step" and isinstance(value, (int, float))}
