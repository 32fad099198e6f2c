import GRDB
import Testing

@testable import Sessions

@Suite struct SessionSchemaTests {
    /// A released name stays where it is; a new one goes to the end.
    static let released = ["001 responses"]

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
            ])
    }

    @Test(arguments: [
        ("SELECT id FROM response WHERE owner = 'a' AND runner_pid IS NULL ORDER BY last_used, rowid", "by_owner"),
        ("SELECT count(*) FROM response WHERE owner = 'a'", "COVERING INDEX response_by_owner"),
        ("SELECT id FROM response WHERE last_used < 5 AND runner_pid IS NULL ORDER BY last_used", "by_use"),
        ("SELECT id FROM response WHERE runner_pid IS NOT NULL", "by_runner"),
    ])
    func `what is asked often is found by an index and not sorted`(sql: String, index: String) throws {
        let bench = try StoreBench()
        _ = try bench.store()
        let plan = try bench.stranger().read { db in
            try Row.fetchAll(db, sql: "EXPLAIN QUERY PLAN " + sql).map { row -> String in row["detail"] }
        }
        #expect(plan.count == 1 && plan.first?.contains(index) == true, "\(plan)")
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
