"""The figures as pictures: how far each is from its target, and where the time of one thing goes.

A picture has a ground of its own, so that a light page and a dark one show it alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no display is needed

from matplotlib import pyplot as plt
from measure import Figure
from report import number, unit_of

GROUND, INK, FAINT = "#f6f8fa", "#1f2328", "#6e7781"
WHOLE, PART = "#0a3069", "#54aeff"
MARKS = {True: ("o", "#0969da", "met"), False: ("D", "#bc4c00", "missed"), None: ("X", "#6e7781", "unsettled")}
STYLE = {
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#d0d7de",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "savefig.dpi": 120,
}

# What the pictures show, in the order ``draw`` makes them.
SHOWN = (
    "Each figure that has a target, as a multiple of it, with its spread",
    "What one step, one short workflow, one recalled step and one change of state spend their time on",
)

Medians = dict[str, float]
# Title, unit, row, the raw rounds of the whole, and its parts from the medians of that row's rounds.
PANELS: list[tuple[str, str, str, str, dict[str, Callable[[Medians], float]]]] = [
    (
        "One durable step with a 1 KB result",
        "µs",
        "one_step",
        "step_us",
        {
            "the floor: one committed INSERT": lambda m: m["floor_us"],
            "the store: fence, 21 columns": lambda m: m["store_us"] - m["floor_us"],
            "the journal: two changes of threads": lambda m: m["journal_us"] - m["store_us"],
            "the step: place, inputs, delivery": lambda m: m["step_us"] - m["journal_us"],
        },
    ),
    (
        "One durable step with a 1 KB result, on PostgreSQL",
        "µs",
        "postgres_step",
        "step_us",
        {
            "the floor: one committed INSERT": lambda m: m["floor_us"],
            "the statement: lock, 21 columns": lambda m: m["store_us"] - m["floor_us"],
            "the journal: two changes of threads": lambda m: m["journal_us"] - m["store_us"],
            "the step: place, inputs, delivery": lambda m: m["step_us"] - m["journal_us"],
        },
    ),
    (
        "A workflow of 3 steps, of 200 at once",
        "µs",
        "short_workflows",
        "workflow_us",
        {
            "start and end, on the loop's thread": lambda m: m["start_and_end_us"],
            "three steps, on the loop's thread": lambda m: m["loop_us"] - m["start_and_end_us"],
            "the loop's thread waiting": lambda m: m["workflow_us"] - m["loop_us"],
        },
    ),
    (
        "A recalled step",
        "µs",
        "recall",
        "recalled_us",
        {
            "the call and its place": lambda m: m["creation_us"],
            "inputs encoded and fingerprinted": lambda m: m["inputs_us"],
            "the row's checksum": lambda m: m["checksum_us"],
            "the value decoded": lambda m: m["decoding_us"],
            "coroutine, look-up, delivery": lambda m: m["rest_us"],
        },
    ),
    (
        "A step that appends to a list of 1 MB",
        "ms",
        "state",
        "append_ms",
        {
            "a step that sets a small key": lambda m: m["beside_nothing_ms"],
            "the list copied": lambda m: m["copy_ms"],
            "the list compared": lambda m: m["compare_ms"],
            "the rest": lambda m: m["append_ms"] - m["beside_nothing_ms"] - m["copy_ms"] - m["compare_ms"],
        },
    ),
]


def draw(titles: dict[str, str], known: dict[str, Any], folder: Path) -> list[Path]:
    """The pictures of the results ``known``, by row; ``titles`` names the rows in their order."""
    with mpl.rc_context(STYLE):
        pictures = [_targets(titles, known, folder / "targets.png")]
        if any(row in known for _, _, row, *_ in PANELS):
            pictures.append(_parts(known, folder / "parts.png"))
        return pictures


def _targets(titles: dict[str, str], known: dict[str, Any], path: Path) -> Path:
    """Each figure that has a target, as a multiple of it: left of the line is what was asked for."""
    rows: list[tuple[str, Figure | None]] = []
    for name, title in titles.items():
        figures = [Figure(**plain) for plain in known.get(name, {"figures": []})["figures"]]
        aimed = [each for each in figures if each.target and each.value > 0]  # none or nothing is on no such scale
        if aimed:
            rows += [(title, None), *((each.what, each) for each in aimed)]
    fig, axes = plt.subplots(figsize=(9.5, 0.9 + 0.27 * len(rows)), layout="constrained")
    for y, (_, each) in enumerate(rows):
        if each is not None:
            _mark(axes, y, each)
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_xscale("log")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [what for what, _ in rows])
    for label, (_, each) in zip(axes.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if each is None else "normal")
    axes.tick_params(axis="y", length=0)
    ticks = [0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32]
    shown = [tick for tick in ticks if axes.get_xlim()[0] / 1.5 < tick < axes.get_xlim()[1] * 1.5]
    axes.set_xticks(shown, [f"{tick:g}×" for tick in shown])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x")
    axes.set_xlabel("times the target: left of the line is met (rates are turned round, so less is better throughout)")
    handles = [
        plt.Line2D([], [], marker=marker, color=colour, linestyle="", label=said)
        for marker, colour, said in MARKS.values()
    ]
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    return _saved(fig, path)


def _mark(axes: Any, y: int, each: Figure) -> None:
    marker, colour, _ = MARKS[each.met]
    assert each.target is not None

    def times(value: float) -> float:
        assert each.target is not None
        return each.target / value if each.at_least else value / each.target

    if each.low is not None and each.high is not None:
        axes.plot([times(each.low), times(each.high)], [y, y], color=colour, linewidth=2, alpha=0.45)
    axes.plot([times(each.value)], [y], marker=marker, color=colour, markersize=6, linestyle="")
    unit = unit_of(each.unit)
    text = f"{number(each.value)}{unit}  ({'≥' if each.at_least else '≤'} {number(each.target)}{unit})"
    axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=colour)


def _parts(known: dict[str, Any], path: Path) -> Path:
    """What some of the figures are made of, one part after the other."""
    panels = [panel for panel in PANELS if panel[2] in known]
    heights = [len(parts) + 2.2 for *_, parts in panels]
    size = (8.5, 0.6 + 0.29 * sum(heights))
    fig, grid = plt.subplots(len(panels), figsize=size, height_ratios=heights, layout="constrained", squeeze=False)
    for axes, (title, unit, row, whole, parts) in zip(grid[:, 0], panels, strict=True):
        rounds = {name: times for name, times in known[row]["raw"].items() if isinstance(times, list)}
        medians = {name: statistics.median(times) for name, times in rounds.items() if _are_numbers(times)}
        bars = [("in all", 0.0, medians[whole], WHOLE)]
        began = 0.0
        for what, of in parts.items():
            bars.append((what, began, of(medians), PART))
            began += of(medians)
        axes.barh(
            [what for what, *_ in bars],
            [width for _, _, width, _ in bars],
            left=[left for _, left, _, _ in bars],
            color=[colour for *_, colour in bars],
            height=0.7,
        )
        for y, (_, left, width, _) in enumerate(bars):
            axes.annotate(
                f"{number(width)} {unit}", (max(left, left + width), y), xytext=(4, 0),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
        axes.invert_yaxis()
        axes.set_title(title)
        axes.set_xlim(
            min(0, *(left + width for _, left, width, _ in bars)),
            1.12 * max(left + width for _, left, width, _ in bars),
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
    return _saved(fig, path)


def _are_numbers(times: list[Any]) -> bool:
    return bool(times) and all(isinstance(each, (int, float)) for each in times)


def _saved(fig: Any, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path, metadata={"Software": None})  # the same bytes for the same figures
    plt.close(fig)
    return path
