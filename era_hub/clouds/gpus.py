"""Find the GPUs of this machine, or simulate some."""

from __future__ import annotations

from dataclasses import dataclass

from era_hub.clouds.base import Gpu

DEFAULT_SIMULATED = 8
"""GPUs simulated when none is found and no number is given."""


@dataclass(frozen=True)
class Detected:
    """The GPUs to sell.

    Attributes
    ----------
    gpus : tuple of Gpu
        In PCI bus order, as CUDA counts them under ``CUDA_DEVICE_ORDER=PCI_BUS_ID``.
    simulated : bool
        Whether they are simulated.
    reason : str
        Why they are simulated without being asked for, or which ones are left out.
    """

    gpus: tuple[Gpu, ...]
    simulated: bool
    reason: str = ""


def detect(simulated: int | None = None) -> Detected:
    """Detect the GPUs of this machine.

    Parameters
    ----------
    simulated : int, optional
        Simulate this many and look for no real ones. By default GPUs are simulated
        only where NVML finds none.

    Returns
    -------
    Detected
    """
    if simulated is not None:
        return Detected(_simulate(simulated), True)
    gpus, reason = _ask_nvml()
    if gpus:
        return Detected(gpus, False, reason)
    return Detected(_simulate(DEFAULT_SIMULATED), True, reason or "NVML finds no GPU")


def _simulate(count: int) -> tuple[Gpu, ...]:
    return tuple(Gpu(index, "Simulated GPU") for index in range(count))


def _ask_nvml() -> tuple[tuple[Gpu, ...], str]:
    """The real GPUs, and what went wrong in finding them."""
    try:
        import pynvml
    except ImportError:
        return (), "the package nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return (), f"NVML: {error}"
    gpus, problems = [], []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))
            except pynvml.NVMLError as error:
                # One GPU that fell off the bus must not hide the others.
                problems.append(f"GPU {index} is left out: {error}")
                continue
            # Old versions of the package answer in bytes.
            gpus.append(Gpu(index, name.decode() if isinstance(name, bytes) else name))
    except pynvml.NVMLError as error:
        return (), f"NVML: {error}"
    finally:
        pynvml.nvmlShutdown()
    return tuple(gpus), "; ".join(problems)
