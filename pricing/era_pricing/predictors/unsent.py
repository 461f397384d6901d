"""Requests that were never sent because the price was shown first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from era_pricing.arrays import FloatArray, IntArray
from era_pricing.predictors.base import SeenRequest
from era_pricing.predictors.record import BINS, PER_OCTAVE
from era_pricing.timegrid import DAY, HOUR

_MOST = 10.0
"""Most requests for which one that was sent may stand."""


class Unsent:
    """For how many requests each one stands that was sent.

    A share of the users, `share`, look at the price and send nothing if it is above
    their value; the others bid all the same. With A(v) the share of the time in
    which the price was at most v, a request of value v per unit and hour is sent
    with probability ``1 - share * (1 - A(v))`` and stands for the inverse of that
    (D. G. Horvitz and D. J. Thompson, "A Generalization of Sampling Without
    Replacement from a Finite Universe", JASA 47, 1952), 10 at the most.

    A(v) comes from the offers made, each of which counts until the next one, for an
    hour at the most, and half as much a week later. Without prices, the outcomes
    have to do: all who would be accepted send their bid, of the others only
    ``1 - share``, so that an accepted one stands for itself and another one for
    ``1 / (1 - share)``.

    Parameters
    ----------
    share
        From 0, where nothing is corrected, to 1.

    Notes
    -----
    Offers are only on record for those who sent a bid, which is likelier when
    prices are low. So A is rather too large, and the correction too small.
    """

    def __init__(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"unsent must be a share between 0 and 1, got {share!r}")
        self._share = share
        self._time = np.zeros(BINS)
        self._latest: int | None = None

    def weights(self, seen: Sequence[SeenRequest], work: FloatArray) -> FloatArray:
        """For how many requests each of `seen` stands, shape (m,), between 1 and 10.

        Parameters
        ----------
        seen
            Requests in order of submission, none of them passed before.
        work : FloatArray, shape (m,)
            Unit-seconds of each.
        """
        if not self._share:
            return np.ones(len(seen))
        value = _bin(np.array([float(each.value) for each in seen]) * HOUR / work)
        for each, unit_seconds in zip(seen, work, strict=True):
            if each.price is not None:
                self._offered(each.submitted, each.price * HOUR / unit_seconds)
        if self._time.any():
            cheap = self._time.cumsum() / self._time.sum()
            sent = 1 - self._share * (1 - cheap[value])
        else:
            accepted = np.array([each.accepted for each in seen])
            sent = np.where(accepted, 1.0, 1 - self._share)
        weights: FloatArray = 1 / np.maximum(sent, 1 / _MOST)
        return weights

    def _offered(self, now: int, price: float) -> None:
        passed = 0 if self._latest is None else min(max(now - self._latest, 0), HOUR)
        self._latest = now
        self._time *= 0.5 ** (passed / (7 * DAY))
        self._time[_bin(np.array([price]))[0]] += max(passed, 1)


def _bin(price: FloatArray) -> IntArray:
    level = np.rint(PER_OCTAVE * np.log2(np.maximum(price, 1))).astype(np.int64)
    bins: IntArray = np.minimum(level, BINS - 1)
    return bins
