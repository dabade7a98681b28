"""Tables of the local profile's jobs, and how those of an earlier version become today's."""

import sqlite3

_VERSION = 3

_CREATE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    digest TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT '',
    completed_at TEXT,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, number);
CREATE INDEX IF NOT EXISTS jobs_by_owner_and_status ON jobs (owner, status, number);
CREATE INDEX IF NOT EXISTS jobs_by_model ON jobs (digest, status, number);
CREATE UNIQUE INDEX IF NOT EXISTS live_jobs ON jobs (owner, fingerprint) WHERE status IN ('queued', 'running');
CREATE TABLE IF NOT EXISTS receipts (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    receipt TEXT NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS receipts_by_expiry ON receipts (expires);
"""

# Version 1 had what a list shows in the records only, and a list had to parse them.
_FROM_1 = """
ALTER TABLE jobs ADD COLUMN created_at TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN completed_at TEXT;
UPDATE jobs SET
    created_at = json_extract(record, '$.created_at'),
    completed_at = json_extract(record, '$.completed_at');
"""

# Version 2 had the model's card and the client's own words in each request.
_FROM_2 = """
UPDATE jobs SET record = json_remove(
    json_set(
        record,
        '$.request.model_digest', json_extract(record, '$.request.model.card.digest'),
        '$.request.model', json_extract(record, '$.request.model.name')
    ),
    '$.request.wire_params'
);
"""
_UPGRADES = {1: _FROM_1 + _FROM_2, 2: _FROM_2}


def prepare(database: sqlite3.Connection) -> None:
    """Create the tables, or bring them up to date, whole or not at all.

    Raises:
        RuntimeError: a newer version of the server has written them.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise RuntimeError(
            f"the table of jobs is of version {version}, this server knows {_VERSION}: "
            "start the newer server that wrote it, or another data directory"
        )
    upgrade = _UPGRADES.get(version, "")
    database.executescript(f"BEGIN IMMEDIATE; {upgrade} {_CREATE} PRAGMA user_version = {_VERSION}; COMMIT;")
