"""``hf.send``: a value put into a run's mailbox, refused where it is plain that nobody will take it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .admission import refuse_while_imported, was_cancelled
from .errors import Cancelled, CodecError, HoldfastError, NotFound
from .expected import Description, annotation_of, article, convert, encode_value, text_of
from .records import refuse_damaged, waits_told_in
from .store import RunRow

if TYPE_CHECKING:
    from .app import Holdfast

_NAME_MAX = 200  # characters


async def send(home: Holdfast, id: str, name: str, value: Any, key: str | None) -> None:
    """``Holdfast.send``."""
    for what, text in (("name", name), ("key=", key)):
        if text is not None and (not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= _NAME_MAX):
            raise TypeError(f"send() takes as {what} a str of 1 to {_NAME_MAX} characters on one line, got {text!r}")
    data = encode_value(value, f"the signal {name!r}")
    refuse_while_imported(home)
    row = await home._read(home._store.get, id)
    if row is not None and row.workflow:
        refuse_damaged(row)
        _refuse_other_type(home, row, name, value)
        row = await home._read(lambda: home._store.send(id, name, data, key=key))
    if row is None:
        raise NotFound(f"{home.url}: there is no run {id!r} to send to")
    if row.status in ("done", "cancelled") and await _was_sent(home, row, key):
        return
    _refuse_ended(row, name)
    live = home._live.get(id)
    if live is not None and live.run is not None:
        live.loop.call_soon_threadsafe(live.run.waits.look)


async def _was_sent(home: Holdfast, row: RunRow, key: str | None) -> bool:
    """Whether a signal with this key is in the mailbox: whoever sends it again need not know that the run has ended."""
    if key is None:
        return False
    return any(signal.key == key for signal in await home._read(home._store.signals, row.no))


def _refuse_ended(row: RunRow, name: str) -> None:
    if not row.workflow:
        raise HoldfastError(f"{row.id!r} is a session, which takes no signals. Nothing was sent.")
    if row.status == "cancelled":
        raise Cancelled(f"{was_cancelled(row.id)} Signal {name!r} was not sent.")
    if row.status == "done":
        raise HoldfastError(f"run {row.id!r} is done and takes no more signals. Signal {name!r} was not sent.")


def _refuse_other_type(home: Holdfast, row: RunRow, name: str, value: Any) -> None:
    """Where the run waits for this very signal, and says with what type."""
    expects = _expected(home, row, name)
    try:
        annotation = annotation_of(expects) if expects is not None else None
    except ValueError:
        return
    if expects is None or annotation is None:
        return
    try:
        convert(value, annotation)
    except (TypeError, ValueError):
        wanted = article(text_of(expects))
        raise CodecError(
            f"run {row.id!r} waits for {name!r}, {wanted}, and {value!r:.100} is none. Nothing was sent."
        ) from None


def _expected(home: Holdfast, row: RunRow, name: str) -> Description | None:
    live = home._live.get(row.id)
    if live is not None and live.run is not None:
        expected = live.run.waits.expected_as(name)
        return None if expected is None else expected.description
    waits = waits_told_in(row.waiting, row.id)
    return next((wait.expects for wait in waits if wait.kind == "signal" and wait.name == name), None)
