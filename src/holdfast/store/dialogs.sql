-- The statements for dialogs; what stands for what is said at the top of queries.sql.
-- columns: dialog
--     no int8, app text, user_id text, id text, seq int8, at float8, turns bytea, checksum int8
-- columns: dialog_event
--     dialog_no int8, seq int8, turn text, at float8, data bytea, checksum int8
-- columns: shared
--     owner text, key text, value bytea, checksum int8

-- name: open_dialog
INSERT INTO holdfast.dialog (app, user_id, id, seq, at, turns, checksum)
VALUES (:app, :user_id, :id, :seq, :at, :turns, :checksum)
ON CONFLICT (app, user_id, id) DO NOTHING
RETURNING no

-- name: put_shared
-- rows: <shared>
INSERT INTO holdfast.shared (<shared>)
SELECT v.* FROM (VALUES :rows) AS v
WHERE v.column1 IS NOT NULL
ON CONFLICT (owner, key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum

-- name: extend_dialog
-- Whose last event is another one by now matches no row here.
-- rows: int8 int8 float8 bytea int8
UPDATE holdfast.dialog SET seq = v.column2, at = v.column3, turns = v.column4, checksum = v.column5
FROM (VALUES :rows) AS v
WHERE dialog.no = v.column1 AND dialog.seq = v.column2 - 1
RETURNING no

-- name: append_event
-- rows: <dialog_event>
INSERT INTO holdfast.dialog_event (<dialog_event>)
SELECT v.* FROM (VALUES :rows) AS v
WHERE v.column1 IS NOT NULL

-- name: extend_one/postgres
-- One event that sets no keys, as most of them are.
WITH moved AS (
    UPDATE holdfast.dialog SET seq = :seq, at = :at, turns = :turns, checksum = :dialog_checksum
    WHERE no = :no AND seq = CAST(:seq AS BIGINT) - 1
    RETURNING no)
INSERT INTO holdfast.dialog_event (<dialog_event>)
SELECT no, :seq, :turn, :at, :data, :checksum FROM moved
RETURNING dialog_no

-- name: extend_one_with/postgres
-- One event, and the keys it sets, each once and in the order in which keys are locked.
WITH moved AS (
    UPDATE holdfast.dialog SET seq = :seq, at = :at, turns = :turns, checksum = :dialog_checksum
    WHERE no = :no AND seq = CAST(:seq AS BIGINT) - 1
    RETURNING no
), put AS (
    INSERT INTO holdfast.shared (<shared>)
    SELECT k.* FROM moved CROSS JOIN unnest(CAST(:owners AS TEXT[]), CAST(:keys AS TEXT[]), CAST(:values AS BYTEA[]),
        CAST(:key_checksums AS BIGINT[])) AS k
    ON CONFLICT (owner, key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum
)
INSERT INTO holdfast.dialog_event (<dialog_event>)
SELECT no, :seq, :turn, :at, :data, :checksum FROM moved
RETURNING dialog_no

-- name: extend/postgres
-- The dialogs are locked in the one order, all of them before any key, and the keys in theirs: of two batches that meet,
-- one waits for the other. Of two events that set one key the later counts.
WITH locked AS (
    SELECT no, seq FROM holdfast.dialog WHERE no IN (:nos) ORDER BY no FOR NO KEY UPDATE
), given AS (
    SELECT * FROM unnest(CAST(:nos AS BIGINT[]), CAST(:seqs AS BIGINT[]), CAST(:ats AS FLOAT8[]), CAST(:turns AS BYTEA[]),
        CAST(:dialog_checksums AS BIGINT[]), CAST(:turn AS TEXT[]), CAST(:data AS BYTEA[]), CAST(:checksums AS BIGINT[]))
        AS v (no, seq, at, turns, dialog_checksum, turn, data, checksum)
), moved AS (
    UPDATE holdfast.dialog AS d SET seq = v.seq, at = v.at, turns = v.turns, checksum = v.dialog_checksum
    FROM given AS v JOIN locked ON locked.no = v.no AND locked.seq = v.seq - 1
    WHERE d.no = v.no
    RETURNING d.no
), appended AS (
    INSERT INTO holdfast.dialog_event (<dialog_event>)
    SELECT v.no, v.seq, v.turn, v.at, v.data, v.checksum FROM given AS v JOIN moved ON moved.no = v.no
), keys AS (
    SELECT DISTINCT ON (s.owner, s.key) s.owner, s.key, s.value, s.checksum
    FROM unnest(CAST(:of AS BIGINT[]), CAST(:owners AS TEXT[]), CAST(:keys AS TEXT[]), CAST(:values AS BYTEA[]),
        CAST(:key_checksums AS BIGINT[])) WITH ORDINALITY AS s (no, owner, key, value, checksum, place)
    WHERE s.no IN (SELECT no FROM moved)
    ORDER BY s.owner, s.key, s.place DESC
), put AS (
    INSERT INTO holdfast.shared (<shared>)
    SELECT owner, key, value, checksum FROM keys
    ON CONFLICT (owner, key) DO UPDATE SET value = excluded.value, checksum = excluded.checksum
)
SELECT no FROM moved

-- name: event_standing
SELECT dialog_no, checksum FROM holdfast.dialog_event WHERE dialog_no = :no AND seq = :seq

-- name: dialog
-- In one statement, so that the keys are those of this moment.
SELECT <d.dialog>, s.owner, s.key, s.value, s.checksum AS key_checksum
FROM holdfast.dialog AS d LEFT JOIN holdfast.shared AS s ON s.owner IN (:app_owner, :user_owner, :owner)
WHERE d.app = :app AND d.user_id = :user_id AND d.id = :id

-- name: dialog_of_no
SELECT no FROM holdfast.dialog WHERE no = :no

-- name: dialogs
SELECT <dialog>
FROM holdfast.dialog WHERE app = :app AND (user_id, id) > (:after_user, :after_id)
ORDER BY user_id, id LIMIT :limit

-- name: dialogs_of_user
SELECT <dialog>
FROM holdfast.dialog WHERE app = :app AND user_id = :user_id AND id > :after_id
ORDER BY id LIMIT :limit

-- name: shared
SELECT <shared>
FROM holdfast.shared WHERE owner IN (:list) ORDER BY owner, key

-- name: dialog_events
SELECT <dialog_event>
FROM holdfast.dialog_event WHERE dialog_no = :no AND seq > :after AND seq <= :until
ORDER BY seq

-- name: dialog_events_of_turn
SELECT <dialog_event>
FROM holdfast.dialog_event WHERE dialog_no = :no AND seq > :after AND seq <= :until AND turn = :turn
ORDER BY seq

-- name: last_before
SELECT seq FROM holdfast.dialog_event WHERE dialog_no = :no AND seq <= :until AND at < :at
ORDER BY seq DESC LIMIT 1

-- name: delete_dialog
DELETE FROM holdfast.dialog WHERE app = :app AND user_id = :user_id AND id = :id RETURNING no

-- name: delete_events
DELETE FROM holdfast.dialog_event WHERE dialog_no = :no

-- name: delete_shared
DELETE FROM holdfast.shared WHERE owner = :owner
