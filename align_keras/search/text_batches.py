"""Answers questions that wait at the same time together."""

import asyncio
import collections
from collections.abc import Callable, Sequence
from typing import Any

# A text tower takes hardly longer for many short sentences than for one sentence.
_MOST = 64


class Batches:
    """Answers waiting questions in one call, up to a limit, while the next batch gathers.

    A single question is answered at once, without waiting for a batch to fill. All calls must be in
    one event loop.

    Args:
        answer_all: converts the questions to their answers, in a thread. An answer may be an
            exception, which is raised for the one who asked.
        limiter: an ``anyio.CapacityLimiter`` for the thread.
    """

    def __init__(self, answer_all: Callable[[Sequence[Any]], Sequence[Any]], limiter: Any) -> None:
        self._answer_all = answer_all
        self._limiter = limiter
        self._waiting: collections.deque[tuple[Any, asyncio.Future]] = collections.deque()
        self._worker: asyncio.Task | None = None

    async def ask(self, question: Any) -> Any:
        """The answer, after all batches before it."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            count = min(_MOST, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            answers = await self._answers([question for question, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # the one who asked is gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _answers(self, questions: Sequence[Any]) -> Sequence[Any]:
        import anyio

        try:
            return await anyio.to_thread.run_sync(
                self._answer_all, questions, limiter=self._limiter
            )
        except Exception as error:
            if len(questions) == 1:
                return [error]
            # Perhaps only one question is invalid; the others must still get their answers.
            return [answer for one in questions for answer in await self._answers([one])]
