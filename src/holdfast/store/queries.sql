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
INSERT INTO run (id, workflow, version, python, module, file, inputs, fingerprint, state, seed, status,
    result, error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, doing, checksum, end_checksum)
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
    owner = NULL, lease_until_ms = 0, doing = NULL
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.epoch = v.column2 AND run.owner IS NOT NULL

-- name: standing
SELECT checksum FROM checkpoint WHERE run_no = :run_no AND seq = :seq

-- name: run_of_no
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, status, result,
    error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, doing, checksum, end_checksum
FROM run WHERE no = :no

-- name: run_of_id
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, status, result,
    error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, doing, checksum, end_checksum
FROM run WHERE id = :id

-- name: runs
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, status, result,
    error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, doing, checksum, end_checksum
FROM run
WHERE no < :after AND (CAST(:workflow AS TEXT) IS NULL OR workflow = :workflow)
ORDER BY no DESC LIMIT :limit

-- name: runs_of_status
SELECT no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, status, result,
    error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, doing, checksum, end_checksum
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
UPDATE run SET epoch = epoch + 1, owner = :owner, status = 'running', doing = NULL,
    lease_until_ms = :until_ms, updated_ms = :now_ms, deaths = deaths + CASE WHEN CAST(:lost AS TEXT) IS NULL THEN 0 ELSE 1 END
WHERE no = :no AND epoch = :epoch AND status NOT IN ('done', 'cancelled')
RETURNING no, id, workflow, version, python, module, file, inputs, fingerprint, state, seed, status, result,
    error, deaths, owner, epoch, lease_until_ms, created_ms, updated_ms, doing, checksum, end_checksum

-- name: renew
UPDATE run SET lease_until_ms = :until_ms WHERE owner = :owner RETURNING no

-- name: note_doing
UPDATE run SET doing = v.column3
FROM (VALUES :rows) AS v
WHERE run.no = v.column1 AND run.owner = v.column2

-- name: cancel
UPDATE run SET epoch = epoch + 1, owner = NULL, status = 'cancelled', lease_until_ms = 0, updated_ms = :now_ms,
    doing = NULL
WHERE id = :id AND status NOT IN ('done', 'cancelled')

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
