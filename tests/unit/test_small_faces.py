"""Faces that are smaller than their crops, beside the reference; and how much films lose in their encoder."""

import io

import av
import numpy as np

from engines.operators.crop import Crop
from engines.operators.paste import Paste
from engines.ragged import Ragged
from schemas.pipeline import OperatorStage
from tests.clips import real_clip
from tests.faces import face, psnr, restored, restorer, with_faces
from tests.unit.test_crops import Array, part, ragged, stage, values


def test_small_faces_beside_the_reference_that_averages_nothing() -> None:
    """A crop of 512 pixels is 4 times as large as the face: the reference leaves out most of its pixels.

    With `averages = false` rigflow does so, too. What averaging changes, and what x264 and 4:2:0 change by themselves,
    is printed for docs/restore-faces.md.
    """
    with av.open(real_clip("bigbuckbunny")) as container:
        picture = next(container.decode(video=0)).reformat(width=320, height=180, format="rgb24")
    frame = picture.to_ndarray()
    points = face(160, 80, 30, 7.0)
    expected = with_faces(frame, [points], restorer(512), 512)
    changed = np.abs(expected - frame).max(-1) > 0
    found = np.concatenate([points, np.ones((5, 1))], axis=1).astype(np.float32)
    given, made = part(frame[None], keypoints=ragged([found[None]])), {}
    for averages in (False, True):
        cut = Crop(stage(size=[512, 512], border=[135, 133, 132], averages=averages), None).apply(given)
        crops = values(given.with_arrays({**given.arrays, **cut}), "crops")
        pictures = np.rint(np.stack([restored(restorer(512), crop) for crop in crops.values])).astype(np.uint8)
        held = {**given.arrays, **cut, "image": Ragged(pictures, crops.offsets)}
        stage_of_paste = OperatorStage(kind="paste", name="paste", options={"averages": averages})
        [made[averages]] = Paste(stage_of_paste, None).apply(given.with_arrays(held))["image"]
    assert psnr(made[False][changed], expected[changed]) > 50
    encoded = {qp: psnr(through_x264(made[True], qp)[changed], made[True][changed]) for qp in ("crf=18", "qp=0")}
    averaged = psnr(made[True][changed], expected[changed])
    assert 34 < averaged < 45
    print(f"averages {averaged:.1f} dB, x264 crf 18 {encoded['crf=18']:.1f}, 4:2:0 {encoded['qp=0']:.1f}")


def through_x264(picture: Array, how: str) -> Array:
    """A picture as 4:2:0 by x264, and back."""
    key, _, value = how.partition("=")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, options={key: value, "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")
