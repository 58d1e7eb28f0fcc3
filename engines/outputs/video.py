"""video: writes frames as H.264, HEVC or AV1 in mp4 with the source's sound, and images as png.

Every part becomes a closed GOP with the headers it needs. Parts can be encoded anywhere, in any order and by any
encoder, and are joined by copying packets. The arrays of a part's result are those of `engines.outputs.gop`, the time
of a packet is `meta.pts[order]`; `facts` hold the `encoder` and the `size` (width, height).
"""

from collections.abc import Mapping, Sequence

from engines.encoding import Encoded, Pictures, VideoOptions
from engines.outputs.colour import check_pictures, picture_planes
from engines.outputs.images import channels_of, encode_images
from engines.outputs.picture_format import PictureFormat
from engines.outputs.pictures import encode_png
from engines.part import Part, Tick, no_tick
from engines.planned import Tensor


class VideoFormat(PictureFormat[VideoOptions]):
    """A film for video, png for images. Pictures are copied to the host only if the encoder needs them there."""

    options_class = VideoOptions
    anywhere = True

    def check(self, arrays: Mapping[str, Tensor], media: Sequence[str]) -> None:
        """Check for pictures of uint8: `plane0` ... or `pixels`, with colours that suit each kind of media."""
        check_pictures(arrays, media, "video")

    def encode(self, part: Part, tick: Tick = no_tick) -> Encoded:
        """Return a closed GOP of the part's pictures, or a png of each image."""
        if not part.meta.media.timed:
            return encode_images(channels_of(part.on_host()), encode_png, tick)
        if not part.meta.pts:
            return Encoded({})
        planes, colour = picture_planes(part, self._options.bits)
        return self.encoder.encode(Pictures(planes, colour, part.meta.media), self._options, tick)
