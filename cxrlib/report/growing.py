"""Something drawn again and again beside other work, from what is known so far."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

from cxrlib.errors import CxrError

T = TypeVar("T")


class Growing(Generic[T]):
    """Call ``draw`` with the latest news, in a thread: at once, then ``seconds`` apart while there are more.

    What goes wrong is left to the last drawing, which is the caller's own, after the ``with``.
    """

    def __init__(self, draw: Callable[[T], None], seconds: float):
        self.draw, self.seconds = draw, seconds
        self._latest: list[T] = []
        self._news, self._ended = threading.Condition(), threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def tell(self, news: T) -> None:
        """There is something new; does not wait."""
        with self._news:
            self._latest = [news]
            self._news.notify()

    def __enter__(self) -> Growing[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with self._news:
            self._ended.set()
            self._news.notify()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.is_set():
            with self._news:
                self._news.wait_for(lambda: self._latest or self._ended.is_set())
                news, self._latest = self._latest, []
            if news and not self._ended.is_set():
                with suppress(CxrError, OSError):
                    self.draw(news[0])
                self._ended.wait(self.seconds)
