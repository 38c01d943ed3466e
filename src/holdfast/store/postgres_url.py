"""A PostgreSQL URL as people have it, taken apart: what libpq is told, and what is ours. No password leaves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from holdfast.errors import StoreError

SCHEMES = ("postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2")
_FORM = "postgresql://user:password@host:5432/database?schema=holdfast"
_SECRET = ("password", "sslpassword", "passfile", "oauth_client_secret")
_SCHEMA_MAX_BYTES = 63  # PostgreSQL cuts longer names off, silently

# A peer that is gone without a word is noticed while a lease lasts, and not after the two hours that TCP waits.
_DEFAULTS = {
    "connect_timeout": "3",
    "keepalives_idle": "3",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "6000",
}


@dataclass(frozen=True)
class Address:
    """``libpq`` holds parameters by their names in libpq; its environment variables stand for those that are absent.

    ``schema`` is where the tables are. Without ``prepare`` no statement is prepared. ``listen`` says where the server
    itself is listened to: "" at the same place, "off" nowhere, else "host" or "host:port".
    """

    libpq: dict[str, str] = field(repr=False)
    schema: str = "holdfast"
    prepare: bool = True
    listen: str = ""

    @property
    def url(self) -> str:
        """To be shown: without what is secret."""
        known = self.libpq
        user = f"{quote(known['user'], safe='')}@" if "user" in known else ""
        hosts, ports = known.get("host", ""), known.get("port", "")
        options = {k: v for k, v in known.items() if k not in (*_SECRET, *_DEFAULTS, "user", "host", "port", "dbname")}
        place = ""
        if "/" in hosts or "@" in hosts:
            options = {"host": hosts, **({"port": ports} if ports else {}), **options}
        else:
            several = ports.split(",") if ports else []
            if len(several) == 1:
                several *= len(hosts.split(","))
            place = ",".join(
                (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
                for host, port in zip(hosts.split(","), several or [""] * len(hosts.split(",")), strict=False)
            )
        if self.schema != "holdfast":
            options["schema"] = self.schema
        query = "&".join(f"{name}={quote(value, safe=':,/')}" for name, value in options.items())
        return f"postgresql://{user}{place}/{quote(known.get('dbname', ''), safe='')}{'?' if query else ''}{query}"

    def direct(self) -> dict[str, str]:
        """The parameters for the connection that listens."""
        if not self.listen:
            return self.libpq
        host, _, port = self.listen.rpartition(":") if ":" in self.listen else (self.listen, "", "")
        return {**self.libpq, "host": host, **({"port": port} if port else {})}


@contextmanager
def psycopg_needed(url: str) -> Iterator[None]:
    """Around the imports that need the extra."""
    try:
        yield
    except ImportError as error:
        raise StoreError(
            f"{url}: a PostgreSQL store needs psycopg: pip install 'holdfast[postgres]' ({error})."
        ) from error


def parse_postgres(text: str) -> Address:
    """Raises ``StoreError``, which never repeats what may be a password."""
    rest = text.partition("://")[2]
    rest, _, query = rest.partition("?")
    place, _, dbname = rest.partition("/")
    libpq: dict[str, str] = {}
    userinfo, at, hosts = place.rpartition("@")
    # What follows the first one, or a "?" before the only one, could be a part of the password.
    if "@" in userinfo or "@" in dbname or (place and not at and "@" in query):
        raise StoreError(
            'A PostgreSQL URL has an "@" where none belongs: write special characters of the user and '
            f'the password percent-encoded ("@" is %40, "/" is %2F). The form: {_FORM}.'
        )
    if at:
        user, colon, password = userinfo.partition(":")
        libpq |= {"user": _decoded(user, "user")} if user else {}
        libpq |= {"password": _decoded(password, "password")} if colon else {}
    libpq |= _hosts(hosts)
    if dbname:
        libpq["dbname"] = _decoded(dbname, "database")
    own: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not (equals and re.fullmatch(r"[a-z_]+", name)):
            raise StoreError(f"A PostgreSQL URL has an option that is not name=value. The form: {_FORM}.")
        value = _decoded(value, f"option {name}")
        if name in ("schema", "prepare", "listen"):
            own[name] = value
        elif name == "ssl":  # as SQLAlchemy and asyncpg write it
            libpq["sslmode"] = {"true": "require", "false": "disable"}.get(value.lower(), value)
        else:
            libpq[name] = value
    if "," in libpq.get("host", "") and "target_session_attrs" not in libpq:
        libpq["target_session_attrs"] = "read-write"
    return _own(libpq, own)


def _own(libpq: dict[str, str], own: dict[str, str]) -> Address:
    schema = own.get("schema", "holdfast")
    if not schema or "\0" in schema or len(schema.encode()) > _SCHEMA_MAX_BYTES or schema.startswith("pg_"):
        raise StoreError(f"schema={schema!r} names no schema: 1 to 63 bytes, and not beginning with pg_.")
    prepare = {"true": True, "false": False}.get(own.get("prepare", "true").lower())
    if prepare is None:
        raise StoreError(f"prepare={own['prepare']!r}: it is true (the default) or false.")
    listen = own.get("listen", "")
    if listen != "off" and not re.fullmatch(r"[^,@?\s]*", listen):
        raise StoreError(f"listen={listen!r}: it is off, or the host (or host:port) of the server itself.")
    return Address({**_DEFAULTS, **libpq}, schema, prepare, listen)


def _hosts(text: str) -> dict[str, str]:
    hosts: list[str] = []
    ports: list[str] = []
    for place in text.split(",") if text else []:
        found = re.fullmatch(r"(\[[^]]*\]|[^:]*)(?::(\d*))?", place)
        if found is None:
            raise StoreError(f"A PostgreSQL URL names a host or port that is none. The form: {_FORM}.")
        hosts.append(_decoded(found[1].strip("[]"), "host"))
        ports.append(found[2] or "")
    given = {"host": ",".join(hosts)} if any(hosts) else {}
    return given | ({"port": ",".join(ports)} if any(ports) else {})


def _decoded(text: str, what: str) -> str:
    try:
        if re.search(r"%(?![0-9A-Fa-f]{2})", text):
            raise ValueError
        decoded = unquote_to_bytes(text).decode()
        if "\0" in decoded:
            raise ValueError
        return decoded
    except ValueError:
        raise StoreError(
            f'The {what} in a PostgreSQL URL is not percent-encoded UTF-8: write "%" as %25. The form: {_FORM}.'
        ) from None
