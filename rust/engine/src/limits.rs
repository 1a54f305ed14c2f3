//! Every limit of the engine, each with its reason. A loop that input can lengthen ends at one of these.

use std::time::Duration;

/// How far a counter (or a sender-key iteration) may run ahead of the next expected one. The v3 family's value;
/// one deployed receiver allows a single step less, so a *sender* must not skip more than [`MAX_SENDER_SKIP`].
pub const MAX_FORWARD_JUMP: u32 = 2_000;

/// Most counters that we skip by our own will: below every deployed receiver's [`MAX_FORWARD_JUMP`].
pub const MAX_SENDER_SKIP: u32 = 1_900;

/// Counters that a leased chain is ahead of at least, where the lease allows: most chains of a conversation send a few
/// messages before the answer turns the ratchet.
pub const LEAST_SPAN: u32 = 8;

/// Skipped message keys kept for each receiving chain or sender-key state; the oldest is evicted. As deployed: a
/// chain can be jumped over once in whole, and a hostile peer costs at most 2,000 × 36 bytes a chain.
pub const MAX_SKIPPED_KEYS: usize = 2_000;

/// Receiving chains of a session, the newest included; the oldest is evicted. As deployed.
pub const MAX_RECEIVING_CHAINS: usize = 5;

/// Sessions kept beside the current one for a peer; the oldest is evicted. As deployed. It also bounds the attempts
/// that one damaged frame can cost: 41.
pub const MAX_ARCHIVED_SESSIONS: usize = 40;

/// Chain steps that one frame can cost on archived sessions, all of them together: four whole jumps. Without it a
/// forged frame with a new ratchet key and a far counter would cost a jump on each of 41 sessions. A frame that is
/// up to 200 ahead is tried on all of them.
pub const MAX_ARCHIVED_STEPS: u32 = 8_000;

/// States kept for one sender in one group: late frames of a key that was just rotated still open. As deployed.
pub const MAX_SENDER_KEY_STATES: usize = 5;

/// Rows of one call. Ten times the largest batch in use; row numbers fit 32 bits, and a call's buffers stay in
/// memory.
pub const MAX_ROWS: usize = 10_000_000;

/// Memory that is kept from call to call, for all engines together: three times what a call of 10,000 rows of 256 bytes
/// takes. Larger calls ask the system each time.
pub const MAX_KEPT_MEMORY: usize = 32 << 20;

/// Smaller pieces of memory are the allocator's, which does not give these back to the system.
pub const MIN_KEPT_MEMORY: usize = 64 << 10;

/// Bytes of one plaintext. WhatsApp's transport frame ends below 2^24; what is around a message takes under 1 KiB.
pub const MAX_PLAINTEXT: usize = (1 << 24) - 1_024;

/// Bytes of one frame that is parsed at all: the transport's own limit.
pub const MAX_FRAME: usize = 1 << 24;

/// Fields read of one protobuf message. Ours have six; a frame of empty unknown fields must not keep us busy.
pub const MAX_FIELDS: usize = 64;

/// Key ids are 24-bit on WhatsApp's wire and never 0: id 0 means different things to different peers.
pub const MAX_KEY_ID: u32 = (1 << 24) - 1;

/// One-time prekeys made in one call. The usual stock is 812; the id space is 2^24.
pub const MAX_PREKEYS_A_CALL: u32 = 65_536;

/// Unused one-time prekeys below which a row reports [`crate::Events::STOCK_LOW`]: deployed clients top up below 5.
pub const LOW_STOCK: u32 = 5;

/// Signed prekeys kept for an account. With weekly rotation, three times the 30 days that a message for an offline
/// client can wait; the 30 days themselves are kept by time, see [`KEEP_SIGNED_PREKEYS_SECONDS`].
pub const MAX_SIGNED_PREKEYS: usize = 64;

/// A replaced signed prekey's private half stays this long: WhatsApp keeps ciphertext for an offline client 30 days.
pub const KEEP_SIGNED_PREKEYS_SECONDS: u64 = 30 * 24 * 3_600;

/// Bytes of a name (account, peer, group). Addresses on the wire stay below 100.
pub const MAX_NAME: usize = 512;

/// What a row of the receive buffer is counted with beside its plaintext: so that a million empty messages are not free.
pub const BUFFERED_ROW_BYTES: u64 = 128;

/// Bytes of an account's receive buffer where none are given: a gateway acknowledges within a batch or two, so this is
/// some 100,000 messages of an owner who does not.
pub const BUFFER_BYTES: u64 = 64 << 20;

/// Least bytes of a receive buffer: a smaller one would refuse the longest frame for ever.
pub const LEAST_BUFFER_BYTES: u64 = 2 * MAX_FRAME as u64;

/// Seconds that a row stays in the receive buffer where none are given: WhatsApp delivers a frame again for 30 days.
pub const BUFFER_SECONDS: u64 = 30 * 24 * 3_600;

/// Received frames of an account that are kept in one row of the store, a tile of them: what a row costs is shared out, and
/// where single frames of it are acknowledged one after the other, it is written anew each time.
pub const LOT_FRAMES: usize = 32;

/// Bytes of such a row, where it has more than one frame: as many as the seeds of [`LOT_FRAMES`] take twice.
pub const LOT_BYTES: usize = 4_096;

/// Rows of receive buffers that may wait for the next commit, because something in them was acknowledged, 24 bytes each;
/// more are written by a commit of their own.
pub const MAX_PENDING_ACKS: usize = 65_536;

/// Bytes of batches that a store on disk appends before it begins to fold them into its table of rows. Appending
/// costs under 1 µs a row, folding 1 to 4 µs, but a row that changes often is folded once: so the more the better,
/// against the time to replay them when the store is opened (about 0.1 s for this many) and as much memory.
pub const JOURNAL_BYTES: u64 = 48 << 20;

/// Bytes of SQLite's write-ahead log before it is copied back into the database: two more fsyncs each time, so well
/// over the 4 MiB of the default; a log that grew beyond this is cut back to it.
pub const WAL_BYTES: u32 = 16 << 20;

/// Bytes of the write-ahead log beyond which it is copied back, and of the journal beyond which it is begun anew, although
/// somebody copies the store: the gateway's disk comes before a copier that has stopped.
pub const COPIED_LOG_BYTES: u64 = 8 << 30;

/// Bytes of a store's file up to which it is written anew, if that makes it smaller, when it is closed: some two million
/// sessions, and seconds. Whoever stops a larger gateway does not wait for that.
pub const COMPACTED_BYTES: u64 = 1 << 30;

/// A shared store is asked no more often than this whether accounts of other engines have come here. It is how long an
/// account that moves can be nobody's, and one query for all.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long an engine sends within its leases on a shared store before it asks whether its shards are still its own:
/// so late it hears that it was replaced, while the keys of its leases are nobody else's in any case. Each time costs one
/// statement that waits for the standby.
pub const HOLD_CONFIRMED: Duration = Duration::from_secs(1);

/// Shards of a shared store, so also the most engines that can serve it at once: far above what one database feeds.
/// A batch touches the row of every shard that it has accounts of, so more would cost what few gateways need.
pub const SHARDS: u32 = 64;

/// Bytes of an engine's name.
pub const MAX_ENGINE_NAME: usize = 100;

/// Rows and bytes of one statement; a batch that needs more takes several, in one transaction. PostgreSQL refuses
/// values over 10^9 bytes, and both ends hold a statement in memory.
pub const STATEMENT_ROWS: usize = 20_000;
/// See [`STATEMENT_ROWS`].
pub const STATEMENT_BYTES: usize = 32 << 20;

/// How long a connection may take to be made, to each host. A host that is gone does not say so.
pub const STORE_CONNECT: Duration = Duration::from_secs(2);

/// How long a statement is waited for before its rows end as BUSY: above any honest commit, and what a caller may have
/// to wait while a standby is missing.
pub const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// The same for what is as long as an account is large: deleting it.
pub const STORE_LONG_PATIENCE: Duration = Duration::from_secs(600);

/// The pause after the first failure to connect; it doubles with every one, and half of it is random.
pub const STORE_RETRY: Duration = Duration::from_millis(50);

/// The longest pause: a server that came back is noticed this late.
pub const STORE_RETRY_MOST: Duration = Duration::from_secs(2);
