"""How things are written: for people with rich, for machines as one JSON object, the same words in both."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from holdfast.records import utc

# What a file or a pipe gets: nothing is cut to a terminal that is not there.
PIPE_WIDTH = 240


def console(stream: TextIO | None = None) -> Console:
    stream = sys.stdout if stream is None else stream
    return Console(file=stream, highlight=False, width=None if stream is not None and stream.isatty() else PIPE_WIDTH)


# What a terminal obeys instead of showing it: control characters, and those that turn the direction of writing.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_KNOWN = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def escaped(text: str) -> str:
    """Text of somebody's program or data, as one line that a terminal shows and does not obey."""
    return _OBEYED.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    sign = found[0]
    return _KNOWN.get(sign) or (f"\\x{ord(sign):02x}" if ord(sign) < 256 else f"\\u{ord(sign):04x}")


def lines(text: str) -> str:
    """The same for a message: its lines stay, and those after the first are set in."""
    return "\n  ".join(escaped(line) for line in text.split("\n"))


def complain(message: str) -> None:
    """An error, in one place and one look: what happened, and what to do."""
    text = Text.assemble(("holdfast: ", "bold red"), lines(message))
    target = console(sys.stderr)
    target.print(text, soft_wrap=not target.is_terminal)


def is_json(args: Iterable[str]) -> bool:
    """Whether the line asks for JSON; known also when it could not be parsed."""
    before = list(args)
    return "--json" in (before[: before.index("--")] if "--" in before else before)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, default=str), flush=True)


def print_value(value: Any) -> None:
    """A result, so that a shell can use it: text as it is, nothing for None, anything else as JSON."""
    if isinstance(value, str):
        print("\n".join(map(escaped, value.split("\n"))) if sys.stdout.isatty() else value, flush=True)
    elif value is not None:
        print(json.dumps(value, ensure_ascii=False, indent=2, default=str), flush=True)


def short(value: Any, limit: int = 60) -> str:
    """A value in one line of at most ``limit`` characters."""
    text = escaped(" ".join((value if isinstance(value, str) else _inline(value)).split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _inline(value: Any) -> str:
    """JSON, but a dataclass as it is written in Python."""
    if isinstance(value, dict) and "__type__" in value:
        held = ", ".join(f"{name}={_inline(part)}" for name, part in value.items() if name != "__type__")
        return f"{value['__type__']}({held})"
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {_inline(part)}" for name, part in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(_inline(part) for part in value) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


def fields(value: Any, limit: int = 60) -> str:
    """A dict (arguments, state) as people write it: ``app_id=A-17, pages=3``."""
    if not isinstance(value, dict):
        return short(value, limit)
    return short(", ".join(f"{name}={short(held, limit)}" for name, held in value.items()), limit)


def seconds(value: float) -> str:
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 59.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def dollars(value: float) -> str:
    return f"${value:.4f}".rstrip("0").rstrip(".")


def ago(when_ms: int, now_ms: int) -> str:
    passed = (now_ms - when_ms) / 1000
    if passed < 1:
        return "just now"
    if passed < 60:
        return f"{passed:.0f} s ago"
    if passed < 3600:
        return f"{passed / 60:.0f} min ago"
    if passed < 86400:
        return f"{passed / 3600:.0f} h ago"
    return local(when_ms)


def local(ms: int) -> str:
    """A time as the reader's clock shows it."""
    return utc(ms).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(ms: int) -> str:
    return utc(ms).isoformat(timespec="milliseconds")
