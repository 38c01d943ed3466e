"""Processes that run ``adk_program.py``, each in a life of its own, forked from one that has imported ADK already.

ADK takes seconds to import and a scene some tens of milliseconds, so hundreds of lives would be mostly imports."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

OVER = "-- over"
_HERE = Path(__file__).parent


class Host:
    """``with Host() as host:``, then ``host.live(…)`` gives the exit code of a life. ``modules`` are imported too."""

    def __init__(self, *modules: str) -> None:
        self._modules = modules

    def __enter__(self) -> Host:
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / "adk_lives.py"), *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def live(self, scene: str, how: str, env: dict[str, str], *, kill_after_s: float = 0, beside: int = 1) -> list[int]:
        """``beside`` processes at once; their exit codes, -9 for one that was killed."""
        return self._ask({"scene": scene, "how": how, "env": env, "kill_after_s": kill_after_s, "beside": beside})

    def _ask(self, asked: dict[str, Any]) -> list[int]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            codes: list[int] = json.loads(self._process.stdout.readline())
        return codes

    def outlived(self, scene: str, env: dict[str, str], stalled: dict[str, str], wait_s: float) -> list[int]:
        """A process that is stopped at a point, and another one that resumes ``wait_s`` later; then the first goes on.
        The exit codes of both."""
        asked = {"scene": scene, "how": "start", "env": env, "stalled": stalled, "wait_s": wait_s}
        return self._ask(asked)


class Scene:
    """A scene in a folder of its own: its databases, and its ledger."""

    def __init__(self, host: Host, folder: Path, name: str, *, alone: bool = False, **env: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host, self.name, self.folder = host, name, folder
        self.env = {"LEDGER": str(folder / "ledger"), "ADK_DB": str(folder / "adk.db"), **env}
        if not alone:
            self.env.setdefault("HOLDFAST_DB", str(folder / "holdfast.db"))
        (folder / "ledger").touch()

    def live(self, how: str = "start", *, kill_after_s: float = 0, beside: int = 1, **env: str) -> list[int]:
        codes = self.host.live(self.name, how, self.env | env, kill_after_s=kill_after_s, beside=beside)
        with Path(self.env["LEDGER"]).open("a") as ledger:
            ledger.write(OVER + "\n")
        return codes

    def outlived(self, stall_at: int, wait_s: float) -> list[int]:
        return self.host.outlived(self.name, self.env, {"STALL_AT": str(stall_at)}, wait_s)

    @property
    def ledger(self) -> list[str]:
        return Path(self.env["LEDGER"]).read_text().splitlines()

    def begun(self) -> Counter[str]:
        return Counter(line.removeprefix("begin ") for line in self.ledger if line.startswith("begin "))

    def begun_by_life(self) -> list[Counter[str]]:
        lives: list[Counter[str]] = [Counter()]
        for line in self.ledger:
            if line == OVER:
                lives.append(Counter())
            elif line.startswith("begin "):
                lives[-1][line.removeprefix("begin ")] += 1
        return lives[:-1]

    def told(self, kind: str) -> list[str]:
        return [line.removeprefix(f"{kind} ") for line in self.ledger if line.startswith(f"{kind} ")]

    def recorded(self) -> Counter[str]:
        """How many calls of each tool, model and node are recorded, while nobody has the database open."""
        if not Path(self.env["HOLDFAST_DB"]).exists():
            return Counter()
        with closing(sqlite3.connect(self.env["HOLDFAST_DB"])) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoint'").fetchall():
                return Counter()
            rows = database.execute(
                "SELECT name, key FROM checkpoint WHERE kind = 'step' AND status = 'done'"
            ).fetchall()
        kinds = ("" if name.startswith("model ") else "node " if key is None else "tool " for name, key in rows)
        return Counter(kind + name for kind, (name, _) in zip(kinds, rows, strict=True))

    @property
    def is_done(self) -> bool:
        """Whether an invocation came to its end, while nobody has the database open."""
        if not self.recorded():
            return False
        with closing(sqlite3.connect(self.env["HOLDFAST_DB"])) as database:
            return bool(database.execute("SELECT 1 FROM run WHERE status = 'done'").fetchall())

    def unfinished(self) -> list[str]:
        """Invocations that were not finished, while nobody has the database open. One whose message was never stored
        has failed."""
        with closing(sqlite3.connect(self.env["HOLDFAST_DB"])) as database:
            rows = database.execute("SELECT no, id, status FROM run").fetchall()
            begun = {no for (no,) in database.execute("SELECT DISTINCT run_no FROM checkpoint").fetchall()}
        return [f"{id} is {status}" for no, id, status in rows if status != ("done" if no in begun else "failed")]

    @property
    def errors(self) -> str:
        return (self.folder / "errors").read_text() if (self.folder / "errors").exists() else ""


def kind_of(call: str) -> str:
    """``tool fetch`` of ``tool fetch one``."""
    return " ".join(call.split()[:2])


def by_kind(calls: Counter[str]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for call, times in calls.items():
        kinds[kind_of(call)] += times
    return kinds


def begun_again(cut: Scene, whole: Scene, recorded: Counter[str], times: int = 1, in_flight: int = 0) -> list[str]:
    """What the last life began although it had been done. ``recorded``: what was recorded before it. ``times``: so many
    sessions did the same. ``in_flight``: of each call so many may have been, in a process that was killed, and were
    begun again by another of this life."""
    lives = cut.begun_by_life()
    expected = Counter({call: each * times for call, each in by_kind(whole.begun()).items()})
    too_often = by_kind(lives[-1]) - (expected - recorded)
    return [
        f"life {len(lives)} began {call} {each} times too often" for call, each in too_often.items() if each > in_flight
    ]


def wrong_with(cut: Scene, whole: Scene, recorded: Counter[str]) -> list[str]:
    """What differs, after the last life, from a scene that nothing cut short, in sentences."""
    wrong = [f"never begun: {call}" for call in whole.begun() - cut.begun()] + begun_again(cut, whole, recorded)
    # Not what was yielded: who dies between an event's being stored and being read finds it in the session.
    for what in ("state", "events", "stored"):
        if cut.told(what)[-1:] != whole.told(what)[-1:]:
            wrong.append(f"{what}: {cut.told(what)[-1:]}, not {whole.told(what)[-1:]}")
    return wrong + [f"raised: {each}" for each in cut.told("raised")]


def race_is_wrong(cut: Scene, whole: Scene, recorded: Counter[str]) -> list[str]:
    """What two processes that resumed at once did that one would not have done."""
    wrong = begun_again(cut, whole, recorded)
    wrong += [f"begun {times} times at once: {call}" for call, times in cut.begun_by_life()[-1].items() if times > 1]
    refused = [each.partition(":")[0] for each in cut.told("raised")]
    if refused not in ([], ["Busy"], ["NotFound"]):  # who is late finds that it is done, sooner or later
        wrong.append(f"raised: {cut.told('raised')}")
    return wrong


def _serve() -> None:
    import adk_program as program

    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        if "stalled" in asked:
            print(json.dumps(_outlived(program, asked)), flush=True)
            continue
        children = [_forked(program, asked) for _ in range(asked["beside"])]
        timers = []
        if asked["kill_after_s"]:
            timers = [threading.Timer(asked["kill_after_s"], _kill, [children[0]])]
            timers[0].start()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        for timer in timers:
            timer.cancel()
        print(json.dumps(codes), flush=True)


def _outlived(program: Any, asked: dict[str, Any]) -> list[int]:
    first = _forked(program, asked | {"env": asked["env"] | asked["stalled"]})
    os.waitpid(first, os.WUNTRACED)
    time.sleep(asked["wait_s"])  # until its lease has lapsed, which only time brings about
    second = _forked(program, asked | {"how": "resume"})
    codes = [os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])]
    os.kill(first, signal.SIGCONT)
    return [os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]), *codes]


def _forked(program: Any, asked: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    os.environ.update(asked["env"])
    errors = os.open(Path(asked["env"]["LEDGER"]).parent / "errors", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(errors, 2)
    os.dup2(errors, 1)
    code = 1
    try:
        if asked["how"] == "worker":
            _work(asked["scene"])
        else:
            asyncio.run(program.main(asked["scene"], asked["how"]))
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _work(scene: str) -> None:
    """The command itself, until it has looked and no invocation is left that a worker could go on with."""
    os.environ["SCENE"] = scene
    import adk_app

    from holdfast import worker
    from holdfast.cli import main

    looked, look = threading.Event(), worker.Worker._round

    async def looking(self: worker.Worker) -> None:
        await look(self)
        looked.set()

    def watch() -> None:
        looked.wait()
        while adk_app.store.runs(status="running", workflow=None, limit=1, after=None):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    worker.Worker._round = looking  # type: ignore[method-assign]
    threading.Thread(target=watch, daemon=True).start()
    main(["worker", "--adk", "adk_app:app"])


def _kill(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    _serve()
