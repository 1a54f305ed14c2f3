//! The SQL: tables, and one statement for each thing that is done, prepared once a connection. A batch goes in as
//! arrays and is spread out by `unnest`.

use tokio_postgres::{Client, Error, Statement};

/// The version of the tables below and of what is in their rows.
pub(super) const SCHEMA: i32 = 3;

/// The oldest one that is taken over. Its tables are the same; in rows of schemas 2 and 3 there is what older engines do not
/// read.
pub(super) const OLDEST: i32 = 1;

/// Keys and bodies are ours alone; nothing in the tables needs partitions, extensions or functions of the server's
/// own, so that databases which speak PostgreSQL's language can stand in for it. Rows are updated in place where a
/// page has room: pages are filled to 70 %.
pub(super) const TABLES: &str = "
    CREATE SCHEMA IF NOT EXISTS interlane;
    CREATE TABLE interlane.store (
        id int4 PRIMARY KEY CHECK (id = 1),
        schema_version int4 NOT NULL,
        store_id bytea NOT NULL,
        proof bytea NOT NULL,
        last_account int8 NOT NULL
    );
    CREATE TABLE interlane.shards (
        shard int4 PRIMARY KEY,
        epoch int8 NOT NULL,
        version int8 NOT NULL,
        owner text NOT NULL,
        holder int8 NOT NULL,
        wanted text,
        lost_from int8 NOT NULL
    ) WITH (fillfactor = 50);
    CREATE TABLE interlane.accounts (
        id int8 PRIMARY KEY,
        name text NOT NULL UNIQUE,
        shard int4 NOT NULL REFERENCES interlane.shards (shard),
        wrapped bytea NOT NULL
    );
    CREATE INDEX accounts_by_shard ON interlane.accounts (shard);
    CREATE TABLE interlane.rows (key bytea PRIMARY KEY, body bytea NOT NULL) WITH (fillfactor = 70);
";

/// Fills a new store: $1 schema, $2 store id, $3 proof; $4 shards.
pub(super) const FIRST_ROW: &str = "INSERT INTO interlane.store VALUES (1, $1, $2, $3, 0)";
pub(super) const FIRST_SHARDS: &str = "
    INSERT INTO interlane.shards SELECT n, 0, 0, '', 0, NULL, 0 FROM generate_series(0, $1::int4 - 1) AS n";

/// What a session needs, whatever the server's, the database's or the role's settings are: a commit that is done when
/// its standby has it, and warnings where the server did not wait. A server set to `remote_apply` stays so.
pub(super) const SESSION: &str = "
    SELECT set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false);
    SET client_min_messages = warning;
    SET default_transaction_isolation = 'read committed';
    SET statement_timeout = 0;
    SET lock_timeout = '5s';
    SET search_path = pg_catalog;
";

/// From here on older engines are refused: $1 is our schema.
pub(super) const RAISE: &str = "UPDATE interlane.store SET schema_version = $1 WHERE id = 1 AND schema_version < $1";

pub(super) const GREETING: &str = "SELECT schema_version, store_id, proof FROM interlane.store WHERE id = 1";

/// Compare and set: every shard of a batch is still at this epoch and version, or its rows are not written.
/// $1 shards, $2 epochs, $3 versions.
const HELD: &str = "
    WITH held AS (
        UPDATE interlane.shards AS s SET version = s.version + 1
        FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS h (shard, epoch, version)
        WHERE s.shard = h.shard AND s.epoch = h.epoch AND s.version = h.version
        RETURNING s.shard, s.wanted
    )";

/// $4 shards, $5 keys, $6 bodies of rows to put; $7 shards, $8 keys of rows to delete. A key is there once.
const COMMIT: &str = ", put AS (
        INSERT INTO interlane.rows (key, body)
        SELECT p.key, p.body FROM unnest($4::int4[], $5::bytea[], $6::bytea[]) AS p (shard, key, body)
        JOIN held ON held.shard = p.shard
        ON CONFLICT (key) DO UPDATE SET body = excluded.body
    ), gone AS (
        DELETE FROM interlane.rows AS r
        USING unnest($7::int4[], $8::bytea[]) AS g (shard, key), held
        WHERE g.shard = held.shard AND r.key = g.key
    )
    SELECT shard, wanted FROM held";

/// The rest of a batch that is too long for one statement, in the transaction that the first one began. $1 keys,
/// $2 bodies.
const PUT: &str = "
    INSERT INTO interlane.rows (key, body) SELECT p.key, p.body FROM unnest($1::bytea[], $2::bytea[]) AS p (key, body)
    ON CONFLICT (key) DO UPDATE SET body = excluded.body";

/// $1 keys.
const DELETE: &str = "DELETE FROM interlane.rows WHERE key = ANY($1::bytea[])";

/// $4 id, $5 name, $6 wrapped data key; $7 keys, $8 bodies of its first rows.
const CREATE: &str = ", made AS (
        INSERT INTO interlane.accounts (id, name, shard, wrapped)
        SELECT $4::int8, $5::text, held.shard, $6::bytea FROM held
        ON CONFLICT (name) DO NOTHING
        RETURNING id
    ), put AS (
        INSERT INTO interlane.rows (key, body)
        SELECT p.key, p.body FROM made, unnest($7::bytea[], $8::bytea[]) AS p (key, body)
    )
    SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM made)";

/// $4 id, $5 and $6 the first and the last key that it can have.
const DELETE_ACCOUNT: &str = ", deleted AS (
        DELETE FROM interlane.accounts AS a USING held WHERE a.id = $4::int8 RETURNING a.id
    ), gone AS (
        DELETE FROM interlane.rows AS r USING deleted WHERE r.key BETWEEN $5::bytea AND $6::bytea
    )
    SELECT (SELECT count(*) FROM held), (SELECT count(*) FROM deleted)";

/// A number that was never given.
const NUMBER: &str = "
    UPDATE interlane.store SET last_account = last_account + 1 WHERE last_account < 4294967295 RETURNING last_account";

/// $1 keys.
const LOAD: &str = "SELECT key, body FROM interlane.rows WHERE key = ANY($1::bytea[])";

/// $1 and $3 the bounds, the first one included ($2) or not; $4 how many.
const SCAN: &str = "
    SELECT key, body FROM interlane.rows
    WHERE key >= $1::bytea AND ($2::boolean OR key <> $1::bytea) AND key <= $3::bytea ORDER BY key LIMIT $4::int8";

/// $1 first and $2 last keys.
const SCAN_ALL: &str = "
    SELECT r.key, r.body FROM unnest($1::bytea[], $2::bytea[]) AS b (first, last)
    JOIN interlane.rows AS r ON r.key BETWEEN b.first AND b.last";

/// $1 accounts, $2 first and $3 last keys.
const COUNT: &str = "
    SELECT b.account, count(*) FROM unnest($1::int8[], $2::bytea[], $3::bytea[]) AS b (account, first, last)
    JOIN interlane.rows AS r ON r.key BETWEEN b.first AND b.last GROUP BY b.account";

/// $1 shards.
const ACCOUNTS: &str =
    "SELECT id, name, shard, wrapped FROM interlane.accounts WHERE shard = ANY($1::int4[]) ORDER BY id";

/// $1 name.
/// An account's shard, and whether this instance has that without knowing: its taking had no answer.
const WHERE: &str = "
    SELECT a.shard, s.holder = $2::int8
    FROM interlane.accounts AS a JOIN interlane.shards AS s ON s.shard = a.shard WHERE a.name = $1";

const SHARDS: &str = "
    SELECT s.shard, s.epoch, s.version, s.owner, s.holder, s.wanted, s.lost_from,
        (SELECT count(*) FROM interlane.accounts AS a WHERE a.shard = s.shard)
    FROM interlane.shards AS s ORDER BY s.shard";

/// $1 engine, $2 its instance, $3 shards, $4 whoever has them, $5 also those that nobody has, $6 also what another
/// instance of this engine has. A shard that went back to an older state is nobody's until that is declared.
const TAKE: &str = "
    UPDATE interlane.shards SET epoch = epoch + 1, owner = $1, holder = $2::int8,
        wanted = CASE WHEN wanted = $1 THEN NULL ELSE wanted END
    WHERE shard = ANY($3::int4[]) AND lost_from = 0 AND ($4::boolean OR ($5::boolean AND owner = '')
        OR (owner = $1 AND ($6::boolean OR holder = 0 OR holder = $2::int8)))
    RETURNING shard, epoch, version, wanted";

/// Whether shards are still held. A version is set to what it is, so that the answer waits for the standby as a commit
/// does. $1 shards.
const CONFIRM: &str = "
    WITH waited AS (UPDATE interlane.shards SET version = version WHERE shard = ($1::int4[])[1])
    SELECT shard, epoch, holder, wanted FROM interlane.shards WHERE shard = ANY($1::int4[])";

/// Shards go to the engines that are to have them. $1 shards, $2 epochs.
const HAND_OVER: &str = "
    UPDATE interlane.shards AS s SET epoch = s.epoch + 1, owner = s.wanted, holder = 0, wanted = NULL
    FROM unnest($1::int4[], $2::int8[]) AS h (shard, epoch)
    WHERE s.shard = h.shard AND s.epoch = h.epoch AND s.wanted IS NOT NULL
    RETURNING s.shard";

/// An engine that ends leaves its shards, to everybody ($3) or to itself. $1 shards, $2 epochs.
const RELEASE: &str = "
    UPDATE interlane.shards AS s SET epoch = s.epoch + 1, holder = 0,
        owner = coalesce(s.wanted, CASE WHEN $3::boolean THEN '' ELSE s.owner END), wanted = NULL
    FROM unnest($1::int4[], $2::int8[]) AS h (shard, epoch)
    WHERE s.shard = h.shard AND s.epoch = h.epoch";

/// $1 shards, $2 engine ("": whichever comes), $3 at once. What nobody serves needs no asking.
const MOVE: &str = "
    UPDATE interlane.shards SET
        epoch = CASE WHEN holder <> 0 AND NOT $3::boolean THEN epoch ELSE epoch + 1 END,
        owner = CASE WHEN holder <> 0 AND NOT $3::boolean THEN owner ELSE $2 END,
        wanted = CASE WHEN holder <> 0 AND NOT $3::boolean AND owner <> $2 THEN $2 END,
        holder = CASE WHEN holder <> 0 AND NOT $3::boolean THEN holder ELSE 0 END
    WHERE shard = ANY($1::int4[])";

/// A shard's server has fewer commits than it had acknowledged. $1 shard, $2 epoch, $3 those acknowledged.
const LOST: &str = "
    UPDATE interlane.shards SET epoch = epoch + 1, holder = 0, lost_from = $3::int8
    WHERE shard = $1 AND epoch = $2";

/// Takes shards that are to be declared: those that went back, and ($3: also where an engine is said to serve them)
/// others, which are as if they had gone back until that has ended. $1 instance, $2 shards.
pub(super) const TAKE_LOST: &str = "
    UPDATE interlane.shards SET epoch = epoch + 1, holder = $1::int8,
        lost_from = CASE WHEN lost_from = 0 THEN version + 1 ELSE lost_from END
    WHERE shard = ANY($2::int4[]) AND (lost_from <> 0 OR holder = 0 OR $3::boolean)
    RETURNING shard, epoch, version";

/// What is stored is the newest there is from here on, and further than any engine remembers ($4). $1 shards, $2 epochs,
/// $3 versions.
pub(super) const DECLARE: &str = "
    UPDATE interlane.shards AS s SET epoch = s.epoch + 1, holder = 0, lost_from = 0, version = $4::int8 +
        CASE WHEN s.lost_from > s.version THEN s.lost_from ELSE s.version END
    FROM unnest($1::int4[], $2::int8[], $3::int8[]) AS h (shard, epoch, version)
    WHERE s.shard = h.shard AND s.epoch = h.epoch AND s.version = h.version
    RETURNING s.shard";

/// Not prepared: a database that stands in for PostgreSQL may not know it.
pub(super) const SIZE: &str = "
    SELECT (pg_total_relation_size('interlane.rows') + pg_total_relation_size('interlane.accounts'))::int8";

/// All of them, prepared.
pub(super) struct Statements {
    pub(super) commit: Statement,
    pub(super) put: Statement,
    pub(super) delete: Statement,
    pub(super) create: Statement,
    pub(super) delete_account: Statement,
    pub(super) number: Statement,
    pub(super) load: Statement,
    pub(super) scan: Statement,
    pub(super) scan_all: Statement,
    pub(super) count: Statement,
    pub(super) accounts: Statement,
    pub(super) whose: Statement,
    pub(super) shards: Statement,
    pub(super) take: Statement,
    pub(super) confirm: Statement,
    pub(super) hand_over: Statement,
    pub(super) release: Statement,
    pub(super) moving: Statement,
    pub(super) lost: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let guarded = |rest: &str| format!("{HELD}{rest}");
        Ok(Self {
            commit: client.prepare(&guarded(COMMIT)).await?,
            put: client.prepare(PUT).await?,
            delete: client.prepare(DELETE).await?,
            create: client.prepare(&guarded(CREATE)).await?,
            delete_account: client.prepare(&guarded(DELETE_ACCOUNT)).await?,
            number: client.prepare(NUMBER).await?,
            load: client.prepare(LOAD).await?,
            scan: client.prepare(SCAN).await?,
            scan_all: client.prepare(SCAN_ALL).await?,
            count: client.prepare(COUNT).await?,
            accounts: client.prepare(ACCOUNTS).await?,
            whose: client.prepare(WHERE).await?,
            shards: client.prepare(SHARDS).await?,
            take: client.prepare(TAKE).await?,
            confirm: client.prepare(CONFIRM).await?,
            hand_over: client.prepare(HAND_OVER).await?,
            release: client.prepare(RELEASE).await?,
            moving: client.prepare(MOVE).await?,
            lost: client.prepare(LOST).await?,
        })
    }
}
