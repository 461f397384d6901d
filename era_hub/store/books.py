"""Proof of the books, from scratch and by SQL: what does not add up is found."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from .ledger import BANK, ESCROW, REVENUE
from .tables import Account, AuditRecord

MOST = 100
"""Findings of one check that are told; thousands of one kind help nobody."""


@dataclass(frozen=True)
class Finding:
    """Something that does not add up: which check found it, where, and what."""

    check: str
    subject: str
    text: str


Steps = Sequence[tuple[int, int]]
"""How many units there are, each from a time (UTC seconds) on; the first also before that."""

Told = Callable[[str, int, int], None]
"""Called before each check: its name, how many are done, and how many there are."""


def prove(
    session: Session,
    capacities: Mapping[str, int | Steps] | None = None,
    since: int | None = None,
    told: Told = lambda check, done, total: None,
) -> list[Finding]:
    """Everything that does not add up; nothing if the books are right.

    Parameters
    ----------
    session : Session
        A reader's will do, and sees one moment.
    capacities : mapping of str to int or steps, optional
        Units of each pool, always the same or over time; of these pools it is proved that
        nothing was sold twice.
    since : int, optional
        With `capacities`: only of reservations that end after this time, as when a pool
        was larger before.
    told : callable, optional
        Hears how far the proof is.
    """
    if session.get_bind().dialect.name == "postgresql":
        # Every query here reads whole tables. Without statistics, as after a restore, the
        # planner may take them for empty, and look each row up one by one.
        session.execute(text("SET LOCAL enable_nestloop = off"))
        session.execute(text("SET LOCAL work_mem = '64MB'"))
    names = {BANK: -1, ESCROW: -1, REVENUE: -1}
    for account in session.scalars(select(Account).filter_by(kind="system")):
        names[account.name] = account.id
    findings: list[Finding] = []
    pools = capacities or {}
    total = len(CHECKS) + 1 + len(pools)
    for number, (check, subject, query, words) in enumerate(CHECKS):
        told(check, number, total)
        rows = session.execute(text(f"{query} LIMIT {MOST}"), names).mappings()
        for row in rows:
            values: dict[str, Any] = {**row}
            findings.append(Finding(check, subject.format(**values), words.format(**values)))
    told("log", len(CHECKS), total)
    findings += islice(_unlogged(session), MOST)
    for number, (pool, units) in enumerate(pools.items(), len(CHECKS) + 1):
        told("capacity", number, total)
        steps = [(0, units)] if isinstance(units, int) else units
        findings += islice(_oversold(session, pool, steps, since), MOST)
    return findings


def _unlogged(session: Session) -> Iterator[Finding]:
    """Compare what admins gave and took with the log of what they did."""
    logged: Counter[tuple[str, str, str, int]] = Counter()
    record = AuditRecord
    query = select(record.action, record.subject, record.actor, record.after)
    for action, subject, actor, after in session.execute(query.where(record.action.in_(GIVEN))):
        logged[GIVEN[action], subject, actor, (after or {}).get("amount", 0)] += 1
    moved = Counter(
        (row.kind, f"{row.owner}:{row.name}", row.actor, int(row.amount))
        for row in session.execute(text(MOVED))
    )
    for key in sorted(logged.keys() | moved.keys()):
        if logged[key] != moved[key]:
            kind, subject, actor, amount = key
            times = f"{logged[key]} in the log, {moved[key]} in the books"
            yield Finding("log", subject, f"a {kind} of {amount} by {actor}: {times}")


def _oversold(session: Session, pool: str, steps: Steps, since: int | None) -> Iterator[Finding]:
    """Compare what was sold over time with what there was."""
    starts = [at for at, _ in steps]
    least = min(units for _, units in steps)
    values: dict[str, Any] = {"pool": pool, "least": least, "since": since or 0}
    for row in session.execute(text(SOLD), values):
        # The step in which the row begins, and those that begin before the next row.
        for index in range(max(0, bisect_right(starts, row.at) - 1), len(steps)):
            at, units = max(row.at, starts[index]), steps[index][1]
            if starts[index] >= row.until and at > row.at:
                break
            if row.sold > units:
                sold = f"{row.sold} units are sold of {units} at {at}"
                yield Finding("capacity", f"pool {pool}", sold)
                break


OPEN = "('accepted', 'active')"

SUMS = """
    SELECT t.reservation_id,
        sum(CASE WHEN t.kind = 'hold' THEN e.amount ELSE 0 END) AS held,
        sum(CASE WHEN t.kind = 'charge' THEN -e.amount ELSE 0 END) AS paid,
        sum(CASE WHEN t.kind = 'refund' THEN -e.amount ELSE 0 END) AS back,
        sum(CASE WHEN t.kind = 'charge' THEN 1 ELSE 0 END) AS charges
    FROM transactions t JOIN entries e ON e.transaction_id = t.id
    WHERE e.account_id = :escrow AND t.reservation_id IS NOT NULL
    GROUP BY t.reservation_id
"""

MONEY = f"""
    SELECT r.id, r.state, r.price, r.refunded, r.ended,
        coalesce(m.held, 0) AS held, coalesce(m.paid, 0) AS paid,
        coalesce(m.back, 0) AS back, coalesce(m.charges, 0) AS charges
    FROM reservations r LEFT JOIN ({SUMS}) m ON m.reservation_id = r.id
"""

# Which check, of what, the query that finds what is wrong, and the words for it.
CHECKS = [
    (
        "transaction",
        "transaction {id}",
        """
        SELECT t.id, t.kind, coalesce(s.total, 0) AS total, coalesce(s.entries, 0) AS entries
        FROM transactions t LEFT JOIN (
            SELECT transaction_id, sum(amount) AS total, count(*) AS entries
            FROM entries GROUP BY transaction_id
        ) s ON s.transaction_id = t.id
        WHERE coalesce(s.entries, 0) < 2 OR s.total <> 0
        """,
        "the {entries} entries of a {kind} sum to {total}, not to 0",
    ),
    (
        "cause",
        "transaction {id}",
        """
        SELECT id, kind, coalesce(reservation_id, 'none') AS reservation FROM transactions
        WHERE (reservation_id IS NULL) <> (kind IN ('grant', 'withdrawal', 'expiry'))
            OR kind NOT IN ('grant', 'withdrawal', 'expiry', 'hold', 'charge', 'refund')
        """,
        "a {kind} names reservation {reservation}",
    ),
    (
        "balance",
        "{kind} {name}",
        """
        SELECT a.kind, a.name, a.balance, coalesce(s.total, 0) AS total
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(amount) AS total FROM entries GROUP BY account_id
        ) s ON s.account_id = a.id
        WHERE a.balance <> coalesce(s.total, 0)
        """,
        "the balance is {balance}, and the entries sum to {total}",
    ),
    (
        "statement",
        "entry {id}",
        """
        SELECT id, account_id, amount, balance, before FROM (
            SELECT id, account_id, amount, balance, coalesce(
                lag(balance) OVER (PARTITION BY account_id ORDER BY id), 0) AS before
            FROM entries
        ) chain
        WHERE before + amount <> balance
        """,
        "account {account_id} had {before}, {amount} came, and {balance} is said to be there",
    ),
    (
        "lot",
        "lot {id}",
        """
        SELECT l.id, l.amount, l.remaining, coalesce(s.total, 0) AS total,
            coalesce(s.strange, 0) AS strange
        FROM lots l LEFT JOIN (
            SELECT e.lot_id, sum(e.amount) AS total,
                sum(CASE WHEN e.account_id <> o.account_id THEN 1 ELSE 0 END) AS strange
            FROM entries e JOIN lots o ON o.id = e.lot_id GROUP BY e.lot_id
        ) s ON s.lot_id = l.id
        WHERE l.remaining <> coalesce(s.total, 0) OR l.remaining < 0 OR l.remaining > l.amount
            OR coalesce(s.strange, 0) > 0
        """,
        "{remaining} of {amount} are there, the entries sum to {total}, "
        "and {strange} of them are of another account",
    ),
    (
        "overdraft",
        "{kind} {name}",
        """
        SELECT a.kind, a.name, a.balance, a.overdraft, coalesce(s.total, 0) AS lapsing
        FROM accounts a LEFT JOIN (
            SELECT account_id, sum(remaining) AS total FROM lots
            WHERE remaining > 0 GROUP BY account_id
        ) s ON s.account_id = a.id
        WHERE a.kind <> 'system' AND a.balance - coalesce(s.total, 0) < -a.overdraft
        """,
        "{balance} are there, {lapsing} of them lapse, and only {overdraft} may be overdrawn",
    ),
    (
        "reservation",
        "reservation {id}",
        f"""
        SELECT * FROM ({MONEY}) m
        WHERE held <> price OR CASE WHEN state IN {OPEN}
            THEN charges <> 0 OR back <> 0 OR ended IS NOT NULL
            ELSE charges <> 1 OR back <> refunded OR paid + back <> held
                OR back < 0 OR back > held OR ended IS NULL END
        """,
        "{state} at a price of {price}, {refunded} refunded: {held} held, {paid} paid in "
        "{charges} charges, {back} given back",
    ),
    (
        "payer",
        "reservation {id}",
        """
        SELECT DISTINCT r.id, r.account_id AS payer, e.account_id AS moved
        FROM reservations r
        JOIN transactions t ON t.reservation_id = r.id AND t.kind IN ('hold', 'refund')
        JOIN entries e ON e.transaction_id = t.id AND e.account_id <> :escrow
        WHERE r.account_id IS NULL OR r.account_id <> e.account_id
        """,
        "account {payer} pays, and credits of account {moved} moved",
    ),
    (
        "escrow",
        "escrow",
        f"""
        SELECT held, balance FROM (
            SELECT coalesce((SELECT sum(price) FROM reservations WHERE state IN {OPEN}), 0)
                AS held,
            coalesce((SELECT balance FROM accounts WHERE id = :escrow), 0) AS balance
        ) both_sides WHERE held <> balance
        """,
        "open reservations hold {held}, and {balance} are set aside",
    ),
    (
        "revenue",
        "revenue",
        f"""
        SELECT paid, balance FROM (
            SELECT coalesce((SELECT sum(price - refunded) FROM reservations
                WHERE state NOT IN {OPEN}), 0) AS paid,
            coalesce((SELECT balance FROM accounts WHERE id = :revenue), 0) AS balance
        ) both_sides WHERE paid <> balance
        """,
        "ended reservations cost {paid}, and {balance} were taken",
    ),
    (
        "grant",
        "grant {grant_id}",
        """
        SELECT k.grant_id, k.account_id, k.tick, k.amount, coalesce(s.amount, 0) AS given
        FROM grant_ticks k LEFT JOIN (
            SELECT t.id, t.actor, e.account_id, sum(e.amount) AS amount
            FROM transactions t JOIN entries e ON e.transaction_id = t.id
            WHERE t.kind = 'grant' AND t.actor LIKE 'grant:%' GROUP BY t.id, t.actor, e.account_id
        ) s ON s.id = k.transaction_id AND s.account_id = k.account_id
            AND s.actor = 'grant:' || k.grant_id
        WHERE k.amount <> coalesce(s.amount, 0)
        """,
        "the tick of {tick} gives account {account_id} {amount}, and {given} came",
    ),
    (
        "grant",
        "transaction {id}",
        """
        SELECT t.id, t.actor, count(k.tick) AS ticks FROM transactions t
        LEFT JOIN grant_ticks k ON k.transaction_id = t.id
        WHERE t.kind = 'grant' AND t.actor LIKE 'grant:%'
        GROUP BY t.id, t.actor HAVING count(k.tick) <> 1
        """,
        "a grant by {actor} belongs to {ticks} ticks, not to one",
    ),
]

GIVEN = {"credits.grant": "grant", "credits.withdraw": "withdrawal"}
"""Kinds of transactions that admins cause at once, by what the log calls it."""

MOVED = """
    SELECT t.kind, t.actor, a.kind AS owner, a.name, abs(sum(e.amount)) AS amount
    FROM transactions t JOIN entries e ON e.transaction_id = t.id
    JOIN accounts a ON a.id = e.account_id
    WHERE t.kind IN ('grant', 'withdrawal') AND t.actor LIKE 'admin:%' AND a.kind <> 'system'
    GROUP BY t.id, t.kind, t.actor, a.kind, a.name
"""

SOLD = """
    WITH those AS (
        SELECT id, units, start, "end", coalesce(ended, "end") AS ended
        FROM reservations WHERE pool = :pool AND "end" > :since AND units > 0
    ), parts AS (
        SELECT r.units, r.ended, p.start, p."end"
        FROM those r JOIN placements p ON p.reservation_id = r.id
        UNION ALL
        SELECT units, ended, start, "end" FROM those
        WHERE NOT EXISTS (SELECT 1 FROM placements p WHERE p.reservation_id = those.id)
    ), spans AS (
        SELECT units, start, CASE WHEN ended < "end" THEN ended ELSE "end" END AS stop FROM parts
    ), marks AS (
        SELECT start AS at, units AS change FROM spans WHERE stop > start
        UNION ALL SELECT stop, -units FROM spans WHERE stop > start
    ), steps AS (
        SELECT at, sum(change) AS change FROM marks GROUP BY at
    )
    SELECT at, until, sold FROM (
        SELECT at, lead(at) OVER (ORDER BY at) AS until, sum(change) OVER (ORDER BY at) AS sold
        FROM steps
    ) sums WHERE sold > :least ORDER BY at
"""
