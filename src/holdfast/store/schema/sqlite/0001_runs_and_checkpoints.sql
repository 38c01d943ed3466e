-- Runs, their checkpoints, and who owned them.

-- AUTOINCREMENT: the number of a deleted run is never given out again, so that an owner that slept
-- through the deletion can never write into a stranger's run.
CREATE TABLE run (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    python TEXT NOT NULL,
    module TEXT NOT NULL,
    file TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    parent_no INTEGER,
    status TEXT NOT NULL,
    deaths INTEGER NOT NULL,
    owner TEXT,
    epoch INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL,
    heard_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    wakes INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    seed BLOB NOT NULL,
    inputs BLOB NOT NULL,
    state BLOB,
    result BLOB,
    error BLOB,
    waiting BLOB,
    doing BLOB,
    checksum INTEGER NOT NULL,
    end_checksum INTEGER NOT NULL,
    schema_version INTEGER NOT NULL,
    origin BLOB
);
CREATE UNIQUE INDEX run_id ON run (id);
CREATE INDEX run_status ON run (status);
-- Only owned runs are in it: as small as the number of live runs, however many there ever were.
CREATE INDEX run_owner ON run (owner) WHERE owner IS NOT NULL;
-- What workers look for. Runs that wait for a time are apart, so that however many sleep, nobody steps over them.
CREATE INDEX run_ready ON run (queue, priority DESC, no)
    WHERE owner IS NULL AND due_ms = 0 AND status IN ('queued', 'running', 'waiting');
CREATE INDEX run_timed ON run (queue, due_ms)
    WHERE owner IS NULL AND due_ms > 0 AND status IN ('queued', 'running', 'waiting');
CREATE INDEX run_parent ON run (parent_no) WHERE parent_no IS NOT NULL;

-- A plain table in the order of writing: rows of many runs committed together share their pages.
-- Clustered by run, each of them would dirty a page of its own. The blobs come last, so that
-- adding up costs never follows a big value's overflow pages.
CREATE TABLE checkpoint (
    run_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    branch TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT,
    n INTEGER NOT NULL,
    version TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    tokens INTEGER,
    usd REAL,
    checksum INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    inputs BLOB,
    result BLOB,
    delta BLOB,
    blobs BLOB
);
CREATE UNIQUE INDEX checkpoint_place ON checkpoint (run_no, seq);

-- Which blobs are named by a row, for whoever looks for those that none names.
CREATE INDEX checkpoint_blobs ON checkpoint (run_no) WHERE blobs IS NOT NULL;

-- Values too big for a row, by the hash of their content. A blob is whole once it has a row in the first table; when that
-- was written, or its content was asked to be kept again, says that somebody may be about to name it.
CREATE TABLE blob (
    hash BLOB PRIMARY KEY NOT NULL,
    size_bytes INTEGER NOT NULL,
    written_ms INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE blob_part (
    hash BLOB NOT NULL,
    n INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX blob_part_place ON blob_part (hash, n);

CREATE TABLE claim (
    run_no INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,
    claimed_ms INTEGER NOT NULL,
    found TEXT NOT NULL,
    seen_ms INTEGER NOT NULL,
    doing BLOB,
    PRIMARY KEY (run_no, epoch)
) WITHOUT ROWID;

-- The mailboxes. What has been taken out of them is told by the checkpoints of kind "signal".
CREATE TABLE signal (
    run_no INTEGER NOT NULL,
    n INTEGER NOT NULL,
    name TEXT NOT NULL,
    key TEXT,
    value BLOB NOT NULL,
    sent_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (run_no, n)
) WITHOUT ROWID;
CREATE UNIQUE INDEX signal_key ON signal (run_no, key) WHERE key IS NOT NULL;

-- What running code tells those who watch. Nothing here is history: rows are deleted as new ones come, and a while
-- after the run's end.
CREATE TABLE news (
    run_no INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    n INTEGER NOT NULL,
    count INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run_no, epoch, n)
);

-- Sessions of agent frameworks, the events in them, and the state of apps, users and sessions, a row a key.
-- AUTOINCREMENT for the same reason: who still writes to a deleted dialog finds none of its number.
CREATE TABLE dialog (
    no INTEGER PRIMARY KEY AUTOINCREMENT,
    app TEXT NOT NULL,
    user_id TEXT NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at REAL NOT NULL,
    turns BLOB NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE UNIQUE INDEX dialog_id ON dialog (app, user_id, id);

CREATE TABLE dialog_event (
    dialog_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    turn TEXT NOT NULL,
    at REAL NOT NULL,
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX dialog_event_place ON dialog_event (dialog_no, seq);

CREATE TABLE shared (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE UNIQUE INDEX shared_key ON shared (owner, key);
