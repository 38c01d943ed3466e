"""PostgreSQL URLs as people have them, and what is said of those that lead nowhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from holdfast.errors import StoreError
from holdfast.store import open_store, postgres_link
from holdfast.store.postgres_url import parse_postgres
from holdfast.store.urls import parse_url
from holdfast.testing.store_suite import append, checkpoint, create


@pytest.mark.parametrize(
    ("given", "shown", "libpq"),
    [
        ("postgres://db/loans", "postgresql://db/loans", {"host": "db", "dbname": "loans"}),
        ("postgresql://", "postgresql:///", {}),
        ("postgresql+asyncpg://me:s%40cret@db:5433/loans", "postgresql://me@db:5433/loans",
         {"user": "me", "password": "s@cret", "host": "db", "port": "5433", "dbname": "loans"}),
        ("postgresql+psycopg2://db/l?ssl=require", "postgresql://db/l?sslmode=require", {"sslmode": "require"}),
        ("postgresql+psycopg://db/l?ssl=true", "postgresql://db/l?sslmode=require", {"sslmode": "require"}),
        ("postgresql://db/l?sslmode=verify-full&sslrootcert=/etc/ca.pem",
         "postgresql://db/l?sslmode=verify-full&sslrootcert=/etc/ca.pem", {"sslrootcert": "/etc/ca.pem"}),
        ("postgresql://a:1,b:2/l", "postgresql://a:1,b:2/l?target_session_attrs=read-write",
         {"host": "a,b", "port": "1,2", "target_session_attrs": "read-write"}),
        ("postgresql://a,b/l?target_session_attrs=any", "postgresql://a,b/l?target_session_attrs=any",
         {"target_session_attrs": "any"}),
        ("postgresql:///l?host=/var/run/postgresql&port=5433",
         "postgresql:///l?host=/var/run/postgresql&port=5433", {"host": "/var/run/postgresql", "port": "5433"}),
        ("postgresql://me@[::1]:5432/l", "postgresql://me@[::1]:5432/l", {"host": "::1", "port": "5432"}),
        ("postgresql:///?service=loans", "postgresql:///?service=loans", {"service": "loans"}),
        ("postgresql://db/l?password=secret&schema=jobs", "postgresql://db/l?schema=jobs", {"password": "secret"}),
    ],
)  # fmt: skip
def test_forms(given: str, shown: str, libpq: dict[str, str]) -> None:
    target = parse_url(given)
    assert target.address is not None
    assert (target.url, open_store(given).url) == (shown, shown)
    assert libpq.items() <= target.address.libpq.items()
    again = parse_postgres(shown)
    assert again.url == shown and "ecret" not in repr(target)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("postgresql://me:s@cret@db/loans", "percent-encoded"),
        ("postgresql://me:1/cret@db/loans", "percent-encoded"),
        ("postgresql://me:1?cret@db/loans", "percent-encoded"),
        ("postgresql://db/loans?cret", "not name=value"),
        ("postgresql://me:1?x=cret@db/loans", "percent-encoded"),
        ("postgresql://me:cr/et@db", "percent-encoded"),
        ("postgresql://me:%cret@db/loans", "password in a PostgreSQL URL is not percent-encoded"),
        ("postgresql://me:cret%00@db/loans", "not percent-encoded"),
        ("postgresql://db:port/loans", "host or port that is none"),
        ("postgresql://db/loans?schema=", "names no schema"),
        ("postgresql://db/loans?schema=pg_cret", "not beginning with pg_"),
        ("postgresql://db/loans?schema=" + "x" * 64, "names no schema"),
        ("postgresql://db/loans?prepare=maybe", "true (the default) or false"),
        ("postgresql://db/loans?listen=a,b", "off, or the host"),
        ("postgresql+pg8000://db/loans", "no store for postgresql+pg8000:// URLs"),
    ],
)
def test_what_is_no_url(given: str, advice: str) -> None:
    with pytest.raises(StoreError) as told:
        open_store(given)
    assert advice in str(told.value)
    assert "pg_cret" in given or "cret" not in str(told.value)


def test_where_is_listened() -> None:
    def direct(given: str) -> dict[str, str]:
        return parse_postgres(f"postgresql://me@pool:6432/l?listen={given}").direct()

    assert {"host": "db", "port": "5432", "user": "me"}.items() <= direct("db:5432").items()
    assert {"host": "db", "port": "6432"}.items() <= direct("db").items()
    assert parse_postgres("postgresql://pool/l").direct()["host"] == "pool"


@pytest.mark.parametrize(
    "name", ["Ünïcode 🏦", 'with "quotes"', "a.b", "semi;colon'--", "$1 %s :now_ms", "holdfast.x", "x" * 63]
)
def test_schemas_of_any_name(new_schema: Callable[..., str], name: str) -> None:
    store = open_store(new_schema(name))
    (run,) = create(store, "a")
    assert append(store, checkpoint(run.no, 1), checkpoint(run.no, 2)) == set()
    store.listen(0.01)
    store.close()
    with open_again(new_schema(name)) as again:
        assert len(again.load(run.no)) == 2


class open_again:
    def __init__(self, url: str) -> None:
        self.store = open_store(url)

    def __enter__(self) -> Any:
        return self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()


def test_the_host_that_lives_of_several(new_schema: Callable[..., str]) -> None:
    from tests.servers.postgres import free_port

    url = new_schema()
    place = urlsplit(url)
    several = url.replace(f"{place.hostname}:{place.port}", f"127.0.0.1:{free_port()},{place.hostname}:{place.port}")
    store = open_store(several)
    assert "target_session_attrs=read-write" in store.url and create(store, "a")
    store.close()


def test_a_unix_socket(new_schema: Callable[..., str], postgres_server: str) -> None:
    with psycopg.connect(postgres_server) as db:
        ((folders,),) = db.execute("SHOW unix_socket_directories").fetchall()
    if not folders:
        pytest.skip("this server has no socket")
    url, place = new_schema(), urlsplit(postgres_server)
    schema = url.partition("?")[2]
    socket = quote(folders.partition(",")[0], safe="")
    store = open_store(f"postgresql://{place.username}@{place.path}?host={socket}&port={place.port}&{schema}")
    assert create(store, "a")
    store.listen(0)
    store.close()


def test_two_schemas_are_two_stores(new_schema: Callable[..., str]) -> None:
    one, two = open_store(new_schema()), open_store(new_schema())
    create(one, "a")
    assert two.get("a") is None
    one.close(), two.close()


# -- what leads nowhere ----------------------------------------------------------------------------------------


@pytest.fixture
def role(postgres_server: str) -> Iterator[str]:
    with psycopg.connect(postgres_server, autocommit=True) as db:
        db.execute("CREATE ROLE stranger LOGIN PASSWORD 'sesame'")
        yield "stranger"
        db.execute("DROP OWNED BY stranger")
        db.execute("DROP ROLE stranger")


def refusal(url: str) -> str:
    with pytest.raises(StoreError) as told:
        open_store(url).get("a")
    return str(told.value)


def test_an_unknown_database_user_and_host(postgres_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_link, "PATIENCE_S", 60.0)  # none of them is tried again
    server, _, _ = postgres_server.rpartition("/")
    assert "no such database: create it" in refusal(f"{server}/nowhere")
    assert "does not let this user in" in refusal(f"{server.replace('postgres@', 'nobody-at-all:hush@')}/postgres")
    assert "Name or service not known" in refusal("postgresql://no-such-host.invalid/db")
    assert 'invalid connection option "colour"' in refusal(f"{postgres_server}?colour=blue")
    assert "correct sslmode" in refusal(f"{postgres_server}?sslmode=require")


def test_a_wrong_password_is_said_at_once_and_never_shown(
    postgres_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session's server lets everyone in: what a server that does not would say is said for it."""
    monkeypatch.setattr(postgres_link, "PATIENCE_S", 60.0)
    words = (
        'connection to server at "db", port 5432 failed: FATAL:  password authentication failed for user "me" (sesame)'
    )

    def connect(*_: Any) -> Any:
        raise psycopg.OperationalError(words)

    monkeypatch.setattr(postgres_link, "connect", connect)
    told = refusal("postgresql://me:sesame@db/loans")
    assert "did not accept the password" in told and "sesame" not in told


def test_who_may_not_create_is_given_the_sql(postgres_server: str, new_schema: Callable[..., str], role: str) -> None:
    url = new_schema("mine to make")
    told = refusal(url.replace("postgres@", f"{role}@"))
    assert "may not create it" in told and "holdfast migrate" in told
    script = told.partition("\n\n")[2]
    with psycopg.connect(postgres_server, autocommit=True) as db:
        db.execute(script.encode())
        assert "GRANT it USAGE" in refusal(url.replace("postgres@", f"{role}@"))
        db.execute(f'GRANT USAGE ON SCHEMA "mine to make" TO {role}'.encode())
        db.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "mine to make" TO {role}'.encode())
    store = open_store(url.replace("postgres@", f"{role}@"))
    assert append(store, checkpoint(create(store, "a")[0].no, 1)) == set()
    store.close()


def test_who_may_create_in_a_schema_that_is_there_already(
    postgres_server: str, new_schema: Callable[..., str], role: str
) -> None:
    url = new_schema("given")
    with psycopg.connect(postgres_server, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA given AUTHORIZATION {role}".encode())
    store = open_store(url.replace("postgres@", f"{role}@"))
    assert create(store, "a")
    store.close()


def test_tables_of_another_application_are_left_alone(postgres_server: str, new_schema: Callable[..., str]) -> None:
    url = new_schema("theirs")
    with psycopg.connect(postgres_server, autocommit=True) as db:
        db.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.run (x int)")
        assert "tables of another application" in refusal(url)
        assert db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'theirs'").fetchall() == [(1,)]


def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: str) -> None:
    with psycopg.connect(postgres_server, autocommit=True) as db:
        db.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            assert "stores text as LATIN1" in refusal(f"{postgres_server.rpartition('/')[0]}/latin")
        finally:
            db.execute("DROP DATABASE latin WITH (FORCE)")


def test_an_old_server_is_refused(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda info: 130_012))
    assert "is PostgreSQL 13; holdfast needs 14 or newer" in refusal(postgres_url)


def test_without_psycopg_it_is_said_what_to_install() -> None:
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "import holdfast.store as s\n"
        "s.open_store('a.db')\n"
        "try: s.open_store('postgresql://me:sesame@db/x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "StoreError postgresql://me@db/x" in done.stdout and "pip install 'holdfast[postgres]'" in done.stdout


def test_a_durable_step_that_is_none_is_warned_of(
    postgres_server: str, new_schema: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(new_schema(None, "options=-csynchronous_commit%3Doff"))
    store.get("a")
    assert "synchronous_commit is off for this role" in caplog.text
    store.close()
