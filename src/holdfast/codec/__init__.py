"""Values to bytes and back, with their exact types; fingerprints of inputs; a view for people.

Bytes are msgpack. ``None``, exact ``bool int float str bytes list`` and dicts with ``str`` or ``int`` keys
are written natively; everything else is a msgpack extension of one of the codes in ``format.py`` whose payload
is again such an encoding. Named values (enum members, dataclasses, named tuples, Structs, pydantic models) carry
``["module:qualname", fields, …]``, and the name is looked up only among the classes that an annotation of
the user's code reaches (``Types``): nothing is ever imported because the store says so.
"""

from __future__ import annotations

from holdfast.codec.annotations import MISSING, Types
from holdfast.codec.format import MAX_DEPTH
from holdfast.codec.handles import know
from holdfast.codec.reading import decode
from holdfast.codec.sealing import seal, unseal
from holdfast.codec.viewing import preview, readable, shortened
from holdfast.codec.writing import canonical, encode, encode_inputs, fingerprint

__all__ = [
    "MAX_DEPTH",
    "MISSING",
    "Types",
    "canonical",
    "decode",
    "encode",
    "encode_inputs",
    "fingerprint",
    "know",
    "preview",
    "readable",
    "seal",
    "shortened",
    "unseal",
]
