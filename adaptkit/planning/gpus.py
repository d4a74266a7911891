"""GPUs that plans know: arithmetic, memory and price, each figure with where and when it was read.

Arithmetic is `PEAK_FLOPS` of the trainer: dense matrices in bf16. Prices move by the week: state your own
with `gpu.price`. A GPU without a price here gets hours and no dollars until you do.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.errors import ConfigError
from adaptkit.planning.config import GpuConfig
from adaptkit.study.budget import PriceConfig
from adaptkit.study.record import StudyRecord
from adaptkit.trainer.device import PEAK_FLOPS

GB = 1e9
_MEMORY_GB = {"H200": 141, "H100": 80, "A100": 80, "L40S": 48, "L4": 24, "RTX 4090": 24}
_SOURCE = "NVIDIA's data sheets, without sparsity, read 2026-11"
_PRICES = {"H100": (3.99, "H100 SXM, secure cloud"), "A100": (1.79, "A100 SXM 80 GB, secure cloud")}
_READ_ON = "2026-11-09"


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU, or the machine of a study.

    Attributes:
        flops: per second, at best; of a machine that was measured, as it trains.
        memory_bytes: of one; 0 where that is not known.
        source: where these two come from.
        price: of an hour of one.
        measured: `flops` is a speed of training that was measured.
    """

    name: str
    flops: float
    memory_bytes: float
    source: str
    price: PriceConfig | None = None
    measured: bool = False


def choose_gpu(config: GpuConfig, record: StudyRecord | None) -> Gpu:
    """The GPU that a config names, with its own figures first; the study's machine where it names none.

    Raises: ConfigError for a name that is in no table, without figures of its own.
    """
    if record is not None and record.machine is not None and "name" not in config.model_fields_set:
        return _of_study(config, record)
    name, price = config.name, None
    if name in _PRICES:
        usd_per_hour, kind = _PRICES[name]
        source = f"runpod.io/pricing, {kind}"
        price = PriceConfig(usd_per_hour=usd_per_hour, source=source, date=_READ_ON)
    flops, memory = PEAK_FLOPS.get(name, 0.0), _MEMORY_GB.get(name, 0) * GB
    if name not in _MEMORY_GB and not (config.tflops and config.memory_gb):
        known = ", ".join(_MEMORY_GB)
        fix = f"use one of {known}, or set gpu.tflops and gpu.memory_gb"
        raise ConfigError(f"no figures are known of the GPU '{name}'", where="gpu.name", fix=fix)
    source = "as you stated" if config.tflops and config.memory_gb else _SOURCE
    return Gpu(
        name=name,
        flops=config.tflops * 1e12 or flops,
        memory_bytes=config.memory_gb * GB or memory,
        source=source,
        price=config.price or price,
    )


def _of_study(config: GpuConfig, record: StudyRecord) -> Gpu:
    """The machine that a study was measured on."""
    assert record.machine is not None
    price = config.price
    if price is None and record.price is not None:
        price = PriceConfig(**record.price.model_dump())
    return Gpu(
        name=f"machine of the study ({record.machine.device})",
        flops=config.tflops * 1e12 or record.machine.flops_per_second,
        memory_bytes=config.memory_gb * GB,
        source=f"speed of training as the study {record.name} measured it",
        price=price,
        measured=not config.tflops,
    )
