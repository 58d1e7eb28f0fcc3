"""`simulated`: a checksum of each frame, at a pace that the worker's settings give. It plays slower and faster devices.

For trials of fleets larger than the machine they run on: a worker sleeps while another would compute, and every answer
can be checked. There is no ONNX graph; `engines.inference.simulated` is the engine.
"""

import hashlib

from schemas.pipeline import ModelSpec, TensorSpec

_BODY = b"rigflow simulated 1: crc32 of the bytes of each row"


def build() -> tuple[ModelSpec, bytes]:
    """Model card, and what stands for the ONNX file."""
    card = ModelSpec(
        name="simulated",
        description="a checksum of each frame, at the worker's pace_ms; for trials of fleets",
        engine="simulated",
        inputs=(TensorSpec(name="pixels", dtype="uint8", shape=("N", "H", "W")),),
        outputs=(TensorSpec(name="crc32", dtype="uint32", shape=("N",)),),
        sha256=hashlib.sha256(_BODY).hexdigest(),
    )
    return card, _BODY
