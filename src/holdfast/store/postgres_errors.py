"""What went wrong with PostgreSQL: whether to try again, and what to tell."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any

import psycopg

from holdfast.errors import StoreError
from holdfast.store.postgres_url import Address


class Verdict(Enum):
    LOST = "the connection is gone, or leads to a server that cannot do it now: the same again on another one"
    CONFLICT = "two transactions were in each other's way: the same again"
    REFUSED = "a row in it cannot be written, and others can"
    FINAL = "trying again is in vain"


# Of a server that is going down, coming up, full, or no longer the primary, or that had given this session up.
# PgBouncer says 08P01 when its server left.
_LOST = frozenset({"25P03", "57P01", "57P02", "57P03", "57P05", "53300", "25006", "08P01", "26000"})
_CONFLICT = frozenset({"40001", "40P01"})
# Of a statement that took too long, waited too long for a lock, or took too much memory: one with fewer rows may not,
# nor the same one later.
_REFUSED_FOR_NOW = frozenset({"57014", "55P03", "53200"})
_REFUSED_CLASSES = ("22", "54")
_TOO_BIG = "invalid memory alloc request size"  # an internal error, XX000, which is never translated

# Refused at once when they are met while connecting, where libpq gives no code but only the server's words.
_REFUSED = (
    (r"password authentication failed|no password supplied|authentication failed|SCRAM", "28P01"),
    (r'role ".*" does not exist', "28000"),
    (r"no pg_hba\.conf entry|is not permitted to log in|permission denied for database", "28000"),
    (r'database ".*" does not exist|no such database', "3D000"),
    (r"certificate|SSL|sslmode|root\.crt", "SSL"),
    (r"invalid connection option|invalid .* value|invalid integer|invalid port|could not match", "option"),
)


def judge(error: psycopg.Error, db: psycopg.Connection[Any] | None) -> Verdict:
    """``db`` is None when there was no connection yet."""
    code = error.sqlstate or ""
    if code in _CONFLICT:
        return Verdict.CONFLICT
    if db is None and not code:
        connecting = isinstance(error, psycopg.OperationalError) and _refusal(error) is None
        return Verdict.LOST if connecting else Verdict.FINAL
    if code in _LOST or code.startswith("08") or (db is not None and db.closed):
        return Verdict.LOST
    if is_refused_for_good(error) or code in _REFUSED_FOR_NOW:
        return Verdict.REFUSED
    return Verdict.LOST if isinstance(error, psycopg.errors.ConnectionTimeout) else Verdict.FINAL


def is_refused_for_good(error: psycopg.Error) -> bool:
    """Whether it is about a value, which would be no other the next time; psycopg finds some before they are sent."""
    code = error.sqlstate or ""
    return code.startswith(_REFUSED_CLASSES) or isinstance(error, psycopg.DataError) or _TOO_BIG in str(error)


def _refusal(error: psycopg.Error) -> str | None:
    told = str(error)
    return next((code for pattern, code in _REFUSED if re.search(pattern, told)), None)


def is_unknown_host(error: psycopg.Error) -> bool:
    """A name that nobody knows is a typing error when it was never reached; later it may be the network."""
    return re.search(r"could not translate host name|failed to resolve host", str(error)) is not None


def explain(address: Address, error: Exception) -> StoreError:
    """What went wrong, and what to do, in terms of the URL."""
    if isinstance(error, StoreError):
        return error
    told = " ".join(str(error).split()) or type(error).__name__
    for name in ("password", "sslpassword"):
        if secret := address.libpq.get(name):
            told = told.replace(secret, "***")
    return StoreError(f"{address.url}: {_advice(address, error)} ({told})")


def _advice(address: Address, error: Exception) -> str:
    code = getattr(error, "sqlstate", None) or (_refusal(error) if isinstance(error, psycopg.Error) else None) or ""
    match code[:2], code:
        case _, "28P01":
            return "the server did not accept the password: correct it in the URL, in PGPASSWORD or in ~/.pgpass."
        case "28", _:
            return "the server does not let this user in: correct the user in the URL, or its pg_hba.conf."
        case _, "3D000":
            return "the server has no such database: create it (createdb), or correct its name in the URL."
        case _, "SSL":
            return "no encrypted connection could be made: correct sslmode and sslrootcert in the URL."
        case _, "option":
            return "the URL has an option that libpq does not take."
        case _, "42501":
            return (
                "the role of this URL may not do what is asked: GRANT it USAGE ON SCHEMA "
                f"{address.schema} and SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {address.schema}."
            )
        case _, "25006":
            return "the server is read-only, a standby perhaps: name the primary, or all hosts of the cluster."
        case "53", _:
            return "the server has no room or no connection left; what was committed is safe."
        case _, "57014":
            return "the server cancelled a statement: its statement_timeout is too short for this role."
        case _, "55P03":
            return "a lock was not given in time: find the transaction that is left open (pg_stat_activity), end it."
        case ("42", _) | ("3F", _):
            return "the schema does not have the tables holdfast made: run `holdfast migrate`, or restore them."
        case ("22" | "23" | "54", _):
            return "a row holds what PostgreSQL cannot."
        case _, "XX000" if _TOO_BIG in str(error):
            return "cannot hold a row of more than about a gigabyte: keep values in files, and their paths in the run."
        case (("" | "08" | "57"), _):
            return "the server could not be reached, or was lost: see that it runs and accepts you, and run again."
        case _:
            return "the server refused what was asked of it."
