"""Whatever touches a device or a codec: media, transforms, inference, models, outputs. No network, no asyncio."""

import os

# from release 1.29 on ONNX Runtime reports to its maker what models it runs, unless told not to before it is imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
