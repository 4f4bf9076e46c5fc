"""What happens to the accounts of the current tenant's users: kept in its own database, for as long as configured."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tenantry.context import current_actor, current_environment, is_reading, support_access
from tenantry.model import SupportAccess, new_id
from tenantry.refusals import InvalidRequest
from tenantry.runtime.userbase import UserBase, Work

if TYPE_CHECKING:
    from sqlalchemy import Row


class What(StrEnum):
    """What can happen."""

    SIGN_IN = "sign_in"
    REFUSED = "refused"
    SIGN_OUT = "sign_out"
    SESSION_ENDED = "session_ended"
    SESSIONS_ENDED = "sessions_ended"
    MADE = "made"
    LINK = "link"
    PASSWORD = "password"  # noqa: S105 -- the name of an event
    FACTOR_ON = "factor_on"
    FACTOR_OFF = "factor_off"
    CODES = "codes"
    RECOVERED = "recovered"
    PASSKEY_ADDED = "passkey_added"
    PASSKEY_REMOVED = "passkey_removed"
    ROLE = "role"
    LOGIN = "login"
    DISABLED = "disabled"
    ENABLED = "enabled"
    TOKENS = "tokens"
    TOKENS_ENDED = "tokens_ended"
    TOKEN_REUSED = "token_reused"  # noqa: S105 -- likewise
    SUPPORT = "support"


SAID: Final[Mapping[What, str]] = {
    What.SIGN_IN: "Signed in",
    What.REFUSED: "Refused",
    What.SIGN_OUT: "Signed out",
    What.SESSION_ENDED: "A session was ended",
    What.SESSIONS_ENDED: "Signed out everywhere",
    What.MADE: "Account made",
    What.LINK: "A link to a password was made",
    What.PASSWORD: "Password changed",
    What.FACTOR_ON: "Second factor turned on",
    What.FACTOR_OFF: "Second factor turned off",
    What.CODES: "New recovery codes",
    What.RECOVERED: "A recovery code was used",
    What.PASSKEY_ADDED: "Passkey added",
    What.PASSKEY_REMOVED: "Passkey removed",
    What.ROLE: "Role changed",
    What.LOGIN: "Login changed",
    What.DISABLED: "Disabled",
    What.ENABLED: "Enabled",
    What.TOKENS: "Tokens given out",
    What.TOKENS_ENDED: "Tokens ended",
    What.TOKEN_REUSED: "A token was used twice: all of its family are over",
    What.SUPPORT: "The platform's support looked in",
}
"""The same for people."""

BY: Final[Mapping[tuple[What, str], str]] = {
    (What.SIGN_IN, "password"): "by password",
    (What.SIGN_IN, "code"): "by password and second factor",
    (What.SIGN_IN, "passkey"): "by passkey",
    (What.SIGN_IN, "sso"): "by the organization",
    (What.SIGN_IN, "sign-up"): "from the sign-up",
    (What.SIGN_IN, "link"): "by a link",
    (What.SIGN_IN, "again"): "anew in the same browser",
    (What.SIGN_IN, "verify"): "by the platform, which verifies isolation",
    (What.REFUSED, "password"): "wrong login or password",
    (What.REFUSED, "code"): "wrong code",
    (What.REFUSED, "passkey"): "no passkey of anybody's here",
    (What.REFUSED, "sso"): "disabled here",
    (What.SIGN_OUT, "sso"): "by the organization",
}
"""What the details of some mean."""

MOST: Final = 1000
"""Events of one user that are kept: whoever makes more loses the oldest of her own, and of nobody else's."""

LISTED: Final = 200
"""The most that are listed at once."""

HOUR: Final = 3_600_000
"""Milliseconds within which refusals are one."""

SWEPT: Final = 3600
"""How often, in seconds, a process looks at one user's events for what is over."""

REMEMBERED: Final = 10_000
"""Users of whom a process knows when it did."""

_ADD: Final = """
INSERT INTO {prefix}tenantry_event (id, moment, what, user_id, actor, detail, address, agent)
VALUES (:id, :moment, :what, :user, :actor, :detail, :address, :agent)
"""

_AGAIN: Final = """
UPDATE {prefix}tenantry_event SET number = number + 1, moment = :moment, address = :address, agent = :agent
WHERE id = :id
"""

_LISTED: Final = """
SELECT e.id, e.moment, e.what, e.user_id, e.actor, e.detail, e.address, e.agent, e.number, u.login
FROM {prefix}tenantry_event e LEFT JOIN {prefix}tenantry_user u ON u.id = e.user_id
WHERE e.moment >= :since AND (e.moment < :moment OR (e.moment = :moment AND e.id < :id))
"""

_LAST: Final = f"""
SELECT moment FROM {{prefix}}tenantry_event WHERE user_id = :user
ORDER BY moment DESC, id DESC LIMIT 1 OFFSET {MOST - 1}
"""  # noqa: S608 -- constants


_ID: Final = re.compile("[0-9a-f-]{36}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an account."""

    id: str
    at: datetime
    what: str  # one of `What`
    user: str  # id; "" where nobody here has the login, and where it is nobody's account
    login: str  # of the user, as it is now
    by: str  # who did it, where that was somebody else: a login, "support:<who>", "directory"
    detail: str  # by which means; which role; whose passkey
    address: str
    agent: str
    times: int  # more than once for refusals, of which those of an hour are one; `at` is the last
    said: str  # all of it but who and where, for people
    mark: str  # where a list goes on behind it


class Source(NamedTuple):
    """Who does something, and where from."""

    user: str = ""  # id
    actor: str = ""
    address: str = ""
    agent: str = ""


async def note(work: Work, what: What, user: str, detail: str = "", source: Source | None = None) -> None:
    """Keep that something happened, in the transaction in which it does; by whom, the request that is answered says."""
    source = source or _source()
    actor = "" if user and source.user == user else source.actor
    values = {"what": what.value, "user": user, "detail": detail[:300], "actor": actor[:254]}
    await work.run(_ADD, id=new_id(), moment=_now(), **values, **_whence(source))


async def note_refused(base: UserBase, user: str, how: str) -> None:
    """Count a sign-in that was refused: one row an hour for each user, and one for all whom nobody knows.

    So whoever guesses fills no disk. What was typed in place of a login is kept nowhere: it may be a password.
    """
    if is_reading():
        return
    moment, source = _now(), _source()
    key = hashlib.sha256(f"{user}\0{how}\0{moment // HOUR}".encode()).hexdigest()[:36]
    row = {"what": What.REFUSED.value, "user_id": user, "detail": how, "number": 0}
    async with base.open() as work:
        await work.there("tenantry_event", id=key, moment=moment, **row)
        await work.run(_AGAIN, id=key, moment=moment, **_whence(source))
        await work.commit()


class Trail:
    """Lists the events of the current tenant, and lets go of those that are over."""

    def __init__(self, base: UserBase, seconds: int) -> None:
        self._base = base
        self._seconds = seconds
        self._swept: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def listed(self, user: str | None, limit: int, after: str) -> Sequence[Event]:
        """Events, newest first, of one user or of all. Raises `InvalidRequest` for a mark that is none."""
        moment, last = _place(after)
        mine = "" if user is None else "AND e.user_id = :user "
        query = f"{_LISTED}{mine}ORDER BY e.moment DESC, e.id DESC LIMIT :limit"
        values: dict[str, Any] = {} if user is None else {"user": user}
        values |= {"since": self._oldest, "moment": moment, "id": last, "limit": max(1, min(limit, LISTED))}
        async with self._base.open() as work:
            return [_event(row) for row in await work.all(query, **values)]

    async def looked_in(self, access: SupportAccess) -> None:
        """Keep that somebody of the platform's support looks in; where it fails, the audit log has it all the same."""
        try:
            async with self._base.open() as work:
                await note(work, What.SUPPORT, "", access.reason, Source(actor=f"support:{access.who}"))
                await work.commit()
        except Exception:
            log.exception("Support access to '%s' could not be entered there.", current_environment().tenant.slug)

    async def sweep(self, user: str) -> None:
        """Let go of what is older than it is kept, and of what a user has beyond `MOST`; now and then.

        What fails here is tried again another time: nobody is kept from signing in by it.
        """
        key, now = (current_environment().id, user), time.monotonic()
        if now - self._swept.get(key, -SWEPT) < SWEPT:
            return
        self._swept[key] = now
        while len(self._swept) > REMEMBERED:
            with contextlib.suppress(KeyError):  # another thread was quicker
                self._swept.popitem(last=False)
        try:
            await self._sweep(user)
        except Exception:
            log.exception("Old events of '%s' could not be removed.", current_environment().tenant.slug)

    async def _sweep(self, user: str) -> None:
        old = self._oldest
        async with self._base.open() as work:
            first = await work.first("SELECT MIN(moment) AS moment FROM {prefix}tenantry_event")
            last = await work.first(_LAST, user=user)
            if first is not None and first.moment is not None and first.moment < old:
                await work.run("DELETE FROM {prefix}tenantry_event WHERE moment < :old", old=old)
            if last is not None:
                beyond = "user_id = :user AND moment < :last"
                await work.run(f"DELETE FROM {{prefix}}tenantry_event WHERE {beyond}", user=user, last=last.moment)  # noqa: S608 -- constants
            await work.commit()

    @property
    def _oldest(self) -> int:
        return _now() - 1000 * self._seconds


def _source() -> Source:
    """Who asks for what is done here, and where from, as far as the middleware knows."""
    from tenantry.runtime.visit import current_visit  # which knows users, and so comes after what keeps them

    visit, access = current_visit(), support_access()
    user = visit.known if visit is not None else None
    whose = Source(actor=f"support:{access.who}") if access else Source(user.id, user.login) if user else None
    found = whose or Source(actor=current_actor() or "")
    if visit is None:
        return found
    return found._replace(address=visit.asked.address, agent=visit.asked.headers.get("user-agent", ""))


def _now() -> int:
    """Milliseconds since 1970: what happens in one second is told in its order."""
    return time.time_ns() // 1_000_000


def _whence(source: Source) -> dict[str, str]:
    return {"address": printable(source.address)[:64], "agent": printable(source.agent)[:300]}


def printable(text: str) -> str:
    """A text that every database takes: without control characters and halves of characters."""
    return "".join(one for one in text.encode("utf-8", "replace").decode() if one.isprintable())


def _place(mark: str) -> tuple[int, str]:
    """The moment and the id before which a list goes on."""
    if not mark:
        return 1 << 60, ""
    moment, dot, last = mark.partition(".")
    if not dot or not (moment.isascii() and moment.isdigit()) or len(moment) > 15 or not _ID.fullmatch(last):
        raise InvalidRequest(where="after", reason=f"'{mark[:60]}' is no mark", remedy="Take one of a list of events.")
    return int(moment), last


def _event(row: Row[Any]) -> Event:
    at = datetime.fromtimestamp(row.moment / 1000, UTC)
    whose, whence = (row.user_id, row.login or "", row.actor), (row.address, row.agent, row.number)
    told = _said(What(row.what), row.detail, row.number)
    return Event(row.id, at, row.what, *whose, row.detail, *whence, told, f"{row.moment}.{row.id}")


def _said(what: What, detail: str, number: int) -> str:
    means = BY.get((what, detail), detail)
    told = f"{SAID[what]}: {means}" if means else SAID[what]
    return f"{told} ({number} times)" if number > 1 else told
