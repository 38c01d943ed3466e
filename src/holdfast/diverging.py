"""What ``Diverged`` says: which call it is, where the program makes it, what differs, and the ways on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from . import codec
from .branches import Frame
from .errors import CodecError, Diverged
from .store import Checkpoint
from .whereabouts import line_of

_DIFFERENCES_MAX = 8
_VALUE_MAX = 120  # characters of one value
_CONTEXT = 24  # characters told on each side of what differs in a long text
_WAITS = ("sleep", "signal", "run")
_NONE: Any = object()  # stands where a value is missing


class Asked(NamedTuple):
    """What the program asks for at the place of a record: its step version, its inputs and their fingerprint."""

    frame: Frame
    version: str
    inputs: bytes
    fingerprint: bytes


def diverged(run_id: str, row: Checkpoint, asked: Asked) -> Diverged:
    """The error for a call at the place of ``row`` that is not the recorded one. Called where that call is made."""
    line = line_of(asked.frame)
    return Diverged(
        "\n".join(
            [
                f"run {run_id!r}, checkpoint {row.seq}: {called(row)} {_how(row, asked)}.",
                *([f"  at {line}"] if line is not None else []),
                *([f"  {surroundings}"] if (surroundings := in_words(row.scope, row.branch)) else []),
                *(f"  {difference}" for difference in _differences(row, asked)),
                *_ways_on(row, asked),
            ]
        )
    )


def called(row: Checkpoint) -> str:
    """A call in words: ``call 2 of step 'fetch'``."""
    nth = f"call {row.n}" if row.key is None else f"call {row.key!r}" + (f" ({row.n})" if row.n else "")
    if row.kind == "run":
        return f"child run {row.key!r} of workflow {row.name!r}"
    what = {"sleep": "sleep()", "signal": f"wait_for({row.name!r})"}.get(row.kind, f"{row.kind} {row.name!r}")
    return f"{nth} of {what}"


def in_words(scope: str, branch: str) -> str:
    """Where in a run a call is: ``inside 'research'#0, in the task 'fetch'#1``. Empty for the workflow's own body."""
    outer = [part.replace(": ", ", ", 1) if ": " in part else part for part in scope.split(" > ") if part]
    told = [f"inside {part}" for part in reversed(outer)]
    return ", ".join([*([f"in the task {branch}"] if branch else []), *told])


# -- what differs ----------------------------------------------------------------------------------------------


def _how(row: Checkpoint, asked: Asked) -> str:
    kind = _kind_asked(row, asked)
    if kind != row.kind and kind in _WAITS:
        return f"was recorded, and now the program makes a wait there ({kind})"
    if kind != row.kind and row.kind in _WAITS:
        return f"was recorded, and now the program calls a step of the name {row.name!r} there"
    if row.version != asked.version:
        return f"was recorded by version {row.version!r} of the step, the code is version {asked.version!r}"
    return "was recorded with other inputs"


def _kind_asked(row: Checkpoint, asked: Asked) -> str:
    """The fingerprint of a wait begins with its kind, so that it fits no step's."""
    if codec.fingerprint(asked.inputs) == asked.fingerprint:
        return row.kind if row.kind not in _WAITS else "step"
    return next(kind for kind in _WAITS if codec.fingerprint(kind.encode() + asked.inputs) == asked.fingerprint)


def _differences(row: Checkpoint, asked: Asked) -> Iterator[str]:
    """One line for each thing that differs between the recorded inputs and those of now."""
    recorded, now = readable_inputs(row.kind, row.inputs or b""), readable_inputs(row.kind, asked.inputs)
    if not row.inputs:
        found = ["nothing of the recorded inputs is kept to be read"]
    elif isinstance(recorded, dict) and isinstance(now, dict):
        found = list(_compared("", recorded, now))
    else:
        found = list(_compared_shortened(str(recorded), codec.shortened(asked.inputs)))
    yield from found[:_DIFFERENCES_MAX]
    if len(found) > _DIFFERENCES_MAX:
        yield f"and {len(found) - _DIFFERENCES_MAX} more differences"
    if not found and row.fingerprint != asked.fingerprint and _kind_asked(row, asked) == row.kind:
        yield (
            "they read the same when written out: what differs is a type (a tuple for a list, an enum for its name) "
            "or bytes"
        )


def readable_inputs(kind: str, inputs: bytes) -> Any:
    """The arguments of a child run stand beside the name of its workflow, as bytes of their own."""
    plain = codec.readable(inputs)
    if kind == "run" and isinstance(plain, dict):
        try:
            return codec.readable(codec.decode(inputs, codec.Types.none, "the inputs")["inputs"])
        except (CodecError, LookupError, TypeError):  # damaged, which is told as that
            pass
    return plain


def _compared_shortened(recorded: str, now: str) -> Iterator[str]:
    """Of long inputs only the beginning of each is kept to be read."""
    if recorded == now:
        yield "of the recorded inputs only the beginning is kept to be read, and it is the same: they differ behind it"
    else:
        yield f"inputs, of which only the beginning is kept: {_texts(recorded, now)}"


def _compared(path: str, recorded: Any, now: Any) -> Iterator[str]:
    if isinstance(recorded, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*recorded, *now]):
            inner = name if not path else f"{path}.{name}" if name.isidentifier() else f"{path}[{name!r}]"
            yield from _compared(inner, recorded.get(name, _NONE), now.get(name, _NONE))
    elif isinstance(recorded, list) and isinstance(now, list):
        yield from _lists(path, recorded, now)
    elif recorded == now and type(recorded) is type(now):
        return
    elif isinstance(recorded, str) and isinstance(now, str):
        yield f"{path}: {_texts(recorded, now)}"
    else:
        missing = "missing" if "." in path or "[" in path else "left out (or its default)"
        shown = [missing if value is _NONE else _shown(value) for value in (recorded, now)]
        yield f"{path}: recorded {shown[0]}, now {shown[1]}"


def _lists(path: str, recorded: list[Any], now: list[Any]) -> Iterator[str]:
    """Element by element where as many differ on both sides; else what stands between the same head and tail."""
    head = _same_ahead(recorded, now)
    tail = _same_ahead(recorded[head:][::-1], now[head:][::-1])
    before, after = recorded[head : len(recorded) - tail], now[head : len(now) - tail]
    if len(before) == len(after):
        for k, (one, other) in enumerate(zip(before, after, strict=True), head):
            yield from _compared(f"{path}[{k}]", one, other)
        return
    sizes = f"recorded {len(recorded)} elements, now {len(now)}"
    if before and after:
        yield f"{path}: {sizes}; from [{head}] on recorded {_shown(before)}, now {_shown(after)}"
    elif before:
        yield f"{path}: {sizes}; gone is what was recorded from [{head}] on: {_shown(before)}"
    else:
        yield f"{path}: {sizes}; new is what stands from [{head}] on: {_shown(after)}"


def _same_ahead(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements both begin with. ``True`` is not 1 here."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: next(_compared("", *pair), None) is None, pairs))


def _texts(recorded: str, now: str) -> str:
    """Two texts whole if they are short, else only what differs in them, with a little of what stands around it."""
    if max(len(recorded), len(now)) <= _VALUE_MAX // 2:
        return f"recorded {recorded!r}, now {now!r}"
    head = _same_letters(recorded, now)
    tail = _same_letters(recorded[head:][::-1], now[head:][::-1])
    parts = [_around(text, head, len(text) - tail) for text in (recorded, now)]
    return f"from character {head:,} on recorded {parts[0]}, now {parts[1]}"


def _same_letters(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _around(text: str, start: int, end: int) -> str:
    first, last = max(0, start - _CONTEXT), min(len(text), end + _CONTEXT)
    middle = text[start:end]
    if len(middle) > _VALUE_MAX:
        middle = f"{middle[:_VALUE_MAX]}… ({len(middle):,} characters)"
        last = end  # what stands behind it would seem to follow at once
    shown = text[first:start] + middle + text[end:last]
    return "…" * (first > 0) + repr(shown) + "…" * (last < len(text))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_MAX else f"{text[:_VALUE_MAX]}… ({len(text):,} characters)"


# -- the ways on -----------------------------------------------------------------------------------------------


def _ways_on(row: Checkpoint, asked: Asked) -> list[str]:
    if row.version != asked.version and row.kind == "step":
        return [
            "What another version of a step returned is another answer. One of these helps:",
            f"  - give the step the version it was recorded by, @step(version={row.version!r})"
            if row.version
            else "  - leave version= out again, as it was when this was recorded",
            "  - start the work again under a new id",
        ]
    told = ["The code between steps gave another result than when this was recorded. One of these helps:"]
    told.append(
        "  - make it deterministic: clock, randomness and I/O belong in steps "
        "(holdfast.now(), .random() and .uuid4() repeat what they gave)"
    )
    if row.kind == "step":
        told.append(
            "  - where an argument may differ: leave it out of what is compared, @step(ignore=…), or name the call by "
            "the others, @step(key=…)"
        )
    told.append(
        "  - where the change is meant: put it back for this run, give the workflow a new version= (its on_change= "
        "says what is kept), or start the work again under a new id"
    )
    return told
