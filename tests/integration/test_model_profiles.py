"""What models cost on devices, at the broker: kept by device, agreed by kind of device, and read whatever is there."""

import asyncio

from pipelines.broker import Broker
from pipelines.profiles import (
    agreed_choice,
    fleet_profiles,
    known_choice,
    model_profile,
    model_profiles,
    share_model_profile,
)
from pipelines.topology import ensure_topology
from schemas.model_profile import ComputeOptions, ModelChoice, ModelOnDevice, ModelProfile
from schemas.settings import Settings

WHAT = ModelOnDevice(model="a" * 64, backend="onnxruntime", shapes={"x": (3, 32, 32)})
OTHER = WHAT.model_copy(update={"model": "b" * 64})


def profile(device: str, what: ModelOnDevice = WHAT) -> ModelProfile:
    return ModelProfile(
        device=device, device_name="a GPU", what=what, name="net@1", batch_s={1: 0.01, 16: 0.08}, measured_s=1.0
    )


def choice(layout: str) -> ModelChoice:
    options = ComputeOptions.model_validate({"layout": layout})
    return ModelChoice(kind="a GPU", what=WHAT, library="1.31", options=options, measured_s=1.0)


async def test_profiles_of_models_are_kept_beside_those_of_devices(settings: Settings) -> None:
    async with Broker.connected(settings, name="test") as broker:
        await ensure_topology(broker, settings, [])
        for each in (profile("GPU-1"), profile("GPU-2"), profile("GPU-1", OTHER)):
            await share_model_profile(broker, each)
        assert await model_profile(broker, "GPU-1", WHAT) == profile("GPU-1")
        assert await model_profile(broker, "GPU-3", WHAT) is None
        assert [each.device for each in await model_profiles(broker, WHAT.model)] == ["GPU-1", "GPU-2"]
        assert len(await model_profiles(broker)) == 3
        assert await fleet_profiles(broker) == []
        for number, body in enumerate((b"", b"{", b"{}", b"[" * 10_000, b"x" * 100_000)):
            await broker.put(broker.names.profiles, f"model.GPU-9.{number}", body)
        await broker.put(broker.names.profiles, f"model.GPU-8.{WHAT.key}", profile("GPU-1").model_dump_json().encode())
        assert len(await model_profiles(broker)) == 3


async def test_devices_of_one_kind_agree_on_the_options_that_were_stored_first(settings: Settings) -> None:
    async with Broker.connected(settings, name="test") as broker:
        await ensure_topology(broker, settings, [])
        key = choice("nhwc").key
        assert await known_choice(broker, key) is None
        agreed = await asyncio.gather(*(agreed_choice(broker, choice(each)) for each in ("nhwc", "nchw", "nhwc")))
        assert agreed[0] == agreed[1] == agreed[2]
        assert await known_choice(broker, key) == agreed[0]
        other = choice("nchw" if agreed[0].options.layout == "nhwc" else "nhwc")
        assert await agreed_choice(broker, other) == agreed[0]
        assert await agreed_choice(broker, other, again=True) == other == await known_choice(broker, key)
        await broker.put(broker.names.profiles, key, b"{nonsense")
        assert await known_choice(broker, key) is None
        assert await agreed_choice(broker, agreed[0]) == agreed[0]
