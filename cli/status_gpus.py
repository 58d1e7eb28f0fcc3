"""What `rigflow status` shows of the GPUs of rigs: sensors, faults, and the work by kWh."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.text import cell, one_line
from schemas.states import ENDED

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cli.tables import Given

HOT_C = 87.0  # as the alert GpuHot


def care_rows(rigs: "Sequence[Mapping[str, Any]]") -> "list[RenderableType]":
    """A table of the GPUs, one of the energy by rig, and a line for each trouble; empty without GPUs."""
    from cli.tables import list_of

    running = [rig for rig in rigs if rig["state"] not in ENDED]
    parts: list[RenderableType] = []
    if gpus := [_gpu_row(rig["rig"], gpu) for rig in running for gpu in rig.get("gpus", ())]:
        titles = ("rig", "gpu", "card", "temperature", "power", "limit", "fan", "Xid errors")
        parts += ["", list_of(titles, gpus, left=3, unless={"fan": "", "Xid errors": ""}, named=("rig",))]
    if energy := [_energy_row(rig["rig"], rig["energy"]) for rig in running if rig.get("energy")]:
        by_rig = ("rig", "energy", "frames/kWh", "device-s/kWh")
        parts += ["", list_of(by_rig, energy, left=1, named=("rig",))]
    troubles = ((rig["rig"], text) for rig in running for text in rig.get("troubles", ()))
    return parts + [cell(f"rig {rig}", "red") + cell(f": {text}") for rig, text in troubles]


def _gpu_row(rig: str, gpu: Mapping[str, Any]) -> "list[Given]":
    celsius = gpu.get("temperature_celsius")
    heat = "" if celsius is None else f"{celsius:.0f} °C"
    xids = ", ".join(f"{xid} ({times})" for xid, times in gpu.get("xids", {}).items())
    return [
        *(one_line(rig), one_line(str(gpu["gpu"])), one_line(str(gpu["name"]).removeprefix("NVIDIA "))),
        cell(heat, "red" if celsius is not None and celsius > HOT_C else ""),
        _watts(gpu.get("power_watts")),
        _watts(gpu.get("power_limit_watts")),
        "" if gpu.get("fan_speed_ratio") is None else f"{gpu['fan_speed_ratio']:.0%}",
        cell(xids, "red"),
    ]


def _energy_row(rig: str, energy: Mapping[str, Any]) -> "list[Given]":
    per_kwh = energy.get("per_kwh", {})
    figures = (per_kwh.get("frames"), per_kwh.get("device-seconds"))
    return [
        one_line(rig),
        f"{energy['joules'] / 3.6e6:,.3f} kWh",
        *("" if figure is None else f"{figure:,.0f}" for figure in figures),
    ]


def _watts(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} W"
