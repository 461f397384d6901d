"""ETag and If-Match: a change is refused if what it was based on has changed."""

from __future__ import annotations

import re
import zlib

from .. import models
from .base import ApiHandler

_TAG = re.compile(r'"(\d{1,18})(?:-[0-9a-f]{8})?"')


class VersionedHandler(ApiHandler):
    """What is done with one reservation, or with its job."""

    _tag: str | None = None

    def tag(self, shown: models.Reservation | models.Job) -> None:
        """Say which version is answered; the second part tells apart what versions don't."""
        reservation = shown.reservation if isinstance(shown, models.Job) else shown
        rest = zlib.crc32(shown.model_dump_json().encode())
        self._tag = f'"{reservation.version}-{rest:08x}"'

    def compute_etag(self) -> str | None:
        return self._tag or super().compute_etag()

    def versions(self) -> frozenset[int] | None:
        """The versions that the caller means by If-Match; None for any."""
        given = self.request.headers.get("If-Match")
        if given is None or given.strip() == "*":
            return None
        # A tag that is none of ours matches no version.
        found = (_TAG.fullmatch(each.strip()) for each in given.split(","))
        return frozenset(int(match[1]) for match in found if match)
