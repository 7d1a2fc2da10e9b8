"""The envelope of a layer: a safetensors file with one uint8 tensor, which starts with its check sum.

The JSON header has exactly one valid spelling for a given length, so it is compared, never parsed:
there is no duplicate key, overlap, gap or huge length to defend against.
"""

from __future__ import annotations

import struct
import zlib

from airlora.errors import UpdateError

_LENGTH = struct.Struct("<Q")
_CHECK_SUM = struct.Struct("<I")


def wrap(payload: bytes) -> bytes:
    """Envelope one payload."""
    return _prefix(len(payload)) + _CHECK_SUM.pack(zlib.crc32(payload)) + payload


def unwrap(layer: bytes) -> memoryview:
    """The payload of a layer.

    Raises:
        UpdateError: not an envelope of exactly this form, or its check sum is wrong.
    """
    if len(layer) < _LENGTH.size:
        raise UpdateError(f"a layer of {len(layer)} bytes is too short to be one; receive it again")
    start = _LENGTH.size + _LENGTH.unpack_from(layer)[0]
    size = len(layer) - start - _CHECK_SUM.size
    if size < 0 or layer[:start] != _prefix(size):
        raise UpdateError(f"a layer of {len(layer)} bytes has no valid safetensors header; receive it again")
    (expected,) = _CHECK_SUM.unpack_from(layer, start)
    payload = memoryview(layer)[start + _CHECK_SUM.size :]
    found = zlib.crc32(payload)
    if found != expected:
        raise UpdateError(f"a layer's check sum is {found:08x}, it says {expected:08x}; receive it again")
    return payload


def wrapped_bytes(payload_bytes: int) -> int:
    """Size of the envelope of a payload of this size, the payload included."""
    return len(_prefix(payload_bytes)) + _CHECK_SUM.size + payload_bytes


def _prefix(payload_bytes: int) -> bytes:
    size = payload_bytes + _CHECK_SUM.size
    header = f'{{"p":{{"dtype":"U8","shape":[{size}],"data_offsets":[0,{size}]}}}}'.encode()
    return _LENGTH.pack(len(header)) + header
