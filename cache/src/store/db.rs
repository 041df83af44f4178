//! The database: its schema, how it is opened, and transactions.
//!
//! SQLite in WAL mode, one connection a process, `synchronous=NORMAL`: a commit costs no fsync, and a power cut
//! loses the last commits but never tears one. What must outlive a power cut is committed by [`Db::write_durably`].
//! A transaction that reads and then writes begins IMMEDIATE: one that is upgraded later fails at once, whatever
//! the timeout, if somebody else wrote meanwhile.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::StoreError;
use super::layout::Layout;

/// How long a transaction waits for another process's. Transactions take milliseconds; only a stopped process
/// holds one longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// After how many pages of WAL a commit brings them into the database, with two fsyncs. A build stays below that: at its
/// end it does so if there are more than [`LARGE_WAL`] bytes.
const AUTO_CHECKPOINT: i64 = 8000;

/// A WAL of so many bytes is brought into the database when a build or a process ends: the next one would have to read it
/// (0.2 ms for so much; bringing it in takes 1.5 ms, with two fsyncs).
const LARGE_WAL: u64 = 256 << 10;

/// Each entry brings a database from version N to N + 1 (`user_version`). Entries are appended, never changed or
/// removed.
///
/// `unsynced` is a number of the one sequence in `state` for what may not have reached the disk, NULL for what has:
/// see `sync.rs`. Times are milliseconds since 1970. Digests are 32 raw bytes.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 0),
        seq INTEGER NOT NULL,       -- the last number given to `unsynced`
        boot TEXT NOT NULL          -- the boot that unsynced things were written in
    ) STRICT;
    INSERT INTO state VALUES (0, 0, '');

    CREATE TABLE blobs (
        digest BLOB PRIMARY KEY,
        size INTEGER NOT NULL,
        unsynced INTEGER,
        created_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX blobs_unsynced ON blobs (unsynced) WHERE unsynced IS NOT NULL;

    CREATE TABLE layers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        content BLOB NOT NULL,
        chain BLOB UNIQUE,          -- chain ID (OCI config.md) of a layer that came with an image
        diff_id BLOB,               -- of a layer that came with an image
        tree INTEGER NOT NULL,      -- is there layers/<id>?
        tree_size INTEGER,          -- bytes on disk, once somebody counted
        remote INTEGER NOT NULL,    -- can it be fetched again?
        unsynced INTEGER,
        created_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX layers_unsynced ON layers (unsynced) WHERE unsynced IS NOT NULL;

    CREATE TABLE layer_blobs (
        layer INTEGER NOT NULL,
        clamp INTEGER NOT NULL,     -- no file is newer than this, in seconds since 1970; the largest number: not clamped
        digest BLOB NOT NULL,
        size INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        diff_id BLOB NOT NULL,
        verified INTEGER NOT NULL,  -- was the diff ID computed here, or does a config claim it?
        PRIMARY KEY (layer, clamp, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX layer_blobs_digest ON layer_blobs (digest);
    CREATE INDEX layer_blobs_diff_id ON layer_blobs (diff_id);

    CREATE TABLE records (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        family BLOB NOT NULL,
        output BLOB NOT NULL,       -- 40 bytes a layer: ID (little endian), content digest
        parts BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL,
        unsynced INTEGER
    ) STRICT;
    CREATE INDEX records_family ON records (family, id);
    CREATE INDEX records_unsynced ON records (unsynced) WHERE unsynced IS NOT NULL;

    CREATE TABLE record_keys (
        key BLOB PRIMARY KEY,
        record INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX record_keys_record ON record_keys (record);

    CREATE TABLE images (
        name TEXT PRIMARY KEY,
        media_type TEXT NOT NULL,
        digest BLOB NOT NULL,
        size INTEGER NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE origins (
        manifest BLOB PRIMARY KEY,
        repository TEXT NOT NULL,
        created_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE mounts (
        name TEXT PRIMARY KEY,      -- of its directory
        id TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        used_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE downloads (
        url BLOB PRIMARY KEY,       -- its digest
        digest BLOB NOT NULL,
        etag TEXT,
        modified TEXT,
        fetched INTEGER NOT NULL,   -- seconds since 1970
        used_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX downloads_used ON downloads (used_ms);
",
    "
    CREATE TABLE failures (
        layer INTEGER PRIMARY KEY,  -- what the step left
        build TEXT NOT NULL,
        step INTEGER NOT NULL,      -- its number in the build
        description BLOB NOT NULL,  -- of whoever ran it; opaque to the store
        created_ms INTEGER NOT NULL,
        UNIQUE (build, step)
    ) STRICT;
",
    // Thousands of layers may have the same blob: those of commands that changed nothing.
    "
    CREATE INDEX layer_blobs_claimed ON layer_blobs (digest, diff_id) WHERE verified = 0;
",
];

/// Tries again while another process has the database for itself. SQLite's own timeout does not hold while the journal's
/// mode changes or the WAL is recovered: there it is busy at once.
fn patiently<T>(call: impl Fn() -> Result<T, rusqlite::Error>) -> Result<T, rusqlite::Error> {
    let began = Instant::now();
    loop {
        match call() {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && began.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

/// What a transaction ends with if it fails: it is rolled back.
pub(super) enum Fail {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The one connection of a process.
pub(super) struct Db {
    connection: Connection,
    path: PathBuf,
}

impl Db {
    pub(super) fn open(layout: &Layout) -> Result<Self, StoreError> {
        let path = layout.database();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> Result<(Connection, i64), rusqlite::Error> {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(64);
            // The last one to close would checkpoint, with two fsyncs, and remove the WAL for the next to make again.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            // A statement is planned once, whatever values it gets later.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            connection.pragma_update(None, "wal_autocheckpoint", AUTO_CHECKPOINT)?;
            let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((connection, version))
        };
        let (connection, version) = patiently(open).map_err(|error| open_error(&path, error))?;
        let known = MIGRATIONS.len() as i64;
        if version > known {
            return Err(StoreError::NewerFormat { path, found: version, known });
        }
        let db = Self { connection, path };
        if version < known {
            db.migrate()?;
        }
        Ok(db)
    }

    fn migrate(&self) -> Result<(), StoreError> {
        let to_wal =
            || self.connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
        let mode: String = patiently(to_wal).map_err(|error| open_error(&self.path, error))?;
        if mode != "wal" {
            return Err(StoreError::NoSharedMemory { path: self.path.clone() });
        }
        self.write("bring the tables up to date", |tx| {
            let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
            let done = usize::try_from(version).unwrap_or(0);
            for migration in MIGRATIONS.iter().skip(done) {
                tx.execute_batch(migration)?;
            }
            tx.pragma_update(None, "user_version", (done.max(MIGRATIONS.len())) as i64)?;
            Ok(())
        })
    }

    /// Reads in one snapshot.
    pub(super) fn read<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        self.transaction(action, "BEGIN", body)
    }

    /// Reads and writes, alone among all processes.
    pub(super) fn write<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        self.transaction(action, "BEGIN IMMEDIATE", body)
    }

    /// Like [`write`](Self::write); this commit and all earlier ones are on disk when it returns.
    pub(super) fn write_durably<T>(
        &self,
        action: &'static str,
        body: impl FnOnce(&Connection) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        let set = |level| {
            self.connection
                .pragma_update(None, "synchronous", level)
                .map_err(|error| self.error(action, error))
        };
        set("FULL")?;
        let result = self.write(action, body);
        set("NORMAL")?;
        result
    }

    fn transaction<T>(
        &self,
        action: &'static str,
        begin: &'static str,
        body: impl FnOnce(&Connection) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        /// Rolls back what was not committed, also if `body` panics.
        struct Open<'a>(&'a Connection);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                if !self.0.is_autocommit() {
                    let _ = self.0.execute_batch("ROLLBACK");
                }
            }
        }
        let connection = &self.connection;
        // There are dozens of transactions in a build: these statements are not parsed each time.
        let execute = |statement| connection.prepare_cached(statement)?.execute([]);
        let run = || {
            execute(begin)?;
            let _open = Open(connection);
            let value = body(connection)?;
            execute("COMMIT")?;
            Ok(value)
        };
        run().map_err(|fail| match fail {
            Fail::Sql(error) => self.error(action, error),
            Fail::Store(error) => error,
        })
    }

    /// Moves what is in the WAL into the database if it is much and nobody is in the way.
    pub(super) fn checkpoint_large(&self) {
        let wal = self.path.with_extension("db-wal");
        if !std::fs::metadata(wal).is_ok_and(|metadata| metadata.len() > LARGE_WAL) {
            return;
        }
        let quiet = |timeout| self.connection.busy_timeout(timeout);
        // Not being able to is no error: the WAL is as good.
        let _ = quiet(Duration::ZERO);
        let _ = self.connection.pragma(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()));
        let _ = quiet(BUSY_TIMEOUT);
    }

    fn error(&self, action: &'static str, source: rusqlite::Error) -> StoreError {
        StoreError::Database { action, path: self.path.clone(), source: Box::new(source) }
    }
}

fn open_error(path: &Path, error: rusqlite::Error) -> StoreError {
    const SHARED_MEMORY: [i32; 4] = [
        rusqlite::ffi::SQLITE_IOERR_SHMOPEN,
        rusqlite::ffi::SQLITE_IOERR_SHMSIZE,
        rusqlite::ffi::SQLITE_IOERR_SHMLOCK,
        rusqlite::ffi::SQLITE_IOERR_SHMMAP,
    ];
    let extended = error.sqlite_error().map(|error| error.extended_code);
    let locking = error.sqlite_error_code() == Some(ErrorCode::FileLockingProtocolFailed);
    if locking || extended.is_some_and(|code| SHARED_MEMORY.contains(&code)) {
        return StoreError::NoSharedMemory { path: path.to_owned() };
    }
    StoreError::Database { action: "open the tables", path: path.to_owned(), source: Box::new(error) }
}

/// The next number for `unsynced`. Only inside a transaction that writes.
pub(super) fn next_seq(tx: &Connection) -> Result<i64, rusqlite::Error> {
    tx.prepare_cached("UPDATE state SET seq = seq + 1 RETURNING seq")?.query_one([], |row| row.get(0))
}
