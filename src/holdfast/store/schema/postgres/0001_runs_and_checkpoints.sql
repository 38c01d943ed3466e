-- Runs, their checkpoints, who owned them, their mailboxes, and what they tell.
--
-- The tables of a run lead with its number, so that they can be distributed by it; docs/design/postgres.md says what
-- that takes. What an index compares is text of the "C" collation: it is only ever compared for being equal, and the
-- order of other collations changes with the operating system, under the feet of the indices.

-- An identity: the number of a deleted run is never given out again, so that an owner that slept through the deletion
-- can never write into a stranger's run. Leases are prolonged every few seconds, so pages keep room for a row's next
-- version beside it, and no index has to be touched.
CREATE TABLE holdfast.run (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    workflow text COLLATE "C" NOT NULL,
    version text NOT NULL,
    python text NOT NULL,
    module text NOT NULL,
    file text NOT NULL,
    queue text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    parent_no bigint,
    status text COLLATE "C" NOT NULL,
    deaths bigint NOT NULL,
    owner text COLLATE "C",
    epoch bigint NOT NULL,
    lease_until_ms bigint NOT NULL,
    heard_ms bigint NOT NULL,
    created_ms bigint NOT NULL,
    updated_ms bigint NOT NULL,
    due_ms bigint NOT NULL,
    wakes bigint NOT NULL,
    fingerprint bytea NOT NULL,
    seed bytea NOT NULL,
    inputs bytea NOT NULL,
    state bytea,
    result bytea,
    error bytea,
    waiting bytea,
    doing bytea,
    checksum bigint NOT NULL,
    end_checksum bigint NOT NULL,
    schema_version BIGINT NOT NULL,
    origin bytea
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX run_id ON holdfast.run (id);
CREATE INDEX run_status ON holdfast.run (status, no);
-- Only owned runs are in it: as small as the number of live runs, however many there ever were.
CREATE INDEX run_owner ON holdfast.run (owner) WHERE owner IS NOT NULL;
-- What workers look for. Runs that wait for a time are apart, so that however many sleep, nobody steps over them.
CREATE INDEX run_ready ON holdfast.run (queue, priority DESC, no)
    WHERE owner IS NULL AND due_ms = 0 AND status IN ('queued', 'running', 'waiting');
CREATE INDEX run_timed ON holdfast.run (queue, due_ms)
    WHERE owner IS NULL AND due_ms > 0 AND status IN ('queued', 'running', 'waiting');
CREATE INDEX run_parent ON holdfast.run (parent_no) WHERE parent_no IS NOT NULL;

-- Rows are never changed, and come in the order of writing.
CREATE TABLE holdfast.checkpoint (
    run_no bigint NOT NULL,
    seq bigint NOT NULL,
    epoch bigint NOT NULL,
    kind text NOT NULL,
    scope text NOT NULL,
    branch text NOT NULL,
    name text NOT NULL,
    key text,
    n bigint NOT NULL,
    version text NOT NULL,
    status text NOT NULL,
    attempts bigint NOT NULL,
    started_ms bigint NOT NULL,
    duration_ms double precision NOT NULL,
    tokens bigint,
    usd double precision,
    checksum bigint NOT NULL,
    fingerprint bytea NOT NULL,
    inputs bytea,
    result bytea,
    delta bytea,
    blobs bytea,
    PRIMARY KEY (run_no, seq)
);

-- Which blobs are named by a row, for whoever looks for those that none names.
CREATE INDEX checkpoint_blobs ON holdfast.checkpoint (run_no) WHERE blobs IS NOT NULL;

-- Values too big for a row, by the hash of their content. A blob is whole once it has a row in the first table; when that
-- was written, or its content was asked to be kept again, says that somebody may be about to name it.
CREATE TABLE holdfast.blob (
    hash bytea PRIMARY KEY NOT NULL,
    size_bytes bigint NOT NULL,
    written_ms bigint NOT NULL
);

CREATE TABLE holdfast.blob_part (
    hash bytea NOT NULL,
    n bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (hash, n)
);

CREATE TABLE holdfast.claim (
    run_no bigint NOT NULL,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    claimed_ms bigint NOT NULL,
    found text NOT NULL,
    seen_ms bigint NOT NULL,
    doing bytea,
    PRIMARY KEY (run_no, epoch)
);

-- The mailboxes. What has been taken out of them is told by the checkpoints of kind "signal".
CREATE TABLE holdfast.signal (
    run_no bigint NOT NULL,
    n bigint NOT NULL,
    name text NOT NULL,
    key text COLLATE "C",
    value bytea NOT NULL,
    sent_ms bigint NOT NULL,
    checksum bigint NOT NULL,
    PRIMARY KEY (run_no, n)
);
CREATE UNIQUE INDEX signal_key ON holdfast.signal (run_no, key) WHERE key IS NOT NULL;

-- What running code tells those who watch. Nothing here is history: rows are deleted as new ones come, and a while
-- after the run's end.
CREATE TABLE holdfast.news (
    run_no bigint NOT NULL,
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    count bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (run_no, epoch, n)
);

-- Sessions of agent frameworks, the events in them, and the state of apps, users and sessions, a row a key. Of a dialog
-- the last event and its time change with each event, and so do keys: pages keep room for a row's next version.
CREATE TABLE holdfast.dialog (
    no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    at double precision NOT NULL,
    turns bytea NOT NULL,
    checksum bigint NOT NULL
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX dialog_id ON holdfast.dialog (app, user_id, id);

CREATE TABLE holdfast.dialog_event (
    dialog_no bigint NOT NULL,
    seq bigint NOT NULL,
    turn text NOT NULL,
    at double precision NOT NULL,
    checksum bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (dialog_no, seq)
);

CREATE TABLE holdfast.shared (
    owner text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    checksum bigint NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (owner, key)
) WITH (fillfactor = 70);
