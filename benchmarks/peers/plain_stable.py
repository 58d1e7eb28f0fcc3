"""Pictures as a user draws them with ONNX Runtime alone: Euler's method over the graphs of a Stable Diffusion 1.5.

Prompts of one batch go step by step together, each with a negative and a positive row, as diffusers' pipelines do it
with a list of prompts. Latents stay on the host, as those of optimum's pipelines.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

Array = np.ndarray[Any, Any]


class PlainStable:
    """`folder`: of optimum. `device`: cpu, or cuda:N. `timings` has the seconds of each run of the UNet."""

    def __init__(self, folder: Path, device: str, threads: int = 1) -> None:
        if device != "cpu" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls(directory="")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        number = int(device.partition(":")[2] or 0)
        cuda = ("CUDAExecutionProvider", {"device_id": number, "cudnn_conv_algo_search": "HEURISTIC"})
        providers: list[Any] = ["CPUExecutionProvider"] if device == "cpu" else [cuda, "CPUExecutionProvider"]
        self.text, self.unet, self.decoder = (
            ort.InferenceSession(str(folder / name / "model.onnx"), options, providers=providers)
            for name in ("text_encoder", "unet", "vae_decoder")
        )
        self.dtype = np.float16 if "float16" in self.unet.get_inputs()[0].type else np.float32
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.sigmas = ((1 / np.cumprod(1 - betas)) - 1) ** 0.5

    def draw(self, ids: Array, negative: Array, noise: Array, steps: int, guidance: float) -> Array:
        """Return `[N, H, W, 3]` uint8. `ids`, `negative [N, 77]` int64; `noise [N, 4, h, w]` float32."""
        states = np.concatenate([self._states(negative), self._states(ids)])
        times = np.arange(steps)[::-1] * (1000 // steps) + 1
        sigmas = np.append(self.sigmas[times], 0.0)
        latents = noise * np.float32((sigmas[0] ** 2 + 1) ** 0.5)
        for step, time in enumerate(times):
            seen = (latents / np.float32((sigmas[step] ** 2 + 1) ** 0.5)).astype(self.dtype)
            feed = {
                "sample": np.concatenate([seen, seen]),
                "timestep": np.array([time], np.int64),
                "encoder_hidden_states": states,
            }
            below, above = np.split(self.unet.run(None, feed)[0].astype(np.float32), 2)
            output = below + np.float32(guidance) * (above - below)
            latents = latents + np.float32(sigmas[step + 1] - sigmas[step]) * output
        return np.concatenate([self._picture(each) for each in np.split(latents, len(latents))])

    def _states(self, ids: Array) -> Array:
        found: Sequence[Any] = [self.text.run(None, {"input_ids": each[None]})[0] for each in ids]
        return np.concatenate(found)

    def _picture(self, latents: Array) -> Array:
        """Of one picture: the decoder takes the most memory."""
        values = self.decoder.run(None, {"latent_sample": (latents / np.float32(0.18215)).astype(self.dtype)})[0]
        picture = np.clip(values.astype(np.float32) / 2 + np.float32(0.5), 0, 1).transpose(0, 2, 3, 1)
        return np.asarray(np.round(picture * 255), np.uint8)
