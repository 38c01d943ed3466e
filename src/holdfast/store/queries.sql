-- Every statement holdfast sends (those for dialogs: dialogs.sql), by name, in the SQL that SQLite and PostgreSQL
-- share; `name/postgres` is what PostgreSQL is sent instead, where it truly differs (docs/design/postgres.md).
-- `:word` is a parameter; `:now_ms` is the store's clock. `:rows` stands for as many rows of a VALUES list, `:list` for
-- as many parameters, as the caller has; both databases call the columns of a VALUES list column1, column2, …
-- A row of NULLs in `:rows` is padding and matches nothing. Where a statement has `:rows`, `rows:` are the types of
-- their columns, which PostgreSQL has to be told.
-- `holdfast.` before a table is the schema: PostgreSQL is sent the one that was chosen, SQLite none.
-- `<name>` stands for these columns, in the order of the fields of the rows in protocol.py; `<f.name>` puts `f.` before
-- each, and where a statement says of which types its `:rows` are, it stands for theirs.
-- columns: new
--     id text, workflow text, version text, python text, module text, file text, inputs bytea, fingerprint bytea,
--     state bytea, seed bytea, queue text, priority int8, parent_no int8, status text, result bytea, error bytea,
--     deaths int8, owner text, epoch int8, lease_until_ms int8, created_ms int8, updated_ms int8, due_ms int8,
--     wakes int8, waiting bytea, doing bytea, checksum int8, end_checksum int8, schema_version int8, origin bytea,
--     heard_ms int8
-- columns: run
--     no int8, <new>
-- columns: checkpoint
--     run_no int8, seq int8, epoch int8, kind text, scope text, branch text, name text, key text, n int8,
--     version text, status text, attempts int8, started_ms int8, duration_ms float8, tokens int8, usd float8,
--     fingerprint bytea, inputs bytea, result bytea, delta bytea, blobs bytea, checksum int8

-- name: append
-- rows: <checkpoint>
-- The fence is in the statement itself: a run whose epoch has moved on, or that nobody owns (it was
-- finished or handed back), matches no row here.
INSERT INTO holdfast.checkpoint (<checkpoint>)
SELECT v.* FROM (VALUES :rows) AS v CROSS JOIN holdfast.run AS r
WHERE r.no = v.column1 AND r.epoch = v.column3 AND r.owner IS NOT NULL

-- name: append/postgres
-- One row. FOR SHARE: who takes the run over waits until this row is committed, and so finds it. Nothing weaker does.
-- rows: as append
INSERT INTO holdfast.checkpoint (<checkpoint>)
SELECT v.* FROM (VALUES :rows) AS v JOIN holdfast.run AS r ON r.no = v.column1 AND r.epoch = v.column3 AND r.owner IS NOT NULL
FOR SHARE OF r

-- name: append_many/postgres
-- The runs were locked in the one order by share or lock, in the same statement.
-- rows: as append
INSERT INTO holdfast.checkpoint (<checkpoint>)
SELECT v.* FROM (VALUES :rows) AS v JOIN locked AS r ON r.no = v.column1 AND r.epoch = v.column3

-- name: share/postgres
SELECT no, epoch FROM holdfast.run WHERE no IN (:list) AND owner IS NOT NULL ORDER BY no FOR SHARE

-- name: lock/postgres
-- For batches that end runs too: a lock that had to grow could meet another that has to.
SELECT no, epoch FROM holdfast.run WHERE no IN (:list) AND owner IS NOT NULL ORDER BY no FOR NO KEY UPDATE

-- name: create
-- rows: <new>
INSERT INTO holdfast.run (<new>)
SELECT v.* FROM (VALUES :rows) AS v
WHERE v.column1 IS NOT NULL
ON CONFLICT (id) DO NOTHING
RETURNING no, id

-- name: create/postgres
-- A row holds how long its lease (column20) and its delay (column23) are; the time is the database's.
-- rows: as create
INSERT INTO holdfast.run (<new>)
SELECT v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8, v.column9, v.column10,
    v.column11, v.column12, v.column13, v.column14, v.column15, v.column16, v.column17, v.column18, v.column19,
    CASE WHEN v.column18 IS NULL THEN 0 ELSE :now_ms + v.column20 END, :now_ms, :now_ms,
    CASE WHEN v.column23 = 0 THEN 0 ELSE :now_ms + v.column23 END, v.column24, v.column25, v.column26, v.column27, v.column28,
    v.column29, v.column30, :now_ms
FROM (VALUES :rows) AS v
ON CONFLICT (id) DO NOTHING
RETURNING no, id, owner, epoch, lease_until_ms, created_ms, due_ms

-- name: created/postgres
-- For a batch sent again, of which it is not known whether it was committed: the runs that it created, by their seeds.
SELECT no, id, seed, lease_until_ms, created_ms, due_ms FROM holdfast.run WHERE id IN (:list)

-- name: record_claims
-- rows: int8 int8 text int8
INSERT INTO holdfast.claim (run_no, epoch, owner, claimed_ms, found, seen_ms)
SELECT v.*, '', 0 FROM (VALUES :rows) AS v
WHERE v.column1 IS NOT NULL

-- name: record_claims/postgres
INSERT INTO holdfast.claim (run_no, epoch, owner, claimed_ms, found, seen_ms)
SELECT no, epoch, owner, created_ms, '', 0 FROM created WHERE owner IS NOT NULL

-- name: finish
-- rows: int8 int8 text bytea bytea int8 int8 int8 bytea int8
UPDATE holdfast.run SET status = v.column3, result = v.column4, error = v.column5, end_checksum = v.column6, updated_ms = v.column7,
    due_ms = CASE WHEN run.wakes > v.column10 THEN 0 ELSE v.column8 END, waiting = v.column9,
    owner = NULL, lease_until_ms = 0, doing = NULL
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.epoch = v.column2 AND run.owner IS NOT NULL

-- name: finish/postgres
-- rows: int8 int8 text bytea bytea int8 int8 bytea int8
UPDATE holdfast.run SET status = v.column3, result = v.column4, error = v.column5, end_checksum = v.column6, updated_ms = :now_ms,
    due_ms = CASE WHEN run.wakes > v.column9 THEN 0 ELSE v.column7 END, waiting = v.column8,
    owner = NULL, lease_until_ms = 0, doing = NULL
FROM (VALUES :rows) AS v JOIN locked ON locked.no = v.column1 AND locked.epoch = v.column2
WHERE run.no = v.column1
RETURNING status, due_ms

-- name: revise
-- rows: int8 int8 text text text text int8 bytea int8
-- From here on the run goes on as recorded by other code. Its rows of the same batch, and the fence, come before.
UPDATE holdfast.run SET version = v.column3, python = v.column4, module = v.column5, file = v.column6, schema_version = v.column7,
    state = v.column8, checksum = v.column9
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.epoch = v.column2 AND run.owner IS NOT NULL

-- name: wake
-- Whether the run sleeps is looked at in the moment of the change: who is just going to sleep compares the number of wakes.
UPDATE holdfast.run SET wakes = wakes + 1, due_ms = CASE WHEN owner IS NULL AND status = 'waiting' THEN 0 ELSE due_ms END
WHERE no = :no AND status NOT IN ('done', 'cancelled')
RETURNING wakes, CAST(:now_ms AS BIGINT)

-- name: standing
SELECT checksum FROM holdfast.checkpoint WHERE run_no = :run_no AND seq = :seq

-- name: standing/postgres
SELECT run_no, seq, checksum FROM holdfast.checkpoint
WHERE (run_no, seq) IN (SELECT * FROM unnest(CAST(:run_nos AS BIGINT[]), CAST(:seqs AS BIGINT[])))

-- name: last_epoch
SELECT coalesce(max(epoch), 0) FROM holdfast.checkpoint WHERE run_no = :run_no AND seq <= :until

-- name: load_part
SELECT <checkpoint>
FROM holdfast.checkpoint WHERE run_no = :run_no AND seq > :after AND seq <= :until
ORDER BY seq LIMIT :limit

-- name: copy
-- Into a run that the same transaction has created, so there is no fence.
-- rows: as append
INSERT INTO holdfast.checkpoint (<checkpoint>)
SELECT v.* FROM (VALUES :rows) AS v
WHERE v.column1 IS NOT NULL

-- name: lock_runs/postgres
-- Whole and in the one order: for what is settled, and what must not be looked at while another changes it.
SELECT <run>
FROM holdfast.run WHERE no IN (:list) ORDER BY no FOR NO KEY UPDATE

-- name: lock_id/postgres
SELECT no FROM holdfast.run WHERE id = :id FOR NO KEY UPDATE

-- name: lock_family/postgres
-- A run, what is below it, and the parent that its end wakes.
WITH RECURSIVE below (no) AS (
    SELECT no FROM holdfast.run WHERE id = :id
    UNION
    SELECT child.no FROM below JOIN holdfast.run AS child ON child.parent_no = below.no)
SELECT no FROM holdfast.run
WHERE no IN (SELECT no FROM below UNION ALL SELECT parent_no FROM holdfast.run WHERE id = :id AND parent_no IS NOT NULL)
ORDER BY no FOR NO KEY UPDATE

-- name: run_of_no
SELECT <run>
FROM holdfast.run WHERE no = :no

-- name: run_of_id
SELECT <run>
FROM holdfast.run WHERE id = :id

-- name: runs
SELECT <run>
FROM holdfast.run
WHERE no < :after AND (CAST(:workflow AS TEXT) IS NULL OR workflow = :workflow)
ORDER BY no DESC LIMIT :limit

-- name: runs_of_status
SELECT <run>
FROM holdfast.run
WHERE status = :status AND no < :after AND (CAST(:workflow AS TEXT) IS NULL OR workflow = :workflow)
ORDER BY no DESC LIMIT :limit

-- name: spent
-- Rows of an epoch below 1 are those of the run that it is a fork of, which paid for them. Numbers that were damaged,
-- and that no sum could hold, are left out.
SELECT run_no, CAST(coalesce(sum(CASE WHEN tokens BETWEEN 0 AND 1000000000000 THEN tokens END), 0) AS BIGINT),
    coalesce(sum(CASE WHEN usd BETWEEN 0 AND 1000000000000 THEN usd END), 0.0),
    sum(CASE WHEN kind = 'step' AND attempts > 0 AND status NOT IN ('intent', 'not_done', 'repair') THEN 1 ELSE 0 END),
    sum(CASE WHEN kind = 'save' THEN 1 ELSE 0 END),
    coalesce(max(CASE WHEN started_ms BETWEEN 0 AND 100000000000000 AND duration_ms BETWEEN 0 AND 100000000000000
        THEN started_ms + duration_ms END), 0.0)
FROM holdfast.checkpoint WHERE run_no IN (:list) AND epoch > 0
GROUP BY run_no

-- name: load
SELECT <checkpoint>
FROM holdfast.checkpoint WHERE run_no = :run_no AND seq > :after AND seq <= :until
ORDER BY seq

-- name: load_last
SELECT <checkpoint>
FROM holdfast.checkpoint WHERE run_no = :run_no AND seq > :after AND seq <= :until
ORDER BY seq DESC LIMIT :limit

-- name: claims
SELECT run_no, epoch, owner, claimed_ms, found, seen_ms, doing FROM holdfast.claim WHERE run_no = :run_no ORDER BY epoch

-- name: record_takeover
-- Before the claim itself, from the row as it is found. Not if the row's epoch is not the last one that was claimed: it
-- was changed to an earlier one, and would become two owners'.
INSERT INTO holdfast.claim (run_no, epoch, owner, claimed_ms, found, seen_ms, doing)
SELECT no, epoch + 1, :owner, :now_ms, coalesce(CAST(:lost AS TEXT), status),
    CASE WHEN owner IS NULL THEN updated_ms ELSE heard_ms END, doing
FROM holdfast.run WHERE no = :no AND epoch = :epoch AND status NOT IN ('done', 'cancelled')
    AND NOT EXISTS (SELECT 1 FROM holdfast.claim WHERE run_no = :no AND epoch > :epoch)
RETURNING epoch

-- name: claim
-- Behind record_takeover, in one transaction: whether the run may be taken was judged there.
UPDATE holdfast.run SET epoch = epoch + 1, owner = :owner, status = 'running', doing = NULL, waiting = NULL, due_ms = 0,
    lease_until_ms = :now_ms + :ttl_ms, heard_ms = :now_ms, updated_ms = :now_ms, deaths = deaths + CASE WHEN CAST(:lost AS TEXT) IS NULL THEN 0 ELSE 1 END
WHERE no = :no
RETURNING <run>

-- name: due
-- What nobody owns is found by one of two indices: what is due at once, and what has a time.
SELECT no, priority FROM (
    SELECT no, priority FROM holdfast.run
    WHERE queue = :queue AND owner IS NULL AND due_ms = 0 AND status IN ('queued', 'running', 'waiting')
        AND (workflow IN (:list) OR workflow || char(10) || version || char(10) || python || char(10) || schema_version IN (:list))
    ORDER BY priority DESC, no LIMIT :limit)
UNION ALL
SELECT no, priority FROM (
    SELECT no, priority FROM holdfast.run
    WHERE queue = :queue AND owner IS NULL AND due_ms > 0 AND status IN ('queued', 'running', 'waiting')
        AND (workflow IN (:list) OR workflow || char(10) || version || char(10) || python || char(10) || schema_version IN (:list)) AND due_ms <= :now_ms
    ORDER BY priority DESC, no LIMIT :limit)
ORDER BY priority DESC, no LIMIT :limit

-- name: claim_due/postgres
-- Each part locks what it finds and passes over what another worker has locked; what is left over is let go at the end
-- of the transaction. The runs as they were found, how the owner of each was lost, and what has become of them.
WITH found AS (
SELECT <run>, lost
FROM (
    SELECT * FROM (SELECT *, NULL AS lost FROM holdfast.run
        WHERE queue = :queue AND owner IS NULL AND due_ms = 0 AND status IN ('queued', 'running', 'waiting')
            AND (workflow IN (:workflows) OR workflow || chr(10) || version || chr(10) || python || chr(10) || schema_version IN (:workflows))
        ORDER BY priority DESC, no LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) AS ready
    UNION ALL
    SELECT * FROM (SELECT *, NULL FROM holdfast.run
        WHERE queue = :queue AND owner IS NULL AND due_ms > 0 AND status IN ('queued', 'running', 'waiting')
            AND (workflow IN (:workflows) OR workflow || chr(10) || version || chr(10) || python || chr(10) || schema_version IN (:workflows)) AND due_ms <= :now_ms
        ORDER BY priority DESC, no LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) AS timed
    UNION ALL
    SELECT * FROM (SELECT *, CASE WHEN owner IN (:dead) THEN 'died' ELSE 'lapsed' END FROM holdfast.run
        WHERE queue = :queue AND owner IS NOT NULL AND (lease_until_ms <= :now_ms AND owner <> :owner OR owner IN (:dead))
            AND status IN ('queued', 'running', 'waiting')
            AND (workflow IN (:workflows) OR workflow || chr(10) || version || chr(10) || python || chr(10) || schema_version IN (:workflows))
        ORDER BY priority DESC, no LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) AS abandoned
) AS found
WHERE epoch >= (SELECT coalesce(max(last.epoch), 0) FROM holdfast.claim AS last WHERE last.run_no = found.no)
ORDER BY priority DESC, no LIMIT :limit
), claims AS (
    INSERT INTO holdfast.claim (run_no, epoch, owner, claimed_ms, found, seen_ms, doing)
    SELECT no, epoch + 1, :owner, :now_ms, coalesce(lost, status),
        CASE WHEN owner IS NULL THEN updated_ms ELSE heard_ms END, doing
    FROM found
), taken AS (
    UPDATE holdfast.run AS r SET epoch = r.epoch + 1, owner = :owner, status = 'running', doing = NULL, waiting = NULL, due_ms = 0,
        lease_until_ms = :now_ms + :ttl_ms, heard_ms = :now_ms, updated_ms = :now_ms, deaths = r.deaths + CASE WHEN lost IS NULL THEN 0 ELSE 1 END
    FROM found WHERE r.no = found.no
    RETURNING r.no, r.epoch, r.deaths, r.lease_until_ms, r.updated_ms
)
SELECT <f.run>, f.lost, t.epoch, t.deaths, t.lease_until_ms, t.updated_ms
FROM found AS f JOIN taken AS t ON t.no = f.no
ORDER BY f.priority DESC, f.no

-- name: lock_queue/postgres
SELECT CAST(pg_advisory_xact_lock(:number) AS TEXT)

-- name: living/postgres
SELECT count(*) FROM holdfast.run
WHERE queue = :queue AND owner IS NOT NULL AND (lease_until_ms > :now_ms OR owner = :owner) AND NOT owner IN (:dead)

-- name: owned
-- Live runs only: as many rows as there are runs in flight.
SELECT no, queue, priority, status, workflow, version, python, schema_version, owner, lease_until_ms FROM holdfast.run WHERE owner IS NOT NULL

-- name: owners
SELECT DISTINCT owner FROM holdfast.run WHERE owner IS NOT NULL ORDER BY owner

-- name: renew
UPDATE holdfast.run SET lease_until_ms = :now_ms + :ttl_ms, heard_ms = :now_ms WHERE owner = :owner RETURNING no

-- name: renew/postgres
WITH held AS (SELECT no FROM holdfast.run WHERE owner = :owner ORDER BY no FOR NO KEY UPDATE)
UPDATE holdfast.run SET lease_until_ms = :now_ms + :ttl_ms, heard_ms = :now_ms FROM held WHERE run.no = held.no RETURNING run.no

-- name: note_doing
-- rows: int8 text bytea
UPDATE holdfast.run SET doing = v.column3
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.owner = v.column2

-- name: note_waiting
-- rows: int8 text bytea
UPDATE holdfast.run SET waiting = v.column3, status = CASE WHEN v.column3 IS NULL THEN 'running' ELSE 'waiting' END
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.owner = v.column2

-- name: cancel
UPDATE holdfast.run SET epoch = epoch + 1, owner = NULL, status = 'cancelled', lease_until_ms = 0, updated_ms = :now_ms,
    doing = NULL, waiting = NULL, due_ms = 0
WHERE id = :id AND status NOT IN ('done', 'cancelled')
RETURNING no, parent_no

-- name: cancel_children
WITH RECURSIVE below (no) AS (
    SELECT no FROM holdfast.run WHERE parent_no = :no
    UNION
    SELECT child.no FROM below JOIN holdfast.run AS child ON child.parent_no = below.no)
UPDATE holdfast.run SET epoch = epoch + 1, owner = NULL, status = 'cancelled', lease_until_ms = 0, updated_ms = :now_ms,
    doing = NULL, waiting = NULL, due_ms = 0
WHERE no IN (SELECT no FROM below) AND status NOT IN ('done', 'failed', 'cancelled')

-- name: send
INSERT INTO holdfast.signal (run_no, n, name, key, value, sent_ms, checksum)
VALUES (:run_no, :n, :name, :key, :value, :sent_ms, :checksum)

-- name: signal_of_key
SELECT n FROM holdfast.signal WHERE run_no = :run_no AND key = :key

-- name: signals
SELECT run_no, n, name, key, value, sent_ms, checksum FROM holdfast.signal WHERE run_no = :run_no AND n > :after ORDER BY n

-- name: wakes
SELECT no, wakes FROM holdfast.run WHERE no IN (:list)

-- name: statuses
SELECT id, status FROM holdfast.run WHERE id IN (:list)

-- name: tell
-- rows: int8 int8 int8 int8 bytea
-- Fenced as checkpoints are: what an owner tells that has lost the run is not kept.
INSERT INTO holdfast.news (run_no, epoch, n, count, data)
SELECT v.* FROM (VALUES :rows) AS v CROSS JOIN holdfast.run AS r
WHERE r.no = v.column1 AND r.epoch = v.column2 AND r.owner IS NOT NULL
ON CONFLICT (run_no, epoch, n) DO NOTHING

-- name: tell/postgres
-- Whoever tells does not wait for the disk; the setting ends with the statement's transaction.
-- rows: as tell
INSERT INTO holdfast.news (run_no, epoch, n, count, data)
SELECT v.* FROM (VALUES :rows) AS v JOIN holdfast.run AS r ON r.no = v.column1 AND r.epoch = v.column2 AND r.owner IS NOT NULL
    CROSS JOIN (SELECT set_config('synchronous_commit', 'off', true)) AS eased
ON CONFLICT (run_no, epoch, n) DO NOTHING

-- name: forget_news
DELETE FROM holdfast.news WHERE run_no = :run_no AND (epoch < :epoch - 1 OR (epoch = :epoch AND n <= :n))

-- name: forget_news/postgres
DELETE FROM holdfast.news USING (SELECT set_config('synchronous_commit', 'off', true)) AS eased
WHERE run_no = :run_no AND (epoch < :epoch - 1 OR (epoch = :epoch AND n <= :n))

-- name: news
SELECT run_no, epoch, n, count, data FROM holdfast.news
WHERE run_no = :run_no AND (epoch, n) > (:epoch, :n)
ORDER BY epoch, n

-- name: clear_news
DELETE FROM holdfast.news
WHERE run_no IN (SELECT r.no FROM holdfast.run AS r
    WHERE r.no IN (SELECT DISTINCT run_no FROM holdfast.news) AND r.owner IS NULL AND r.updated_ms < :now_ms - :idle_ms)

-- name: clear_news/postgres
DELETE FROM holdfast.news AS told
USING holdfast.run AS r, (SELECT set_config('synchronous_commit', 'off', true)) AS eased
WHERE r.no = told.run_no AND r.owner IS NULL AND r.updated_ms < :now_ms - :idle_ms

-- name: now/postgres
SELECT :now_ms

-- name: stamp/postgres
-- What is visible: another one, as soon as anything was committed.
SELECT CAST(pg_current_snapshot() AS TEXT)

-- name: notify/postgres
SELECT CAST(pg_notify(:channel, '') AS TEXT)

-- name: schema_number/postgres
SELECT count(*) FROM holdfast.migration

-- name: renew_blob
UPDATE holdfast.blob SET written_ms = :now_ms WHERE hash = :hash RETURNING size_bytes

-- name: put_blob_part
-- What stands there may have been damaged, so it is written over.
INSERT INTO holdfast.blob_part (hash, n, data) VALUES (:hash, :n, :data)
ON CONFLICT (hash, n) DO UPDATE SET data = excluded.data

-- name: put_blob
INSERT INTO holdfast.blob (hash, size_bytes, written_ms) VALUES (:hash, :size_bytes, :now_ms)
ON CONFLICT (hash) DO UPDATE SET size_bytes = excluded.size_bytes, written_ms = excluded.written_ms

-- name: blob_part
SELECT data FROM holdfast.blob_part WHERE hash = :hash AND n = :n
