-- Every statement holdfast sends, by name, in the SQL that SQLite and PostgreSQL share.
-- `:word` is a parameter. `:rows` stands for as many rows of a VALUES list, `:list` for as many
-- parameters, as the caller has; both databases call the columns of a VALUES list column1, column2, …
-- A row of NULLs in `:rows` is padding and matches nothing.

-- name: append
-- The fence is in the statement itself: a run whose epoch has moved on, or that nobody owns (it was
-- finished or handed back), matches no row here.
INSERT INTO checkpoint (run_no, seq, epoch, kind, scope, branch, name, key, n, version, status, attempts,
    started_ms, duration_ms, tokens, usd, fingerprint, inputs, result, delta, checksum)
SELECT v.* FROM (VALUES :rows) AS v CROSS JOIN run AS r
WHERE r.no = v.column1 AND r.epoch = v.column3 AND r.owner IS NOT NULL

-- name: create
INSERT INTO run (id, workflow, version, python, module, file, inputs, fingerprint, state, seed, queue, priority, parent_no, status,
    result, error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, due_ms, wakes, waiting, doing, checksum, end_checksum)
SELECT v.* FROM (VALUES :rows) AS v
WHERE v.column1 IS NOT NULL
ON CONFLICT (id) DO NOTHING
RETURNING no, id

-- name: record_claims
INSERT INTO claim (run_no, epoch, owner, claimed_ms, found, seen_ms)
SELECT v.*, '', 0 FROM (VALUES :rows) AS v
WHERE v.column1 IS NOT NULL

-- name: finish
UPDATE run SET status = v.column3, result = v.column4, error = v.column5, end_checksum = v.column6, updated_ms = v.column7,
    due_ms = CASE WHEN run.wakes > v.column10 THEN 0 ELSE v.column8 END, waiting = v.column9,
    owner = NULL, lease_until_ms = 0, doing = NULL
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.epoch = v.column2 AND run.owner IS NOT NULL

-- name: wake
-- Whether the run sleeps is looked at in the moment of the change: who is just going to sleep compares the number of wakes.
UPDATE run SET wakes = wakes + 1, due_ms = CASE WHEN owner IS NULL AND status = 'waiting' THEN 0 ELSE due_ms END
WHERE no = :no AND status NOT IN ('done', 'cancelled')
RETURNING wakes

-- name: standing
SELECT checksum FROM checkpoint WHERE run_no = :run_no AND seq = :seq

-- name: run_of_no
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, queue, priority, parent_no, status,
    result, error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, due_ms, wakes, waiting, doing, checksum, end_checksum
FROM run WHERE no = :no

-- name: run_of_id
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, queue, priority, parent_no, status,
    result, error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, due_ms, wakes, waiting, doing, checksum, end_checksum
FROM run WHERE id = :id

-- name: runs
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, queue, priority, parent_no, status,
    result, error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, due_ms, wakes, waiting, doing, checksum, end_checksum
FROM run
WHERE no < :after AND (CAST(:workflow AS TEXT) IS NULL OR workflow = :workflow)
ORDER BY no DESC LIMIT :limit

-- name: runs_of_status
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, queue, priority, parent_no, status,
    result, error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, due_ms, wakes, waiting, doing, checksum, end_checksum
FROM run
WHERE status = :status AND no < :after AND (CAST(:workflow AS TEXT) IS NULL OR workflow = :workflow)
ORDER BY no DESC LIMIT :limit

-- name: spent
SELECT run_no, coalesce(sum(tokens), 0), coalesce(sum(usd), 0.0),
    sum(CASE WHEN kind = 'step' THEN 1 ELSE 0 END), sum(CASE WHEN kind = 'save' THEN 1 ELSE 0 END), max(started_ms + duration_ms)
FROM checkpoint WHERE run_no IN (:list)
GROUP BY run_no

-- name: load
SELECT run_no, seq, epoch, kind, scope, branch, name, key, n, version, status, attempts,
    started_ms, duration_ms, tokens, usd, fingerprint, inputs, result, delta, checksum
FROM checkpoint WHERE run_no = :run_no AND seq > :after
ORDER BY seq

-- name: claims
SELECT run_no, epoch, owner, claimed_ms, found, seen_ms, doing FROM claim WHERE run_no = :run_no ORDER BY epoch

-- name: record_takeover
-- Before the claim itself, from the row as it is found.
INSERT INTO claim (run_no, epoch, owner, claimed_ms, found, seen_ms, doing)
SELECT no, epoch + 1, :owner, :now_ms, coalesce(CAST(:lost AS TEXT), status),
    CASE WHEN owner IS NULL THEN updated_ms ELSE lease_until_ms - :ttl_ms END, doing
FROM run WHERE no = :no AND epoch = :epoch AND status NOT IN ('done', 'cancelled')

-- name: claim
UPDATE run SET epoch = epoch + 1, owner = :owner, status = 'running', doing = NULL, waiting = NULL, due_ms = 0,
    lease_until_ms = :until_ms, updated_ms = :now_ms, deaths = deaths + CASE WHEN CAST(:lost AS TEXT) IS NULL THEN 0 ELSE 1 END
WHERE no = :no AND epoch = :epoch AND status NOT IN ('done', 'cancelled')
RETURNING no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, queue, priority, parent_no, status,
    result, error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, due_ms, wakes, waiting, doing, checksum, end_checksum

-- name: due
-- What nobody owns is found by one of two indices: what is due at once, and what has a time.
SELECT no, priority FROM (
    SELECT no, priority FROM run
    WHERE queue = :queue AND owner IS NULL AND due_ms = 0 AND status IN ('queued', 'running', 'waiting') AND workflow IN (:list)
    ORDER BY priority DESC, no LIMIT :limit)
UNION ALL
SELECT no, priority FROM (
    SELECT no, priority FROM run
    WHERE queue = :queue AND owner IS NULL AND due_ms > 0 AND status IN ('queued', 'running', 'waiting') AND workflow IN (:list)
        AND due_ms <= :now_ms
    ORDER BY priority DESC, no LIMIT :limit)
ORDER BY priority DESC, no LIMIT :limit

-- name: owned
-- Live runs only: as many rows as there are runs in flight.
SELECT no, queue, priority, status, workflow, owner, lease_until_ms FROM run WHERE owner IS NOT NULL

-- name: owners
SELECT DISTINCT owner FROM run WHERE owner IS NOT NULL

-- name: renew
UPDATE run SET lease_until_ms = :until_ms WHERE owner = :owner RETURNING no

-- name: note_doing
UPDATE run SET doing = v.column3
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.owner = v.column2

-- name: note_waiting
UPDATE run SET waiting = v.column3, status = CASE WHEN v.column3 IS NULL THEN 'running' ELSE 'waiting' END
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.owner = v.column2

-- name: cancel
UPDATE run SET epoch = epoch + 1, owner = NULL, status = 'cancelled', lease_until_ms = 0, updated_ms = :now_ms,
    doing = NULL, waiting = NULL, due_ms = 0
WHERE id = :id AND status NOT IN ('done', 'cancelled')
RETURNING no, parent_no

-- name: cancel_children
WITH RECURSIVE below (no) AS (
    SELECT no FROM run WHERE parent_no = :no
    UNION
    SELECT child.no FROM below JOIN run AS child ON child.parent_no = below.no)
UPDATE run SET epoch = epoch + 1, owner = NULL, status = 'cancelled', lease_until_ms = 0, updated_ms = :now_ms,
    doing = NULL, waiting = NULL, due_ms = 0
WHERE no IN (SELECT no FROM below) AND status NOT IN ('done', 'failed', 'cancelled')

-- name: send
INSERT INTO signal (run_no, n, name, key, value, sent_ms, checksum)
VALUES (:run_no, :n, :name, :key, :value, :sent_ms, :checksum)

-- name: signal_of_key
SELECT n FROM signal WHERE run_no = :run_no AND key = :key

-- name: signals
SELECT run_no, n, name, key, value, sent_ms, checksum FROM signal WHERE run_no = :run_no AND n > :after ORDER BY n

-- name: wakes
SELECT no, wakes FROM run WHERE no IN (:list)

-- name: tell
-- Fenced as checkpoints are: what an owner tells that has lost the run is not kept.
INSERT INTO news (run_no, epoch, n, count, data)
SELECT v.* FROM (VALUES :rows) AS v CROSS JOIN run AS r
WHERE r.no = v.column1 AND r.epoch = v.column2 AND r.owner IS NOT NULL

-- name: forget_news
DELETE FROM news WHERE run_no = :run_no AND (epoch < :epoch - 1 OR (epoch = :epoch AND n <= :n))

-- name: news
SELECT run_no, epoch, n, count, data FROM news
WHERE run_no = :run_no AND (epoch, n) > (:epoch, :n)
ORDER BY epoch, n

-- name: clear_news
DELETE FROM news
WHERE run_no IN (SELECT r.no FROM run AS r
    WHERE r.no IN (SELECT DISTINCT run_no FROM news) AND r.owner IS NULL AND r.updated_ms < :before_ms)
