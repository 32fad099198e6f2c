// The tables of `sessions.db`.
//
// A migration that was ever released is never edited, renamed or moved: a database remembers by name which ones it has.
// A change is one more entry at the end. Responders of two versions run side by side during an update, so a migration
// keeps what the version before it reads; the older one refuses a database that has migrations it does not know.
//
// Documents come last in a row: SQLite puts what does not fit on the row's page into a chain of others, and columns
// before them are read without following it.

internal import GRDB

/// The history of the schema of `sessions.db`.
enum SessionSchema {
    /// One step of the history.
    struct Migration: Sendable {
        /// What a database remembers it by; begins with its number.
        let name: String
        /// Statements that run in one transaction.
        let sql: String
    }

    /// Every step, oldest first; append only.
    static let migrations: [Migration] = [
        Migration(
            name: "001 responses",
            sql: """
                CREATE TABLE response (
                    id TEXT NOT NULL PRIMARY KEY,
                    owner TEXT NOT NULL,
                    state TEXT NOT NULL,
                    previous_id TEXT,
                    created INTEGER NOT NULL,
                    last_used INTEGER NOT NULL,
                    runner_pid INTEGER,
                    runner_start_time INTEGER,
                    cancel_requested INTEGER NOT NULL,
                    response TEXT NOT NULL,
                    input TEXT NOT NULL,
                    conversation TEXT NOT NULL
                ) STRICT;
                CREATE INDEX response_by_owner ON response (owner, last_used);
                CREATE INDEX response_by_use ON response (last_used);
                CREATE INDEX response_by_runner ON response (runner_pid) WHERE runner_pid IS NOT NULL;
                """),
        // `begun` is 1 until the first turn is whole, and then `turns` is not 0. It is a column of its own because an
        // index with `turns > 0` as its condition counts no rows without reading each.
        Migration(
            name: "002 sessions and runs",
            sql: """
                CREATE TABLE session (
                    id TEXT NOT NULL PRIMARY KEY,
                    owner TEXT NOT NULL,
                    begun INTEGER NOT NULL,
                    cli_session_id TEXT NOT NULL,
                    title TEXT,
                    working_directory TEXT NOT NULL,
                    owns_directory INTEGER NOT NULL,
                    model TEXT NOT NULL,
                    profile TEXT NOT NULL,
                    transcript_bytes INTEGER NOT NULL,
                    turns INTEGER NOT NULL,
                    input_tokens INTEGER NOT NULL,
                    output_tokens INTEGER NOT NULL,
                    cache_read_tokens INTEGER NOT NULL,
                    cache_creation_tokens INTEGER NOT NULL,
                    cost_usd REAL NOT NULL,
                    created INTEGER NOT NULL,
                    last_used INTEGER NOT NULL,
                    settings TEXT NOT NULL,
                    conversation TEXT
                ) STRICT;
                CREATE INDEX session_by_owner ON session (owner, begun, created);
                CREATE INDEX session_by_creation ON session (begun, created);
                CREATE INDEX session_by_use ON session (begun, last_used);
                CREATE INDEX session_by_cli_session ON session (cli_session_id) WHERE cli_session_id <> '';
                CREATE TABLE run (
                    id TEXT NOT NULL PRIMARY KEY,
                    owner TEXT NOT NULL,
                    session_id TEXT,
                    state TEXT NOT NULL,
                    created INTEGER NOT NULL,
                    last_used INTEGER NOT NULL,
                    runner_pid INTEGER,
                    runner_start_time INTEGER,
                    cancel_requested INTEGER NOT NULL,
                    progress TEXT NOT NULL,
                    result TEXT,
                    error TEXT
                ) STRICT;
                CREATE INDEX run_by_use ON run (last_used);
                CREATE INDEX run_by_runner ON run (runner_pid) WHERE runner_pid IS NOT NULL;
                CREATE TABLE maintenance (
                    task TEXT NOT NULL PRIMARY KEY,
                    last INTEGER NOT NULL
                ) STRICT;
                """),
    ]

    /// Another process did this step between our look and our transaction.
    private struct AlreadyApplied: Error {}

    /// The database has steps that this version does not know.
    struct Superseded: Error {}

    /// Brings the schema up to date, or finds it so; several processes may do it at once.
    static func migrate(_ pool: DatabasePool) throws {
        var migrator = DatabaseMigrator()
        for migration in migrations {
            migrator.registerMigration(migration.name) { db in
                // The migrator reads what is applied before it takes the write lock.
                let names = try String.fetchSet(db, sql: "SELECT identifier FROM grdb_migrations")
                guard !names.contains(migration.name) else { throw AlreadyApplied() }
                try db.execute(sql: migration.sql)
            }
        }
        while true {
            let isDone = try pool.writeWithoutTransaction { db in
                // The migrator would take a table that another process makes right now for one that can't be read.
                let hasNames = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'grdb_migrations')"
                guard try Bool.fetchOne(db, sql: hasNames) == true else { return false }
                guard try !migrator.hasBeenSuperseded(db) else { throw Superseded() }
                return try migrator.hasCompletedMigrations(db)
            }
            if isDone { return }
            do { try migrator.migrate(pool) } catch is AlreadyApplied {}
        }
    }
}
