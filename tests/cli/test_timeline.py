"""The timeline of a run: what is worked out of its record, and how that looks. The record is made with a store's own
methods and a clock that stands still between them."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any

import pytest

import holdfast
from holdfast import codec, step, workflow
from holdfast.cli import drawing
from holdfast.cli.drawing import draw, mermaid
from holdfast.cli.timeline import Axis, Flying, Process, Saved, laid_out, processes_of, saved_by
from holdfast.failure import Failure
from holdfast.flying import decode_doing, encode_doing
from holdfast.recall import scope_of
from holdfast.store import Batch, Checkpoint, Finish, RunRow
from holdfast.store.memory import MemoryStore
from holdfast.testing.store_suite import Clock, checkpoint, run_row

START = 1_800_000_000_000
TTL_MS = 70_000  # nothing that is shown may depend on it
RESULT = codec.encode(7, codec.Types.none, "a result")
FAILURE = Failure("LookupError", "no such account", "Traceback …").encode()


class Story:
    """A run that is told as it happens; times are in seconds."""

    def __init__(self, workflow: str = "review") -> None:
        self.clock = Clock(START)
        self.store = MemoryStore(clock=self.clock)
        self.seq = 0
        row = run_row("a", owner=self.owner(1), ttl_ms=TTL_MS, workflow=workflow)
        self.run: RunRow = self.store.commit(Batch(creates=[row])).created["a"]

    @staticmethod
    def owner(number: int) -> str:
        return f"elsewhere/boot/ns|{number}|1.00|serial"

    def now(self, seconds: float) -> None:
        self.clock.now = START + int(seconds * 1000)

    def step(self, name: str, began: float, ended: float, **more: Any) -> Checkpoint:
        self.seq += 1
        self.now(ended)
        more.setdefault("result", FAILURE if more.get("status") == "failed" else RESULT)
        took = {"started_ms": START + int(began * 1000), "duration_ms": (ended - began) * 1000}
        row = checkpoint(self.run.no, self.seq, epoch=self.run.epoch, name=name, **took, **more)
        assert self.store.commit(Batch(appends=[row])).fenced == set()
        return row

    def heartbeat(self, at: float, *flying: tuple[str, float, int]) -> None:
        self.now(at)
        told = [[name, "", START + int(began * 1000), attempt] for name, began, attempt in flying]
        data = encode_doing(len(told), told) if told else b""
        assert self.run.owner is not None
        self.store.renew(self.run.owner, ttl_ms=TTL_MS, doing={self.run.no: data})

    def ends(self, at: float, status: str, *seqs: int) -> None:
        self.now(at)
        error = Failure("StepFailed", "it failed", seqs=list(seqs)).encode() if seqs else None
        finish = Finish(run_no=self.run.no, epoch=self.run.epoch, status=status, error=error)
        assert self.store.commit(Batch(finishes=[finish])).fenced == set()

    def taken(self, at: float, *, died: bool) -> None:
        self.now(at)
        owner = self.owner(self.run.epoch + 1)
        taken = self.store.claim(self.run.no, self.run.epoch, owner=owner, ttl_ms=TTL_MS, lost="died" if died else None)
        assert taken is not None
        self.run = taken

    def processes(self, end: str | None = None) -> list[Process]:
        row = self.store.get("a")
        assert row is not None
        anew = set(Failure.decode(row.error, "its error").seqs) if row.error else set()
        rows, claims = self.store.load(row.no), self.store.claims(row.no)
        return processes_of(row, claims, rows, end or row.status, anew)

    def drawn(self, width: int = 80, *, end: str | None = None, limit: int = 60, encoding: str = "utf-8") -> list[str]:
        processes = self.processes(end)
        lines = laid_out(processes, self.clock.now, limit)
        return [text.plain for text in draw(lines, processes, START, width, encoding)]


@pytest.fixture
def crashed() -> Story:
    """Killed in its third step, taken over, failed, and tried anew to its end."""
    story = Story()
    story.step("parse", 0, 1.9, tokens=1200, usd=0.02)
    story.step("check", 1.9, 3.3)
    story.heartbeat(4.1, ("assess", 3.3, 2))
    story.taken(9.3, died=True)
    story.step("assess", 9.3, 12.2)
    story.step("pay", 12.2, 13.0, status="failed", attempts=3)
    story.ends(13.0, "failed", 4)
    story.taken(100.0, died=False)
    story.step("pay", 100.0, 100.5)
    story.ends(100.5, "done")
    return story


def test_one_lane_a_process_with_the_crash_the_gap_and_what_was_not_done_again(crashed: Story) -> None:
    assert crashed.drawn() == [
        "       0 ms     ┏     elsewhere pid 1 started",
        "      1.9 s   1 ┃     ✓ parse                            1.9 s  ━━━━",
        "      3.3 s   2 ┃     ✓ check                            1.4 s     ━━━",
        "      4.1 s     ┃     ▸ assess  attempt 2  cut off       0.8 s       ━━",
        "      4.1 s     ┗     ✗ died some time after this",
        "                  ┊   5.2 s after its last sign of life",
        "      9.3 s       ┏   elsewhere pid 2 took over; recalled 2 steps: 3.3 s,",
        "                  ┃   1,200 tokens, $0.02 not spent again",
        "       12 s   3   ┃   ✓ assess                           2.9 s         ━━━━━━",
        "       13 s   4   ┃   ✗ pay  3 attempts                  0.8 s              ━━",
        "                  ┃     LookupError: no such account",
        "       13 s       ┗   ✗ failed",
        "                    ┊ 1 min 27 s with nobody",
        " 1 min 40 s         ┏ elsewhere pid 3 carried on; recalled 3 steps: 6.2 s,",
        "                    ┃ 1,200 tokens, $0.02 not spent again",
        " 1 min 40 s   5     ┃ ✓ pay                              0.5 s                ━━",
        " 1 min 40 s         ┗ ✓ done",
    ]


# -- what was not spent again --------------------------------------------------------------------------------


def test_only_what_stands_is_recalled(crashed: Story) -> None:
    first, second, third = crashed.processes()
    assert first.saved == Saved()
    assert second.saved == pytest.approx(Saved(2, 3.3, 1200, 0.02))
    assert third.saved == pytest.approx(Saved(3, 6.2, 1200, 0.02)), "the failure that ended the run was tried anew"
    assert saved_by(crashed.processes()) == pytest.approx(Saved(5, 9.5, 2400, 0.04))


def test_a_failure_that_is_to_be_tried_anew_is_not_counted_before_that() -> None:
    story = Story()
    story.step("went past", 0, 1, status="failed")
    story.step("ended it", 1, 2, status="failed")
    story.ends(2, "failed", 2)
    story.taken(3, died=False)
    story.heartbeat(4, ("ended it", 3, 1))
    assert story.processes("running")[1].saved == Saved(1, 1.0)


def test_the_insides_of_a_finished_call_are_in_its_time_but_not_in_its_cost() -> None:
    story = Story()
    outer = scope_of("", "", "outer", None, 0)
    story.step("inner", 0, 1, scope=outer, tokens=5)
    story.taken(2, died=True)
    story.step("inner", 2, 5, scope=outer, n=1, tokens=7)
    story.step("outer", 2, 6, tokens=1)
    story.taken(7, died=False)
    story.step("last", 7, 8)
    _, second, third = story.processes("running")
    assert second.saved == Saved(1, 1.0, 5)
    assert third.saved == Saved(2, 5.0, 13), "the first inner ran in another process than the rest of outer"


def test_of_a_process_that_died_at_once_nothing_is_claimed() -> None:
    story = Story()
    story.step("parse", 0, 1)
    story.taken(2, died=True)
    story.taken(20, died=True)
    story.step("check", 20, 21)
    assert [each.saved.steps for each in story.processes("running")] == [0, 0, 1]


# -- how a process ended, and what it had in flight ----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "end"), [("running", "interrupted"), ("failed", "failed"), ("parked", "parked"), ("waiting", "closed")]
)
def test_a_process_that_let_go_ended_then(status: str, end: str) -> None:
    story = Story(workflow="" if status == "waiting" else "review")
    story.ends(5, status)
    story.taken(50, died=False)
    first, _ = story.processes("running")
    assert (first.end, first.ended_ms - START) == (end, 5_000)


def test_a_dead_process_was_last_heard_of_at_its_last_heartbeat_or_checkpoint() -> None:
    story = Story()
    story.heartbeat(3, ("parse", 0, 1), ("fetch", 1, 1))
    story.step("parse", 0, 4)
    story.taken(50, died=True)
    first, _ = story.processes("running")
    assert (first.end, first.ended_ms - START) == ("died", 4_000)
    assert first.flying == [Flying("fetch", "", START + 1_000, 1)], "parse is recorded since"


def test_what_is_in_flight_now_is_shown_until_now() -> None:
    story = Story()
    story.step("parse", 0, 1)
    story.heartbeat(3, ("assess", 1, 1))
    story.now(5)
    *_, flying, end = story.drawn()
    assert re.fullmatch(r" +┃ ▸ assess  in flight +4\.0 s +━+", flying)
    assert end == "      5.0 s     ┗ ▸ running, last heard of 2.0 s ago"
    assert "not heard of any more" in "\n".join(story.drawn(120, end="stalled"))


def test_a_heartbeat_tells_what_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.run._TOLD_AFTER_MS", 0)
    monkeypatch.setattr("holdfast.journal.LOOK_EVERY_S", 1000.0)  # it is asked for here

    async def main() -> None:
        began, go = asyncio.Event(), asyncio.Event()
        late, end = asyncio.Event(), asyncio.Event()

        @step
        async def hold(number: int) -> int:
            if number == 9:
                began.set()
            await go.wait()
            return number

        @step
        async def last() -> None:
            late.set()
            await end.wait()

        @workflow(version="1")
        async def many() -> None:
            await asyncio.gather(*(hold(k) for k in range(10)))
            await last()

        async with holdfast.open("memory://") as hf:
            running = asyncio.create_task(hf.run(many(), id="a"))
            await began.wait()
            assert await told(hf) is not None
            row = hf._store.get("a")
            assert row is not None and row.doing is not None
            number, steps = decode_doing(row.doing)
            assert (number, {name for name, *_ in steps}, len(steps)) == (
                10,
                {hold._definition.name},
                8,
            )
            written = row.doing
            assert await told(hf) is written, "what has not changed is not written again"
            go.set()
            await late.wait()
            assert decode_doing(await told(hf))[0] == 1
            end.set()
            await running

    async def told(hf: holdfast.Holdfast) -> bytes | None:
        renewed = threading.Event()
        hf._journal.renew_now(renewed.set)
        assert await asyncio.to_thread(renewed.wait, 30)
        row = hf._store.get("a")
        return None if row is None else row.doing

    asyncio.run(main())


# -- many steps, long pauses ---------------------------------------------------------------------------------


def test_ten_thousand_steps_are_a_few_lines_and_no_value_of_theirs_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story()
    for k in range(5_000):
        story.step("fetch", k, k + (3.5 if k == 77 else 0.5))
    for k in range(5_000, 7_500):
        story.step("parse", k, k + 0.25)
        story.step("store", k + 0.25, k + 0.5)
    read: list[bytes] = []
    monkeypatch.setattr(codec, "readable", lambda data: read.append(data) or 7)
    drawn = story.drawn(100, end="running")
    assert len(drawn) == 8
    assert re.search(r"✓ fetch  ×5,000 +41 min 43 s ", drawn[1])
    assert drawn[2].endswith("1–5000; slowest 3.5 s (78)")
    assert re.search(r"✓ parse  ×2,500 +10 min 25 s ", drawn[3])
    assert drawn[4].endswith("5001–9999; slowest 0.2 s (5001)")
    assert re.search(r"✓ store  ×2,500 +10 min 25 s ", drawn[5])
    assert read == []


def test_lines_in_the_middle_are_folded_by_name() -> None:
    story = Story()
    for k in range(400):
        story.step(f"step {k % 7} {'abc'[k % 3]}", k, k + 1)
    drawn = story.drawn(100, limit=10, end="running")
    assert len([line for line in drawn if re.search(r" \d+ ┃ ✓ ", line)]) == 10
    folded = [line for line in drawn if "┊ ✓" in line]
    assert len(folded) == 21
    assert sum(int(re.findall(r"×(\d+)", line)[0]) for line in folded) == 390
    assert len(story.drawn(100, limit=0, end="running")) == 402


def test_idle_time_is_said_and_drawn_short() -> None:
    story = Story()
    story.step("first", 0, 10)
    story.step("second", 3_610, 3_620)
    story.step("beside", 3_600, 3_630)
    drawn = story.drawn(100, end="done")
    assert "59 min 50 s with no step running" in drawn[2]
    first, second, beside = (line.index("━") for line in (drawn[1], drawn[3], drawn[4]))
    assert first < beside < second
    axis = Axis([(0, 10), (3_600, 3_630), (3_610, 3_620)])
    assert [round(axis.at(ms), 3) for ms in (-5, 0, 10, 3_600, 3_630, 9_999)] == [0, 0, 0.238, 0.286, 1, 1]
    assert Axis([]).at(5) == 0


# -- how it looks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [50, 60, 72, 80, 100, 120, 240])
def test_no_line_is_wider_than_the_terminal_and_every_step_is_named(crashed: Story, width: int) -> None:
    drawn = crashed.drawn(width)
    assert [line for line in drawn if len(line) > width] == []
    assert [name for name in ("parse", "check", "assess", "pay", "died") if name not in "\n".join(drawn)] == []
    assert ("━" in "\n".join(drawn)) == (width >= drawing.WITH_BARS)


def test_a_terminal_without_the_signs_gets_others(crashed: Story) -> None:
    for line in crashed.drawn(encoding="ascii"):
        line.encode("ascii")


def test_the_sequence_diagram(crashed: Story) -> None:
    processes = crashed.processes()
    lines = laid_out(processes, crashed.clock.now, 60)
    assert mermaid(lines, processes, "review").splitlines() == [
        "sequenceDiagram",
        "    participant A as elsewhere pid 1",
        "    participant S as store",
        "    participant B as elsewhere pid 2",
        "    participant C as elsewhere pid 3",
        "    A->>S: start review (epoch 1)",
        "    A->>S: 1 parse (1.9 s)",
        "    A->>S: 2 check (1.4 s)",
        "    Note over A: assess cut off",
        "    Note over A: died",
        "    Note over S: 5.2 s after its last sign of life",
        "    B->>S: elsewhere pid 2 took over (epoch 2)",
        "    S-->>B: recalled 2 steps: 3.3 s, 1,200 tokens, $0.02 not spent again",
        "    B->>S: 3 assess (2.9 s)",
        "    B->>S: 4 pay failed (0.8 s)",
        "    B-xS: failed",
        "    Note over S: 1 min 27 s with nobody",
        "    C->>S: elsewhere pid 3 carried on (epoch 3)",
        "    S-->>C: recalled 3 steps: 6.2 s, 1,200 tokens, $0.02 not spent again",
        "    C->>S: 5 pay (0.5 s)",
        "    C->>S: done",
    ]


def test_a_name_is_no_syntax_of_the_diagram() -> None:
    story = Story()
    story.step("end; A->>S: #1\n", 0, 1)
    processes = story.processes("done")
    diagram = mermaid(laid_out(processes, story.clock.now, 60), processes, "review")
    assert r"    A->>S: 1 e#110;d#59; A-#gt;#gt;S: #35;1\n (1.0 s)" in diagram.splitlines()
