"""What every store does, and the rows it keeps.

A store is blocking code behind a narrow set of methods in holdfast's own nouns. It never decides: it keeps
rows, checks the fence, and tells the truth about what was committed. The same suite
(``holdfast.testing.store_suite``) is told to each of them; the memory store is the reference.

Times are whole milliseconds since the Unix epoch, by the store's own clock (``*_ms``).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec
from msgspec.msgpack import Encoder
from msgspec.structs import replace

from holdfast.errors import HoldfastError
from holdfast.store.blobs import BlobRows
from holdfast.store.dialogs import Dialogs

_ENCODE = Encoder().encode
_PLACE_BITS = 0x7FFF_FFFF  # with the 32 of the whole it is a number that every database takes
FINISHED = frozenset({"done", "failed", "cancelled"})
BEFORE_ALL = -(2**63)  # is less than any number, also one that was damaged
AFTER_ALL = 2**63 - 1  # is more than any number that a row has
NEVER_MS = 2**62  # the time of a run that waits for something else than a time


def is_text(value: str) -> bool:
    """Whether every store can hold it: UTF-8 without NUL, which PostgreSQL has no text with. What is not must not reach
    a batch, since a batch that fails takes other runs along."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def as_text(value: str) -> str:
    """``value``, with escapes where no store could hold it: for names that Python made, and nobody can be refused."""
    return value if is_text(value) else ascii(value)


class Code(NamedTuple):
    """Which code recorded a run: the version of its workflow, of Python, and of the shape of its state."""

    version: str
    python: str
    schema_version: int = 0


class Checkpoint(msgspec.Struct, gc=False):  # nothing in it could be part of a cycle
    """One row: what happened, and what it changed. Unique by ``(run_no, seq)``; ``seq`` counts from 1."""

    run_no: int
    seq: int
    epoch: int
    kind: str  # "step", "workflow" (a nested one), "save" (state alone)
    scope: str  # "" in the run itself, else the place of the nested call this row is inside
    branch: str  # "" for the root task of the scope, else a path such as "fetch#0/parse#2"
    name: str
    key: str | None  # the call's own key, or None where ``n`` alone numbers it
    n: int  # how many calls of this name (and key) were made before in the same scope and branch
    version: str
    status: str  # "done", "failed", "cancelled"; of what is no outcome, see ``recall.OPEN``
    attempts: int
    started_ms: int
    duration_ms: float
    tokens: int | None
    usd: float | None
    fingerprint: bytes  # 16 bytes over the canonical inputs
    inputs: bytes | None  # a preview, at most 2 KB
    result: bytes | None  # the encoded result, or the encoded failure
    delta: bytes | None  # the encoded change of state, None if there was none
    blobs: bytes | None = None  # the hashes of the blobs that it names, one behind the other
    checksum: int = 0

    def compute_checksum(self) -> int:
        """CRC-32 over the whole row, and above it 31 bits over its place alone: where that is right, another row may be
        written there for a damaged one."""
        place = zlib.crc32(
            _ENCODE((self.run_no, self.seq, self.kind, self.scope, self.branch, self.name, self.key, self.n))
        )
        told = (self.epoch, self.version, self.status, self.attempts, self.started_ms, self.duration_ms)
        held = (self.tokens, self.usd, self.fingerprint, self.inputs, self.result, self.delta, self.blobs)
        return (place & _PLACE_BITS) << 32 | zlib.crc32(_ENCODE((told, held)), place)


class RunRow(msgspec.Struct, kw_only=True):
    """One run. ``no`` is the integer that stands for ``id`` in every other table; 0 before it is created.

    In the row given to be created ``lease_until_ms`` is how long the lease is to last, and ``due_ms`` how long no
    worker is to begin with it; the store adds its own clock, and sets ``no``, the other times and the checksums:
    ``checksum`` over what a run is created with, ``end_checksum`` over its end. No owner: no lease and no claim.

    A worker may take a run of its queue that nobody owns, with status queued, running or waiting, once its ``due_ms``
    has come: 0 is at once, ``NEVER_MS`` when it is woken. ``wakes`` counts what outside gave it a reason to look (a
    signal, the end of a run it waits for), so that who goes to sleep can tell whether it has missed one.
    """

    no: int = 0
    id: str
    workflow: str  # "" for a session
    version: str
    python: str  # "3.11"
    module: str
    file: str
    inputs: bytes  # the encoded arguments, whole
    fingerprint: bytes
    state: bytes | None  # the encoded initial state
    seed: bytes  # 16 random bytes that uuid4() and random() derive from
    queue: str = ""  # of sessions; no worker serves it
    priority: int = 0  # higher ones first
    parent_no: int | None = None  # the run that started this one; were that cancelled, this one would be created so
    status: str = "running"
    result: bytes | None = None
    error: bytes | None = None
    deaths: int = 0
    owner: str | None = None
    epoch: int = 1
    lease_until_ms: int = 0
    created_ms: int = 0
    updated_ms: int = 0
    due_ms: int = 0
    wakes: int = 0
    waiting: bytes | None = None  # what it waits for
    doing: bytes | None = None  # what its owner had in flight when it last renewed its lease
    checksum: int = 0
    end_checksum: int = 0
    schema_version: int = 0  # of the shape of its state, as its code counts; 0 where that does not count
    origin: bytes | None = None  # of a fork: which run its first rows are of, and up to where
    heard_ms: int = 0  # when its owner, or the last one it had, claimed it or renewed its lease last

    def compute_checksum(self) -> int:
        """CRC-32 over what a run is created with, and a revision changes."""
        given = (self.id, self.workflow, self.version, self.python, self.module, self.file, self.schema_version)
        work = (self.inputs, self.fingerprint, self.state, self.seed, self.queue, self.priority, self.parent_no)
        return zlib.crc32(_ENCODE((given, work, self.origin)))


def end_checksum(status: str, result: bytes | None, error: bytes | None) -> int:
    """CRC-32 over how a run ended, or was handed back. What happens to it afterwards changes the status alone."""
    return zlib.crc32(_ENCODE((status, result, error)))


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Who owned a run from when on, and how it found the run; one row an epoch.

    ``found`` is "" for a new run, "died" or "lapsed" after an owner that did not hand it back, else the run's status.
    ``seen_ms`` is when the run's owner before had it last (0 for a new run), ``doing`` what it had in flight then.
    """

    run_no: int
    epoch: int
    owner: str
    claimed_ms: int
    found: str = ""
    seen_ms: int = 0
    doing: bytes | None = None


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded costs of a run, added up over the rows of its own epochs, those from 1. ``steps`` and ``saves``
    count the outcomes of kind "step" and those of kind "save"; a step without an attempt was kept from another version,
    and not executed. ``last_ms`` is when the last row ended (0 if there is none)."""

    tokens: int = 0
    usd: float = 0.0
    steps: int = 0
    saves: int = 0
    last_ms: int = 0


class Finish(msgspec.Struct, kw_only=True):
    """The end (or the handing back) of a run: its new status, and the lease released.

    ``due_ms`` is when a worker may take it again. If it was woken since its owner last looked (``wakes`` is less than
    the row's) that is at once. The run numbered ``parent_no`` is woken.
    """

    run_no: int
    epoch: int
    status: str
    result: bytes | None = None
    error: bytes | None = None
    due_ms: int = 0
    waiting: bytes | None = None
    wakes: int | None = None
    parent_no: int | None = None

    def compute_checksum(self) -> int:
        return end_checksum(self.status, self.result, self.error)


class Revision(msgspec.Struct, kw_only=True):
    """A run goes on as one recorded by other code, from the row ``begins`` on, which is committed with it."""

    begins: Checkpoint
    version: str
    python: str
    module: str
    file: str
    schema_version: int
    state: bytes | None  # the encoded initial state
    checksum: int  # of the run's row as it is from now on

    @property
    def run_no(self) -> int:
        return self.begins.run_no

    @property
    def epoch(self) -> int:
        return self.begins.epoch


def revised(run: RunRow, revision: Revision) -> RunRow:
    """The run's row as a revision leaves it."""
    fields = ("version", "python", "module", "file", "schema_version", "state", "checksum")
    return replace(run, **{name: getattr(revision, name) for name in fields})


def shared(row: Checkpoint, run_no: int, last_epoch: int) -> Checkpoint:
    """A checkpoint as the fork of its run has it, whose own epochs count from 1: so these count down from 0. A row that
    was damaged is so in the fork too."""
    copy = replace(row, run_no=run_no, epoch=row.epoch - last_epoch)
    copy.checksum = copy.compute_checksum() ^ row.compute_checksum() ^ row.checksum
    return copy


class Signal(msgspec.Struct, kw_only=True):
    """A value sent to a run from outside. Numbered by the wake it caused, so ``n`` grows, with gaps; ``key`` makes
    sending it again harmless."""

    run_no: int
    n: int
    name: str
    key: str | None
    value: bytes
    sent_ms: int
    checksum: int = 0

    def compute_checksum(self) -> int:
        return zlib.crc32(_ENCODE((self.run_no, self.n, self.name, self.key, self.value, self.sent_ms)))


class Taken(NamedTuple):
    """A run that a worker has claimed: as it is now, as it was found, and how the owner before was lost ("died",
    "lapsed"), None if nobody was."""

    row: RunRow
    before: RunRow
    lost: str | None


class News(msgspec.Struct, kw_only=True):
    """What a run told between two flushes, in one row; kept for those who watch, for a while. No part of its history.

    What is told is numbered from 1 within an epoch. ``n`` is the number of the last thing in the row and ``count`` how
    many there are in it; numbers that are in no row were dropped before they were written.
    """

    run_no: int
    epoch: int
    n: int
    count: int
    data: bytes
    forget: int | None = None  # delete what this epoch told up to this number, and what the last but one had told


class Batch(msgspec.Struct, kw_only=True):
    """What one transaction writes, in this order: all of it or nothing, unless some of it is fenced or refused."""

    creates: list[RunRow] = []
    appends: list[Checkpoint] = []  # with those that revisions begin with
    revisions: list[Revision] = []
    finishes: list[Finish] = []


class Committed(msgspec.Struct, kw_only=True):
    """What became of a batch once its transaction was committed.

    ``created`` holds the new rows by id; an id that existed before is missing from it. Where one batch
    creates an id twice the first wins: whose it is tells the row's ``seed``.
    ``fenced`` holds the numbers of runs whose rows were not written because the epoch had moved on,
    because nobody owns the run any more, or because another row stands in the place of one of them.
    ``refused`` says why nothing was written of a run, by its number, or created of one, by its id: ``CodecError`` for a
    value that the store cannot hold, ``StoreError`` for what may pass.
    """

    created: dict[str, RunRow] = {}
    fenced: set[int] = set()
    refused: dict[int | str, HoldfastError] = {}


class Store(Dialogs, BlobRows, Protocol):
    """Blocking; ``commit``, ``extend``, ``tell`` and ``renew`` are called from one thread, everything else from any."""

    url: str
    durable: bool

    def now_ms(self) -> int:
        """The store's own clock: the only one that leases are compared by."""
        ...

    def commit(self, batch: Batch) -> Committed:
        """Write a batch in one transaction; in several, where a row in it is refused. A row already there with the same
        ``(run_no, seq)`` and checksum counts as written (a batch sent again after a lost connection), and so does a
        finish that stands as it is; with another checksum its run counts as fenced. Of a run that is fenced, or has a
        row that is refused, nothing in the batch is written, and the others are not disturbed. Appends are for runs
        created by an earlier batch.
        Raises ``StoreError``, after which none of it may be taken for written."""
        ...

    def get(self, id: str) -> RunRow | None: ...

    def runs(self, *, status: str | None, workflow: str | None, limit: int, after: int | None) -> list[RunRow]:
        """Newest first (by ``no``), at most ``limit``, older than the run numbered ``after``."""
        ...

    def spent(self, run_nos: Sequence[int]) -> dict[int, Spent]:
        """One entry for each number asked for."""
        ...

    def load(
        self, run_no: int, *, after: int = BEFORE_ALL, until: int = AFTER_ALL, last: int | None = None
    ) -> list[Checkpoint]:
        """The checkpoints with ``after < seq <= until`` (of them the ``last`` so many) in order of ``seq``, unchecked:
        who uses one checks it."""
        ...

    def fork(self, run_no: int, at: int, new: RunRow) -> RunRow | None:
        """Create ``new``, which nobody owns, and let it begin with the checkpoints of another run up to ``at`` (see
        ``shared``), in one transaction. The row as it was created; None if its id is taken, and then nothing is
        written."""
        ...

    def claims(self, run_no: int) -> list[Claim]: ...

    def claim(self, run_no: int, epoch: int, *, owner: str, ttl_ms: int, lost: str | None) -> RunRow | None:
        """Take the run if its epoch is still ``epoch``: epoch + 1, status running (the error of the failure before
        stays), a new lease, a row in the claims that keeps how the run was found. ``lost`` says how an owner that did
        not hand it back was lost, "died" or "lapsed", and counts as a death; None if nobody was. The row as it is now,
        or None if another was faster or the run is done or cancelled. Whether the lease had lapsed is the caller's to
        decide.
        """
        ...

    def claim_due(
        self,
        owner: str,
        *,
        ttl_ms: int,
        queue: str,
        workflows: Mapping[str, Code | None],
        dead: Collection[str],
        limit: int,
        at_once: int | None,
    ) -> list[Taken]:
        """Claim at most ``limit`` runs of ``queue`` that a worker may take: whose time has come, whose owner is among
        the ``dead``, and whose owner, another than who asks, let its lease lapse. Those of ``workflows`` only: by name
        the code that must have recorded them, or None; what other code recorded is left as it is, to others. Higher
        priority first, then older. No more than ``at_once`` runs of the queue have a living owner then, over all
        workers. Two that ask at once never get the same run, and neither waits for the other longer than a transaction
        lasts."""
        ...

    def owners(self) -> list[str]:
        """Who owns a run now."""
        ...

    def renew(
        self,
        owner: str,
        *,
        ttl_ms: int,
        doing: Mapping[int, bytes] = {},
        waiting: Mapping[int, bytes | None] = {},
    ) -> set[int]:
        """Prolong every unfinished lease of ``owner``; the numbers of the runs it still holds. By number ``doing`` says
        what has changed of what they have in flight, ``waiting`` what they wait for now (status waiting), or None that
        they go on (status running)."""
        ...

    def cancel(self, id: str) -> RunRow | None:
        """End an unfinished (or failed) run as cancelled and fence its owner (epoch + 1); so with the unfinished runs
        whose parent it is, and theirs. Its own parent is woken. The row as it is now, or None if there is none."""
        ...

    def send(self, id: str, name: str, value: bytes, *, key: str | None) -> RunRow | None:
        """Put a signal into a run's mailbox, and wake the run, in one transaction. Nothing is put where one with this
        ``key`` lies already, nor if the run is done or cancelled. The row as it is now, or None if there is none."""
        ...

    def signals(self, run_no: int, *, after: int = BEFORE_ALL) -> list[Signal]:
        """The signals with ``n > after`` in order of ``n``, unchecked: who uses one checks it."""
        ...

    def wakes(self, run_nos: Sequence[int]) -> dict[int, int]:
        """How often each run was woken."""
        ...

    def statuses(self, ids: Sequence[str]) -> dict[str, str]:
        """How each run stands; an id that there is no run of is missing."""
        ...

    def listen(self, seconds: float) -> None:
        """Return when a run may have become due or been woken, or after so long. It may return for nothing. Called from
        one thread."""
        ...

    def tell(self, news: list[News]) -> None:
        """Keep news. Of a run whose epoch has moved on, or that nobody owns, nothing is kept. News may be lost with
        the machine's power. Raises ``StoreError``, soon, where they cannot be written."""
        ...

    def news(self, run_no: int, *, epoch: int = 0, n: int = 0) -> list[News]:
        """What is kept of a run's news behind number ``n`` of ``epoch``, in the order of telling."""
        ...

    def clear_news(self, *, idle_ms: int) -> None:
        """Delete the news of every run that nobody has owned for so long."""
        ...

    def stamp(self) -> object:
        """Unequal to what it was before, if anything was committed in between, by whomever. Cheap."""
        ...

    def close(self) -> None:
        """Give the connections back. A later call opens them again."""
        ...

    def forget(self) -> None:
        """Drop the connections without closing them, and start afresh: to be called in a forked child, where
        they are the parent's."""
        ...
