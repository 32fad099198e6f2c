import GRDB
import Testing

@testable import Sessions

@Suite struct SessionSchemaTests {
    /// A released name stays where it is; a new one goes to the end.
    static let released = ["001 responses", "002 sessions and runs"]

    @Test func `migrations are only ever appended`() {
        #expect(SessionSchema.migrations.map(\.name) == Self.released)
    }

    @Test func `the tables are what the code expects`() throws {
        let bench = try StoreBench()
        _ = try bench.store()
        let schema = try bench.stranger().read { db in
            try String.fetchAll(
                db,
                sql: """
                    SELECT m.name || '.' || c.name || ' ' || c.type || iif(c."notnull", ' not null', '')
                        || iif(c.pk, ' key', '')
                    FROM sqlite_schema AS m, pragma_table_info(m.name) AS c
                    WHERE m.type = 'table' ORDER BY m.name, c.cid
                    """)
        }
        #expect(
            schema == [
                "grdb_migrations.identifier TEXT not null key",
                "maintenance.task TEXT not null key",
                "maintenance.last INTEGER not null",
                "response.id TEXT not null key",
                "response.owner TEXT not null",
                "response.state TEXT not null",
                "response.previous_id TEXT",
                "response.created INTEGER not null",
                "response.last_used INTEGER not null",
                "response.runner_pid INTEGER",
                "response.runner_start_time INTEGER",
                "response.cancel_requested INTEGER not null",
                "response.response TEXT not null",
                "response.input TEXT not null",
                "response.conversation TEXT not null",
                "run.id TEXT not null key",
                "run.owner TEXT not null",
                "run.session_id TEXT",
                "run.state TEXT not null",
                "run.created INTEGER not null",
                "run.last_used INTEGER not null",
                "run.runner_pid INTEGER",
                "run.runner_start_time INTEGER",
                "run.cancel_requested INTEGER not null",
                "run.progress TEXT not null",
                "run.result TEXT",
                "run.error TEXT",
                "session.id TEXT not null key",
                "session.owner TEXT not null",
                "session.begun INTEGER not null",
                "session.cli_session_id TEXT not null",
                "session.title TEXT",
                "session.working_directory TEXT not null",
                "session.owns_directory INTEGER not null",
                "session.model TEXT not null",
                "session.profile TEXT not null",
                "session.transcript_bytes INTEGER not null",
                "session.turns INTEGER not null",
                "session.input_tokens INTEGER not null",
                "session.output_tokens INTEGER not null",
                "session.cache_read_tokens INTEGER not null",
                "session.cache_creation_tokens INTEGER not null",
                "session.cost_usd REAL not null",
                "session.created INTEGER not null",
                "session.last_used INTEGER not null",
                "session.settings TEXT not null",
                "session.conversation TEXT",
            ])
    }

    @Test(arguments: [
        ("SELECT id FROM response WHERE owner = 'a' AND runner_pid IS NULL ORDER BY last_used, rowid", "by_owner"),
        ("SELECT count(*) FROM response WHERE owner = 'a'", "COVERING INDEX response_by_owner"),
        ("SELECT id FROM response WHERE last_used < 5 AND runner_pid IS NULL ORDER BY last_used", "by_use"),
        ("SELECT id FROM response WHERE runner_pid IS NOT NULL", "by_runner"),
        ("SELECT id FROM run WHERE runner_pid IS NOT NULL", "run_by_runner"),
        ("SELECT id FROM run WHERE last_used < 5 AND runner_pid IS NULL ORDER BY last_used", "run_by_use"),
        ("SELECT 1 FROM session WHERE owner = 'a' LIMIT 9", "COVERING INDEX session_by_owner"),
        ("SELECT count(*) FROM session WHERE begun = 0", "COVERING INDEX session_by_"),
        ("SELECT count(*) FROM session WHERE begun = 0 AND owner = 'a'", "COVERING INDEX session_by_owner"),
        ("SELECT id FROM session WHERE begun = 0 AND last_used < 5 ORDER BY last_used LIMIT 1", "session_by_use"),
        ("SELECT id FROM session WHERE begun = 1 AND created < 5 ORDER BY created LIMIT 1", "session_by_creation"),
        ("SELECT 1 FROM session WHERE cli_session_id = 'c' AND cli_session_id <> ''", "session_by_cli_session"),
    ])
    func `what is asked often is found by an index and not sorted`(sql: String, index: String) throws {
        let plan = try plan(sql)
        #expect(plan.count == 1 && plan.first?.contains(index) == true, "\(plan)")
    }

    @Test(arguments: [true, false], [true, false])
    func `a page of sessions is read in the order of an index`(ofOwner: Bool, isFirst: Bool) throws {
        var arguments: StatementArguments = ["limit": 10]
        if ofOwner { arguments += ["owner": "a"] }
        if !isFirst { arguments += ["created": 1, "number": 2] }
        let plan = try plan(SessionStore.page(ofOwner: ofOwner, isFirst: isFirst), arguments)
        let index = ofOwner ? "session_by_owner (owner=? AND begun=?" : "session_by_creation (begun=?"
        #expect(plan.count == 1 && plan.first?.contains(index) == true, "\(plan)")
        #expect(plan.first?.contains("created<") == !isFirst, "\(plan)")
    }

    private func plan(_ sql: String, _ arguments: StatementArguments = []) throws -> [String] {
        let bench = try StoreBench()
        _ = try bench.store()
        return try bench.stranger().read { db in
            try Row.fetchAll(db, sql: "EXPLAIN QUERY PLAN " + sql, arguments: arguments).map { $0["detail"] }
        }
    }

    @Test func `the database of the version before keeps its responses`() throws {
        let bench = try StoreBench()
        let first = SessionSchema.migrations[0]
        try bench.stranger().write { db in
            try db.execute(sql: first.sql)
            try db.execute(
                sql: """
                    CREATE TABLE grdb_migrations (identifier TEXT NOT NULL PRIMARY KEY);
                    INSERT INTO response VALUES ('resp_1', 'alice', 'completed', NULL, 1, 2, NULL, NULL, 0, '{}', '[]', '[]');
                    """)
            try db.execute(sql: "INSERT INTO grdb_migrations VALUES (?)", arguments: [first.name])
        }
        let database = try SessionDatabase(path: bench.path)
        let found = try ResponseStore(database: database).read(id: "resp_1", owner: "alice", now: 2)
        #expect(found?.state == .completed && found?.response == "{}")
        #expect(try SessionStore(database: database).count(owner: nil) == 0)
    }

    @Test func `a migrated database keeps its rows when it is opened again`() throws {
        let bench = try StoreBench()
        try bench.store().insert(.sample())
        #expect(try bench.store().count(owner: "alice") == 1)
        let names = try bench.stranger().read { db in
            try String.fetchAll(db, sql: "SELECT identifier FROM grdb_migrations ORDER BY identifier")
        }
        #expect(names == Self.released)
    }

    @Test func `a newer version's database is refused`() throws {
        let bench = try StoreBench()
        try bench.store().insert(.sample())
        try bench.stranger().write { db in
            try db.execute(sql: "INSERT INTO grdb_migrations VALUES ('999 of tomorrow')")
        }
        #expect(bench.refusal() == .newerSchema(path: bench.path))
        #expect("\(SessionStoreError.newerSchema(path: "/x"))".contains("Update every responder"))
    }
}
