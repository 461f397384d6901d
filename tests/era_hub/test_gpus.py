"""Detection of GPUs, with a stand-in for NVML."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from era_hub.clouds.base import Gpu
from era_hub.clouds.gpus import DEFAULT_SIMULATED, detect


class NVMLError(Exception):
    pass


def nvml(
    monkeypatch: pytest.MonkeyPatch, names: list[str | bytes | None], init_fails: bool = False
) -> SimpleNamespace:
    """Install a stand-in for NVML; None is a GPU that does not answer."""

    def initialise() -> None:
        if init_fails:
            raise NVMLError("Driver/library version mismatch")

    def name_of(index: int) -> str | bytes:
        name = names[index]
        if name is None:
            raise NVMLError("GPU is lost")
        return name

    module = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=initialise,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=name_of,
        shutdowns=0,
    )

    def shut_down() -> None:
        module.shutdowns += 1

    module.nvmlShutdown = shut_down
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_real_gpus_keep_their_indices_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nvml(monkeypatch, ["NVIDIA H100", b"NVIDIA A100"])
    found = detect()
    assert found.gpus == (Gpu(0, "NVIDIA H100"), Gpu(1, "NVIDIA A100"))
    assert not found.simulated
    assert found.reason == ""
    assert module.shutdowns == 1


def test_a_lost_gpu_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, ["NVIDIA H100", None, "NVIDIA H100"])
    found = detect()
    assert [gpu.index for gpu in found.gpus] == [0, 2]
    assert not found.simulated
    assert "GPU 1 is left out: GPU is lost" in found.reason


def test_without_the_package_gpus_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = detect()
    assert found.simulated
    assert [gpu.index for gpu in found.gpus] == list(range(DEFAULT_SIMULATED))
    assert "nvidia-ml-py" in found.reason


def test_without_a_driver_gpus_are_simulated_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvml(monkeypatch, [], init_fails=True)
    found = detect()
    assert found.simulated
    assert len(found.gpus) == DEFAULT_SIMULATED
    assert "Driver/library version mismatch" in found.reason


def test_without_any_gpu_they_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, [])
    found = detect()
    assert found.simulated
    assert len(found.gpus) == DEFAULT_SIMULATED


def test_a_given_number_is_simulated_even_with_real_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, ["NVIDIA H100"])
    found = detect(3)
    assert found.simulated
    assert [gpu.index for gpu in found.gpus] == [0, 1, 2]
    assert found.reason == ""
