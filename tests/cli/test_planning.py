"""``holdfast plan`` as it is typed: what it says, and each of its exit codes."""

from __future__ import annotations

import pytest
from terminal import Done, Terminal

STORE = ("--store", "orders.db")
ORDERS = """
import holdfast
from holdfast import step, workflow

print("imported")


@step
async def reserve(item: str) -> str:
    print("reserving", flush=True)
    return item


@step
async def invoice(item: str, amount: int) -> str:
    return f"{amount} for {item}"


@step
async def send(item: str) -> str:
    raise OSError("no carrier")


@workflow(version="1")
async def order(item: str) -> str:
    await reserve(item)
    await invoice(item, 100)
    return await send(item)
"""
SAME = "    await reserve(item)\n    await invoice(item, 100)\n    return await send(item)\n"


@pytest.fixture
def orders(terminal: Terminal) -> Terminal:
    """Two runs that failed at the last step, and were taken up again by nobody."""
    (terminal.folder / "orders.py").write_text(ORDERS)
    for id in ("a", "b"):
        assert terminal.type("run", "orders:order", "lamp", "--id", id, *STORE).code == 1
    return terminal


def edited(terminal: Terminal, body: str) -> str:
    assert SAME in ORDERS
    (terminal.folder / "edited.py").write_text(ORDERS.replace(SAME, body))
    return "edited"


def test_what_would_run_is_printed_and_nothing_executed(orders: Terminal) -> None:
    before = orders.type("show", "a", *STORE, "--json").object
    done = orders.type("plan", "a", "--against", "orders", *STORE)
    assert done.code == 0, done
    assert done.out.startswith("a  recalled  order, failed\n") and "recalled    2 calls" in done.out
    assert "would run   step send" in done.out and "whose failure is tried anew" in done.out
    assert "orders.py:28, in order" in done.out and "reserving" not in done.out + done.err
    assert orders.type("show", "a", *STORE, "--json").object == before


def test_each_answer_has_an_exit_code(orders: Terminal) -> None:
    for body, code, verdict in (
        (SAME, 0, "recalled"),
        (SAME.replace("100", "119"), 1, "diverges"),
        ("    await invoice(item, 100)\n    return 'done'\n", 2, "unclaimed"),
        ("    import asyncio\n    await reserve(item)\n    await asyncio.sleep(60)\n", 3, "unknown"),
        ("    import time\n    await reserve(item)\n    time.sleep(60)\n", 3, "unknown"),
    ):
        module = edited(orders, body)
        done = orders.type("plan", "a", "--against", module, *STORE, "--timeout", "1", "--json")
        assert done.code == code, (body, done)
        assert (done.object["verdict"], done.object["exit_code"], done.object["id"]) == (verdict, code, "a")
    assert done.object["hangs"] and "edited.py" in done.object["hangs"][0]


def test_a_divergence_is_told_with_its_line_and_the_ways_on(orders: Terminal) -> None:
    done = orders.type("plan", "a", "--against", edited(orders, SAME.replace("100", "119")), *STORE)
    assert done.code == 1
    assert "amount: recorded 100, now 119" in done.out and "edited.py:27, in order" in done.out
    assert "new id" in done.out


def test_all_live_runs_are_planned_and_the_worst_is_the_exit_code(orders: Terminal) -> None:
    done = orders.type("plan", "--all-live", "--against", "orders", *STORE)
    assert (done.code, done.out) == (0, "0 unfinished runs\n")
    (orders.folder / "waits.py").write_text(
        ORDERS.replace(SAME, SAME.replace("return await send(item)", "await holdfast.sleep(3600)"))
    )
    program = (
        "import asyncio, holdfast, waits\n"
        "async def main():\n"
        "    async with holdfast.open('orders.db') as hf:\n"
        "        for id, item in (('c', 'lamp'), ('d', 'chair')):\n"
        "            await hf.start(waits.order(item), id=id)\n"
        "            while len(await hf.history(id)) < 3:\n"
        "                await asyncio.sleep(0.01)\n"
        "asyncio.run(main())\n"
    )
    (orders.folder / "begin.py").write_text(program)
    assert Done.of(orders.python("begin.py")).code == 0
    same = orders.type("plan", "--all-live", "--against", "waits", *STORE)
    assert (same.code, same.out.splitlines()[-1]) == (0, "2 unfinished runs: 2 recalled")
    assert "would wait  sleep(seconds=3600" in same.out
    other = edited(orders, SAME.replace("item, 100", "item, 100 if item == 'lamp' else 119"))
    worst = orders.type("plan", "--all-live", "--against", other, *STORE, "--json")
    assert worst.code == worst.object["exit_code"] == 1
    assert {each["id"]: each["exit_code"] for each in worst.object["plans"]} == {"c": 0, "d": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["plan", "--against", "orders"], "Name one run, or say --all-live"),
        (["plan", "a", "--all-live", "--against", "orders"], "Name one run, or say --all-live"),
        (["plan", "a"], "Say with --against MODULE"),
        (["plan", "a", "--against", "nowhere"], "there is no module 'nowhere'"),
        (["plan", "a", "--against", "loans"], "run 'a' is one of workflow 'order', which is not in loans"),
        (["plan", "nobody", "--against", "orders"], "there is no run 'nobody'"),
        (["plan", "a", "--against", "orders", "--timeout", "soon"], "soon"),
        (["plan", "a", "--nonsense"], "nonsense"),
    ],
)
def test_what_cannot_be_planned_is_exit_code_64(orders: Terminal, line: list[str], said: str) -> None:
    done = orders.type(*line, *STORE)
    assert done.code == 64 and said in done.err, done
