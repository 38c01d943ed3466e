"""The change of a state, and its replay: pure functions over plain values, no I/O and no clock.

A delta maps changed keys to operations, which are plain data the codec takes:

* ``["set", base, value]``       the key now holds ``value``
* ``["del", base]``              the key is gone
* ``["add", values]``            ``values`` were added to the end of a list
* ``["merge", {key: op, …}]``    some keys of a dict changed
* ``["edit", length, [hunk, …]]`` parts of a list, a str or bytes changed, which was ``length[0]`` long

``base`` says what the key held when the step began, so that ``apply`` sees whether somebody else changed it:
``[]`` nothing, ``[value]`` this scalar, ``[digest, text]`` a value of this digest, ``text`` being for people.
Where other parts of the run overlapped, ``length`` is ``[length, digest, digest of the new value, text]``: which form a
change is written in is no part of what it means.

A hunk is ``[at, count, values, digest]``, ``values`` standing where ``count`` others were (of that digest), or
``[at, op]``, what changed inside of one element. Hunks are in order, and their places are those of the old value.
"""

from __future__ import annotations

from holdfast.delta.applying import apply, perform, performed, planned
from holdfast.delta.difference import Delta, Op, diff, inserted
from holdfast.delta.malformed import refuse_malformed
from holdfast.delta.values import copy, copy_of_recorded, digest, is_fixed, same, weight

__all__ = [
    "Delta",
    "Op",
    "apply",
    "copy",
    "copy_of_recorded",
    "diff",
    "digest",
    "inserted",
    "is_fixed",
    "perform",
    "performed",
    "planned",
    "refuse_malformed",
    "same",
    "weight",
]
