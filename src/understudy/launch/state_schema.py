"""The database of jobs: tables, and connections to it.

WAL with `synchronous=NORMAL`: a process may be killed between any two instructions and no committed
move is lost; after a power cut the last moves may be, and reconciling against the replicas' files
makes them again.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from understudy.core.errors import DataError

VERSION = 1
BUSY_S = 5.0
"""How long a writer waits for another one."""

TABLES = """
CREATE TABLE IF NOT EXISTS jobs(
  id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, name TEXT NOT NULL, project TEXT NOT NULL,
  spec_json TEXT NOT NULL, spec_hash TEXT NOT NULL, work_hash TEXT NOT NULL DEFAULT '',
  code_hash TEXT NOT NULL DEFAULT '', environment TEXT NOT NULL DEFAULT '{}',
  demand TEXT NOT NULL, engine TEXT NOT NULL, engine_ref TEXT NOT NULL DEFAULT '',
  checkpoints TEXT NOT NULL DEFAULT '', retry_of TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 1, priority INTEGER NOT NULL DEFAULT 0,
  created REAL NOT NULL, queued REAL, not_before REAL NOT NULL DEFAULT 0, started REAL, ended REAL,
  exit_code INTEGER, reason TEXT NOT NULL DEFAULT '', host TEXT NOT NULL DEFAULT '',
  wish TEXT NOT NULL DEFAULT '', wish_t REAL, wish_grace_s REAL,
  last_seq INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs(state, priority);
CREATE INDEX IF NOT EXISTS jobs_by_work ON jobs(work_hash) WHERE work_hash != '';
CREATE TABLE IF NOT EXISTS attempts(
  job TEXT NOT NULL, n INTEGER NOT NULL, engine_ref TEXT NOT NULL DEFAULT '', start REAL NOT NULL,
  "end" REAL, exit INTEGER, reason TEXT NOT NULL DEFAULT '', cause TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(job, n));
CREATE TABLE IF NOT EXISTS replicas(
  job TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL, role TEXT NOT NULL,
  state TEXT NOT NULL, vector TEXT NOT NULL, gpus TEXT NOT NULL DEFAULT '[]', gpu_type TEXT NOT NULL
  DEFAULT '', placed REAL, released REAL, PRIMARY KEY(job, attempt, rank));
CREATE INDEX IF NOT EXISTS replicas_placed ON replicas(state) WHERE state = 'placed';
CREATE TABLE IF NOT EXISTS events(
  job TEXT NOT NULL, seq INTEGER NOT NULL, t REAL NOT NULL, kind TEXT NOT NULL, json TEXT NOT NULL,
  PRIMARY KEY(job, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS metrics(
  job TEXT NOT NULL, step INTEGER NOT NULL, t REAL NOT NULL, name TEXT NOT NULL,
  value REAL, rank INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS metrics_by_name ON metrics(job, name, step);
CREATE TABLE IF NOT EXISTS metric_files(
  job TEXT NOT NULL, path TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY(job, path));
CREATE TABLE IF NOT EXISTS artefacts(
  job TEXT NOT NULL, name TEXT NOT NULL, uri TEXT NOT NULL, sha256 TEXT NOT NULL,
  bytes INTEGER NOT NULL, kind TEXT NOT NULL, PRIMARY KEY(job, name));
CREATE TABLE IF NOT EXISTS lineage(
  src_artefact TEXT NOT NULL, job TEXT NOT NULL, dst_artefact TEXT NOT NULL,
  PRIMARY KEY(src_artefact, job, dst_artefact));
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def connect(path: str | Path) -> sqlite3.Connection:
    """Open (and where needed make) a database of jobs.

    Transactions are begun by hand; rows have names.

    Raises:
        DataError: it is of a newer version, or not a database.
    """
    try:
        connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        _persist(connection)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise DataError(
                f"{path}: written by a newer understudy (version {version}, this one reads "
                f"{VERSION}); update, or use another folder of jobs."
            )
        if version < VERSION:
            connection.executescript(
                f"BEGIN IMMEDIATE;{TABLES}PRAGMA user_version={VERSION};COMMIT;"
            )
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: the database of jobs cannot be opened ({error}).") from None
    return connection


def _persist(connection: sqlite3.Connection) -> None:
    """Switch to WAL; the switch itself does not wait for other connections, so try again."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=OFF")
