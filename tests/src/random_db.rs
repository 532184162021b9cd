//! Databases that nobody would think of: types, values, constraints, partitions and names drawn from a
//! seed. The same seed makes the same database on every machine, so a failure is told by its seed alone.
//!
//! What is made is always valid: SQL that the server refuses is a defect of this module.

mod dice;
mod kinds;
mod names;
mod tables;

use std::fmt::Write as _;

use dice::Dice;
use kinds::Kind;
use names::Names;
use tables::Table;

use crate::pg::quote_literal;

/// What makes the roles that own and may do things in such databases, for any database of the cluster.
#[must_use]
pub fn roles_sql() -> &'static str {
    "DO $$
     DECLARE role text;
     BEGIN
       FOREACH role IN ARRAY ARRAY['random_owner', 'random \"reader\"'] LOOP
         BEGIN
           EXECUTE format('CREATE ROLE %I', role);
         EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
         END;
       END LOOP;
     END $$;"
}

/// SQL that fills an empty database of `major`; it needs a superuser and [`roles_sql`].
#[must_use]
pub fn sql(seed: u64, major: u16) -> String {
    let mut maker = Maker::new(seed, major);
    maker.schemas();
    maker.types();
    maker.sequences();
    maker.functions();
    let count = maker.dice.between(3, 9);
    for _ in 0..count {
        tables::create(&mut maker);
    }
    maker.references();
    maker.views();
    maker.large_objects();
    for table in maker.tables.clone() {
        tables::finish(&mut maker, &table);
    }
    maker.refresh();
    maker.sql
}

/// What is made so far.
#[derive(Debug)]
struct Maker {
    dice: Dice,
    names: Names,
    major: u16,
    sql: String,
    schemas: Vec<String>,
    kinds: Vec<Kind>,
    tables: Vec<Table>,
    matviews: Vec<String>,
    sequences: Vec<String>,
    /// A trigger function that changes nothing.
    trigger: String,
    /// An immutable function from text to text.
    function: String,
}

impl Maker {
    fn new(seed: u64, major: u16) -> Self {
        Self {
            dice: Dice::new(seed),
            names: Names::default(),
            major,
            sql: String::from("SET client_encoding = 'UTF8';\nSET xmloption = content;\n"),
            schemas: vec!["public".to_owned()],
            kinds: Vec::new(),
            tables: Vec::new(),
            matviews: Vec::new(),
            sequences: Vec::new(),
            trigger: String::new(),
            function: String::new(),
        }
    }

    /// Adds a statement.
    fn add(&mut self, statement: &str) {
        writeln!(self.sql, "{statement};").expect("text takes text");
    }

    /// Adds it once in so many times.
    fn sometimes(&mut self, sides: usize, statement: &str) {
        if self.dice.once_in(sides) {
            self.add(statement);
        }
    }

    fn name(&mut self) -> String {
        self.names.fresh(&mut self.dice)
    }

    /// A new name in one of the schemas.
    fn qualified(&mut self) -> String {
        let schema = self.schemas[self.dice.below(self.schemas.len())].clone();
        format!("{schema}.{}", self.name())
    }

    fn comment(&mut self, on: &str) {
        let text = Kind::Scalar("text").literal(&mut self.dice);
        self.sometimes(4, &format!("COMMENT ON {on} IS {}", comment_of(&text)));
    }

    fn schemas(&mut self) {
        for _ in 0..self.dice.below(3) {
            let schema = self.name();
            let owner = self.dice.one_of(&["", " AUTHORIZATION random_owner"]);
            self.add(&format!("CREATE SCHEMA {schema}{owner}"));
            self.comment(&format!("SCHEMA {schema}"));
            self.sometimes(
                3,
                &format!("GRANT USAGE ON SCHEMA {schema} TO \"random \"\"reader\"\"\""),
            );
            self.sometimes(
                4,
                &format!("ALTER DEFAULT PRIVILEGES FOR ROLE random_owner IN SCHEMA {schema} GRANT SELECT ON TABLES TO PUBLIC"),
            );
            self.schemas.push(schema);
        }
    }

    /// A type for a column.
    fn kind(&mut self) -> Kind {
        let kind = if self.kinds.is_empty() || !self.dice.once_in(3) {
            Kind::scalar(&mut self.dice)
        } else {
            self.kinds[self.dice.below(self.kinds.len())].clone()
        };
        // A domain has its own checks, which hold in arrays too.
        let wrapped = self.dice.once_in(6) && !matches!(kind, Kind::Array(_));
        if wrapped {
            Kind::Array(Box::new(kind))
        } else {
            kind
        }
    }

    fn types(&mut self) {
        let (days, several) = (self.dice.once_in(2), self.dice.once_in(2));
        for (days, many, name) in [
            (false, false, "int4range"),
            (days, false, "daterange"),
            (false, several, "nummultirange"),
        ] {
            let name = if days || name != "daterange" {
                name
            } else {
                "int8range"
            };
            let many = many || name == "nummultirange";
            let name = name.to_owned();
            self.kinds.push(Kind::Range { name, days, many });
        }
        for _ in 0..self.dice.between(1, 3) {
            self.one_enum();
        }
        for _ in 0..self.dice.between(1, 4) {
            let name = self.qualified();
            if self.dice.once_in(2) {
                self.one_domain(name);
            } else {
                self.one_row_type(name);
            }
        }
        if self.dice.once_in(2) {
            let name = self.qualified();
            self.add(&format!("CREATE TYPE {name} AS RANGE (subtype = int8)"));
            self.kinds.push(Kind::Range {
                name,
                days: false,
                many: false,
            });
        }
    }

    fn one_enum(&mut self) {
        let name = self.qualified();
        let count = self.dice.between(1, 6);
        let labels: Vec<String> = (0..count).map(|n| format!("label {n} '\"\\ 列")).collect();
        let quoted: Vec<_> = labels.iter().map(|label| quote_literal(label)).collect();
        self.add(&format!(
            "CREATE TYPE {name} AS ENUM ({})",
            quoted.join(", ")
        ));
        let more = "added, in between";
        if self.dice.once_in(2) {
            self.add(&format!(
                "ALTER TYPE {name} ADD VALUE {} BEFORE {}",
                quote_literal(more),
                quoted[0]
            ));
        }
        self.comment(&format!("TYPE {name}"));
        self.kinds.push(Kind::Chosen(name, labels));
    }

    fn one_domain(&mut self, name: String) {
        let over = Kind::Scalar(self.dice.one_of(&[
            "text",
            "integer",
            "numeric",
            "timestamptz",
            "jsonb",
            "bytea",
        ]));
        let check = self.name();
        let mut sql = format!("CREATE DOMAIN {name} AS {}", over.sql());
        if self.dice.once_in(3) {
            write!(sql, " DEFAULT {}", over.literal(&mut self.dice)).expect("text takes text");
        }
        self.add(&format!(
            "{sql} CONSTRAINT {check} CHECK (VALUE IS NULL OR VALUE::text <> 'forbidden')"
        ));
        self.kinds.push(Kind::Domain(name, Box::new(over)));
    }

    fn one_row_type(&mut self, name: String) {
        let fields: Vec<Kind> = (0..self.dice.between(1, 4)).map(|_| self.kind()).collect();
        let mut columns = Vec::new();
        for kind in &fields {
            columns.push(format!("{} {}", self.name(), kind.sql()));
        }
        self.add(&format!("CREATE TYPE {name} AS ({})", columns.join(", ")));
        self.kinds.push(Kind::Row(name, fields));
    }

    fn sequences(&mut self) {
        for _ in 0..self.dice.below(4) {
            let name = self.qualified();
            let options = self.dice.one_of(&[
                "",
                " AS smallint START 7",
                " INCREMENT -5 MINVALUE -1000 MAXVALUE 100 START 100 CYCLE",
                " CACHE 10 START 1000000000000",
            ]);
            self.add(&format!("CREATE SEQUENCE {name}{options}"));
            self.sometimes(
                2,
                &format!(
                    "DO $do$ BEGIN PERFORM nextval({}) FROM generate_series(1, 9); END $do$",
                    quote_literal(&name)
                ),
            );
            self.comment(&format!("SEQUENCE {name}"));
            self.sequences.push(name);
        }
    }

    fn functions(&mut self) {
        self.trigger = self.qualified();
        self.function = self.qualified();
        let (trigger, function) = (self.trigger.clone(), self.function.clone());
        self.add(&format!(
            "CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN RETURN NEW; -- ; '\nEND $body$"
        ));
        self.add(&format!(
            "CREATE FUNCTION {function}(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT pg_catalog.upper($1)'"
        ));
        self.comment(&format!("FUNCTION {function}(text)"));
        self.sometimes(
            3,
            &format!("REVOKE ALL ON FUNCTION {function}(text) FROM PUBLIC"),
        );
        self.sometimes(
            3,
            &format!("ALTER FUNCTION {trigger}() OWNER TO random_owner"),
        );
    }

    /// Foreign keys between any tables, in circles too, now that all rows are there.
    fn references(&mut self) {
        for from in self.tables.clone() {
            for column in &from.references {
                let Some(to) = tables::referenced(self, column) else {
                    continue;
                };
                if to.unlogged && !from.unlogged {
                    continue;
                }
                let name = self.name();
                let more = self.dice.one_of(&[
                    "",
                    " DEFERRABLE INITIALLY DEFERRED",
                    " ON DELETE CASCADE",
                    " ON DELETE SET NULL ON UPDATE CASCADE",
                    " MATCH FULL DEFERRABLE",
                ]);
                // A partitioned table takes none that is not valid.
                let unchecked = if !from.partitioned && self.dice.once_in(5) {
                    " NOT VALID"
                } else {
                    ""
                };
                self.add(&format!(
                    "ALTER TABLE {} ADD CONSTRAINT {name} FOREIGN KEY ({}) REFERENCES {} ({}){more}{unchecked}",
                    from.name, column.name, to.name, to.key
                ));
            }
        }
    }

    fn views(&mut self) {
        let mut below = Vec::new();
        for table in self.tables.clone() {
            if self.dice.once_in(2) {
                let view = self.qualified();
                let how = self.dice.one_of(&["", " WITH (security_barrier)"]);
                self.add(&format!(
                    "CREATE VIEW {view}{how} AS SELECT {key} FROM {name} WHERE {key} IS NOT NULL",
                    key = table.key,
                    name = table.name
                ));
                self.comment(&format!("VIEW {view}"));
                self.sometimes(4, &format!("GRANT SELECT ON {view} TO PUBLIC"));
                below.push((view, table.key.clone()));
            }
        }
        for (view, key) in below {
            if self.dice.once_in(2) {
                let name = self.qualified();
                self.add(&format!(
                    "CREATE MATERIALIZED VIEW {name} AS SELECT count(*) AS n, min({key}::text COLLATE \"C\") AS least FROM {view} WITH NO DATA"
                ));
                self.matviews.push(name);
            }
        }
    }

    fn large_objects(&mut self) {
        for number in 0..self.dice.below(4) {
            let oid = 70_000 + number;
            let content =
                self.dice
                    .one_of(&["''", "'\\x00ff'", "decode(repeat('deadbeef', 3000), 'hex')"]);
            self.add(&format!(
                "DO $do$ BEGIN PERFORM lo_from_bytea({oid}, {content}); END $do$"
            ));
            self.comment(&format!("LARGE OBJECT {oid}"));
            self.sometimes(
                2,
                &format!("ALTER LARGE OBJECT {oid} OWNER TO random_owner"),
            );
        }
    }

    /// Others stay as they are: never filled.
    fn refresh(&mut self) {
        for name in self.matviews.clone() {
            self.sometimes(2, &format!("REFRESH MATERIALIZED VIEW {name}"));
        }
    }
}

/// A literal without its type, which comments do not take.
fn comment_of(literal: &str) -> &str {
    literal.strip_suffix("::text").unwrap_or(literal)
}
