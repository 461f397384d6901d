"""What admins changed: append-only."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from .tables import AuditRecord


class AuditLog:
    """Writes and reads the log within the caller's transaction."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def write(
        self,
        at: int,
        actor: str,
        action: str,
        subject: str,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
        request_id: str = "",
    ) -> AuditRecord:
        """Log a change in the transaction that makes it."""
        row = AuditRecord(
            at=at,
            actor=actor,
            action=action,
            subject=subject,
            before=before,
            after=after,
            request_id=request_id,
        )
        self.session.add(row)
        self.session.flush()
        return row

    def read(
        self,
        limit: int = 100,
        before: int | None = None,
        actor: str | None = None,
        subject: str | None = None,
        action: str | None = None,
    ) -> list[AuditRecord]:
        """The newest `limit` records older than number `before`, newest first."""
        wanted = {"actor": actor, "subject": subject, "action": action}
        query = select(AuditRecord).filter_by(**{k: v for k, v in wanted.items() if v is not None})
        if before is not None:
            query = query.where(AuditRecord.id < before)
        return list(self.session.scalars(query.order_by(AuditRecord.id.desc()).limit(limit)))
