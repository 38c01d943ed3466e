"""A coroutine that has not begun: what calling an async step, a workflow or a wait gives.

It *is* a ``collections.abc.Coroutine``, so asyncio's own tools take it, and a generic class of ours, so that
``gather(parse(x), credit(x))`` stays exact under strict type checkers.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NoReturn, TypeVar

R_co = TypeVar("R_co", covariant=True)


class LazyCoroutine(Coroutine[Any, Any, R_co]):
    """Whatever drives it (``await``, a task) starts it on its first ``send``. Its place in a run is settled already."""

    __slots__ = ("_coro",)

    def __init__(self) -> None:
        self._coro: Coroutine[Any, Any, R_co] | None = NEVER  # a call that is refused here needs no warning besides

    @property
    @abstractmethod
    def _name(self) -> str:
        """The qualified name of the function it stands for."""

    @abstractmethod
    def _described(self) -> str:
        """What it is, for messages: "step 'parse'"."""

    @abstractmethod
    def _begin(self) -> Coroutine[Any, Any, R_co]:
        """What does the work."""

    def __getattr__(self, name: str) -> str:
        # As the coroutine it stands for has them; a class cannot have a property of this name.
        if name == "__qualname__":
            return self._name
        if name == "__name__":
            return self._name.rpartition(".")[2]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _started(self) -> Coroutine[Any, Any, R_co]:
        coro = self._coro
        if coro is None:
            self._coro = NEVER
            self._coro = coro = self._begin()
        return coro

    def __await__(self) -> Generator[Any, Any, R_co]:
        if self._coro is not None:
            raise RuntimeError(f"this call of {self._name!r} was already awaited; make a new one")
        return self._started().__await__()

    def send(self, value: Any) -> Any:
        return self._started().send(value)

    def throw(self, *exc: Any) -> Any:
        return self._started().throw(*exc)

    def close(self) -> None:
        if self._coro is not None:
            self._coro.close()
        self._coro = NEVER

    def take(self) -> None:
        """Somebody else makes use of this call; it needs not be awaited any more."""
        self._coro = NEVER

    def __del__(self) -> None:
        if getattr(self, "_coro", NEVER) is None:
            warnings.warn(
                f"{self._described()} was called but never awaited, so it did not run",
                RuntimeWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name}>"


class Later(LazyCoroutine[R_co]):
    """What ``begin`` gives, begun when it is driven."""

    __slots__ = ("_function", "_named")

    def __init__(self, name: str, begin: Callable[[], Coroutine[Any, Any, R_co]]) -> None:
        super().__init__()
        self._named = name
        self._function = begin
        self._coro = None

    @property
    def _name(self) -> str:
        return self._named

    def _described(self) -> str:
        return self._named

    def _begin(self) -> Coroutine[Any, Any, R_co]:
        return self._function()


class _Never(Coroutine[Any, Any, Any]):
    def send(self, value: Any) -> NoReturn:
        raise RuntimeError("this call was closed or handed to a Holdfast; make a new one")

    def throw(self, *exc: Any) -> NoReturn:
        self.send(None)

    def __await__(self) -> NoReturn:
        self.send(None)

    def close(self) -> None: ...


NEVER: Any = _Never()
