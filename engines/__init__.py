"""Whatever touches a device or a codec: media, transforms, inference, models, outputs. No network, no asyncio."""
