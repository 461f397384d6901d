"""`Era` and `AsyncEra`: the market for people writing Python."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

from era_hub import models
from era_hub.client import AsyncEraClient, EraClient

from .core import Session
from .jobs import AsyncJobHandle, JobHandle
from .steps import Steps, run, run_async


class Era(Session):
    """The market, for scripts and notebooks.

    Inside a notebook or job of the hub it finds the service and a token by itself.

    Parameters
    ----------
    url, token : str, optional
        See `era_hub.client.discover`.

    Examples
    --------
    >>> from era_extension import Era
    >>> era = Era()  # doctest: +SKIP
    >>> era.market()  # doctest: +SKIP
    >>> era.submit("train.py", duration="30m", deadline="18:00", value=5)  # doctest: +SKIP
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        super().__init__(url, token)
        self.client = EraClient(self.url, self._token)

    def _run(self, steps: Steps[Any]) -> Any:
        return run(steps)

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _handle(self, job: models.Job) -> JobHandle:
        return JobHandle(self, job)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEra(Session):
    """The market, for asynchronous code: the calls of `Era`, to be awaited.

    Examples
    --------
    >>> async with AsyncEra() as era:  # doctest: +SKIP
    ...     job = await era.submit("train.py", duration="30m", value=5)
    ...     async for text in job.follow():
    ...         print(text, end="")
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        super().__init__(url, token)
        self.client = AsyncEraClient(self.url, self._token)

    async def _run(self, steps: Steps[Any]) -> Any:
        return await run_async(steps)

    def _pause(self, seconds: float) -> Any:
        return asyncio.sleep(seconds)

    def _handle(self, job: models.Job) -> AsyncJobHandle:
        return AsyncJobHandle(self, job)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
