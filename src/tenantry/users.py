"""The tables of a tenant's users, which its own database carries: the same for every kind of database."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Final

_DECLARED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tenantry_user": """
  id VARCHAR(36) NOT NULL PRIMARY KEY,
  login LOGIN NOT NULL UNIQUE,
  name VARCHAR(200) NOT NULL DEFAULT '',
  role VARCHAR(10) NOT NULL DEFAULT 'user' CHECK (role IN ('admin', 'superuser', 'user')),
  password VARCHAR(200) NOT NULL,
  active SMALLINT NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
  epoch INTEGER NOT NULL DEFAULT 0,
  created VARCHAR(40) NOT NULL,
  totp VARCHAR(400),
  totp_used BIGINT NOT NULL DEFAULT 0,
  issuer EXACT(300),
  subject EXACT(255),
  UNIQUE (issuer, subject)
""",
        "tenantry_session": """
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  user_id VARCHAR(36) NOT NULL,
  epoch INTEGER NOT NULL,
  via VARCHAR(20) NOT NULL,
  created BIGINT NOT NULL,
  proved BIGINT NOT NULL,
  seen BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  address VARCHAR(64) NOT NULL DEFAULT '',
  agent VARCHAR(300) NOT NULL DEFAULT '',
  outside EXACT(255),
  UNIQUE (user_id, id)
""",
        "tenantry_link": """
  digest VARCHAR(64) NOT NULL PRIMARY KEY,
  user_id VARCHAR(36) NOT NULL,
  purpose VARCHAR(20) NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL
""",
        "tenantry_passkey": """
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  user_id VARCHAR(36) NOT NULL,
  credential VARCHAR(1400) NOT NULL,
  name VARCHAR(200) NOT NULL,
  public_key VARCHAR(2000) NOT NULL,
  sign_count BIGINT NOT NULL,
  created BIGINT NOT NULL,
  used BIGINT,
  UNIQUE (user_id, id)
""",
        "tenantry_recovery": """
  user_id VARCHAR(36) NOT NULL,
  digest VARCHAR(64) NOT NULL,
  PRIMARY KEY (user_id, digest)
""",
        "tenantry_refresh": """
  id VARCHAR(36) NOT NULL PRIMARY KEY,
  user_id VARCHAR(36) NOT NULL,
  epoch INTEGER NOT NULL,
  digest VARCHAR(64) NOT NULL,
  session_id VARCHAR(64),
  created BIGINT NOT NULL,
  used BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  agent VARCHAR(300) NOT NULL DEFAULT '',
  UNIQUE (user_id, id)
""",
        "tenantry_try": """
  id VARCHAR(64) NOT NULL PRIMARY KEY,
  number INTEGER NOT NULL,
  ends BIGINT NOT NULL
""",
        "tenantry_event": """
  id VARCHAR(36) NOT NULL PRIMARY KEY,
  moment BIGINT NOT NULL,
  what VARCHAR(20) NOT NULL,
  user_id VARCHAR(36) NOT NULL DEFAULT '',
  actor VARCHAR(254) NOT NULL DEFAULT '',
  detail VARCHAR(300) NOT NULL DEFAULT '',
  address VARCHAR(64) NOT NULL DEFAULT '',
  agent VARCHAR(300) NOT NULL DEFAULT '',
  number INTEGER NOT NULL DEFAULT 1,
  UNIQUE (moment, id),
  UNIQUE (user_id, moment, id)
""",
    }
)
"""Columns and keys of each table. Moments are seconds since 1970; what opens something is kept as its SHA-256.

- `tenantry_user`: `epoch` is counted up to end everything of a user at once. `totp` is sealed; `totp_used` the last
  step that was used. `issuer` and `subject` are those of a provider's user. Logins stand there in small letters.
- `tenantry_session`: `id` is the hash of what the cookie holds; `via` how the person proved who she is, and `proved`
  when she last did; `outside` is the provider's name of the session.
- `tenantry_link`: links of one use.
- `tenantry_passkey`: `id` is the hash of the credential's own id (`credential`), which is too long for a key.
- `tenantry_recovery`: codes that stand for a lost device.
- `tenantry_refresh`: one row for each family; `digest` is that of its newest token, the only one that is good.
- `tenantry_try`: how often somebody guessed, and when the next guess is looked at; `id` is a hash of who guesses whom.
- `tenantry_event`: what happened to whose account (`user_id`; empty where nobody has the login), and who did it, where
  that was somebody else (`actor`); its `moment` is in milliseconds. Refusals of an hour are one row, whose `number`
  counts them.
"""

TABLES: Final = tuple(_DECLARED)
"""Their names, in the order in which they are made."""

SECRETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"tenantry_user": ("password", "totp")})
"""Columns that no export holds."""

PRIVATE: Final = frozenset(TABLES) - {"tenantry_user", "tenantry_event"}
"""Tables that no export holds: what they say opens something, or serves for nothing but signing in."""

_WORDS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "sqlite": {
            r"LOGIN": "TEXT COLLATE NOCASE",
            r"(?:VARCHAR|EXACT)\(\d+\)": "TEXT",
            r"SMALLINT|BIGINT": "INTEGER",
        },
        "postgresql": {r"LOGIN": "VARCHAR(254)", r"EXACT": "VARCHAR"},
        "mysql": {r"LOGIN": "EXACT(254)", r"EXACT(\(\d+\))": r"VARCHAR\1 COLLATE utf8mb4_bin"},
    }
)
"""How a dialect calls the types, each in place of the one before."""

_OPTIONS: Final = MappingProxyType(
    {"sqlite": " STRICT", "postgresql": "", "mysql": " ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4"}
)


@cache
def statements(dialect: str, prefix: str = "") -> Mapping[str, str]:
    """What makes each table where it is missing, by the table's name; `prefix` stands before the names."""
    return MappingProxyType(
        {
            name: f"CREATE TABLE IF NOT EXISTS {prefix}{name} ({_worded(columns, dialect)}){_OPTIONS[dialect]}"
            for name, columns in _DECLARED.items()
        }
    )


def _worded(columns: str, dialect: str) -> str:
    for word, meant in _WORDS[dialect].items():
        columns = re.sub(rf"\b(?:{word})(?!\w)", meant, columns)
    return columns


def missing(dialect: str, there: Mapping[str, Collection[str]], prefix: str = "") -> Sequence[str]:
    """What makes these tables, with the columns that they have, what they are to be: new tables, columns and keys.

    A column that comes later has a default, or may be empty: there are rows already.
    """
    made = []
    for name, declared in _DECLARED.items():
        if name not in there:
            made.append(statements(dialect, prefix)[name])
            continue
        lines = [line.strip().rstrip(",") for line in _worded(declared, dialect).strip().splitlines()]
        keys = [line for line in lines if line.startswith("UNIQUE (")]
        columns = {line.partition(" ")[0]: line for line in lines if not line.startswith(("UNIQUE (", "PRIMARY KEY ("))}
        new = [column for column in columns if column not in there[name]]
        added = [f"ADD COLUMN {columns[column]}" for column in new]
        added += [f"ADD {key}" for key in keys if set(new) & set(re.findall(r"\w+", key))]
        if added:
            made.append(f"ALTER TABLE {prefix}{name} {', '.join(added)}")
    return made


def made_of(dialect: str) -> str:
    """All of it as one text, by which templates tell that it changed."""
    return ";\n".join(statements(dialect).values())


def is_of_users(name: str) -> bool:
    """Whether a part of a schema, such as "index tenantry_user_login_key", belongs to these tables."""
    return any(table in name for table in TABLES)
