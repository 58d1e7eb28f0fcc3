"""How many engines the video decoder of a GPU has, by the driver."""

import ctypes

_H264, _420 = 4, 1  # cudaVideoCodec_H264, cudaVideoChromaFormat_420
_LIBRARY = "libnvcuvid.so.1"


class _Capabilities(ctypes.Structure):
    """CUVIDDECODECAPS of NVIDIA's Video Codec SDK, cuviddec.h."""

    _fields_ = (
        ("codec", ctypes.c_int),
        ("chroma", ctypes.c_int),
        ("bits_beyond_8", ctypes.c_uint),
        ("reserved", ctypes.c_uint * 3),
        ("supported", ctypes.c_ubyte),
        ("engines", ctypes.c_ubyte),
        ("formats", ctypes.c_ushort),
        ("sizes", ctypes.c_uint * 3),
        ("rest", ctypes.c_uint * 12),
    )


def decoder_engines(library: str = _LIBRARY) -> int | None:
    """Return the engines of the GPU whose context is current that decode H.264; 0: none; None: the driver does not say.

    Drivers before 2020 do not say.
    """
    asked = _Capabilities(codec=_H264, chroma=_420)
    try:
        failed = ctypes.CDLL(library).cuvidGetDecoderCaps(ctypes.byref(asked))
    except (OSError, AttributeError):
        return None
    if failed:
        return None
    return (int(asked.engines) or None) if asked.supported else 0
