"""The cloud's side, for a scheduler of others: what must run, and what has become of it."""

from __future__ import annotations

from tornado.log import app_log

from .. import cloud_models as models
from .base import ApiHandler, Scope, endpoint
from .once import once

SCHEDULERS = (Scope.CLOUD, Scope.ADMIN)


class AllocationHandler(ApiHandler):
    """GET allocation"""

    @endpoint("What must run right now", models.Allocation, scopes=SCHEDULERS)
    async def get(self) -> models.Allocation:
        return await self.run(self.services.market.allocation)


class UpdateHandler(ApiHandler):
    """POST allocation/update"""

    @endpoint(
        "Say what there is, and which workloads have ended or failed",
        models.FeedbackResult,
        body=models.Feedback,
        scopes=SCHEDULERS,
        fresh=True,
    )
    async def post(self, body: models.Feedback) -> models.FeedbackResult:
        caller = self.require(*SCHEDULERS)
        update = self.services.market.update
        result = await once(self, models.FeedbackResult, body, update, body)
        if result.settled or result.broken or result.moved:
            text = "%s: settled %d, broken %d, moved %d reservations"
            counts = len(result.settled), len(result.broken), len(result.moved)
            app_log.info(text, caller.name, *counts)
            self.services.reconciler.wake()
        return result
