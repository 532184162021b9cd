//! What belongs to a database and not to its content: owner, grants, settings, connection limit.
//! `pg_dump` leaves it out without `--create`, and a database that is renamed takes it along.

mod setting;

use serde::Deserialize;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use crate::{DatabaseGrant, DatabaseSetting, Error, quote_ident};
use setting::{quote_setting, setting_value};

/// As [`Properties::read`] wants it; grants that nobody changed are written out.
const PROPERTIES: &str = "
SELECT jsonb_build_object(
  'owner', pg_get_userbyid(d.datdba),
  'connection_limit', d.datconnlimit,
  'grants', (SELECT jsonb_agg(jsonb_build_object(
       'grantee', CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee) END,
       'grantor', pg_get_userbyid(a.grantor),
       'privilege', a.privilege_type, 'grantable', a.is_grantable))
     FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a),
  'settings', (SELECT jsonb_agg(jsonb_build_object(
       'role', r.rolname, 'name', split_part(setting, '=', 1),
       'value', substr(setting, strpos(setting, '=') + 1)))
     FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole,
          unnest(s.setconfig) AS setting
     WHERE s.setdatabase = d.oid)
)::text FROM pg_database d WHERE d.datname = $1";

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    owner: String,
    connection_limit: i32,
    grants: Vec<Grant>,
    settings: Vec<DatabaseSetting>,
}

/// A grant whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    grantee: Option<String>,
    privilege: String,
    grantable: bool,
}

impl Properties {
    /// Reads those of a database.
    pub(crate) async fn read(connection: &mut PgConnection, database: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Answer {
            owner: String,
            connection_limit: i32,
            grants: Option<Vec<DatabaseGrant>>,
            settings: Option<Vec<DatabaseSetting>>,
        }
        let failed = || Error::query(format!("read the properties of database {database:?}"));
        let json: String = sqlx::query_scalar(PROPERTIES)
            .bind(database)
            .fetch_one(connection)
            .await
            .map_err(failed())?;
        let answer: Answer =
            serde_json::from_str(&json).map_err(|e| failed()(sqlx::Error::Decode(e.into())))?;
        let grants = answer.grants.unwrap_or_default().into_iter();
        let mut grants: Vec<_> = grants
            .map(|grant| Grant {
                grantee: grant.grantee,
                privilege: grant.privilege,
                grantable: grant.grantable,
            })
            .collect();
        // One role may have the same from several others; the strongest counts.
        grants.sort();
        grants.dedup_by(|stronger, weaker| {
            let same =
                (&stronger.grantee, &stronger.privilege) == (&weaker.grantee, &weaker.privilege);
            weaker.grantable |= same && stronger.grantable;
            same
        });
        let mut settings = answer.settings.unwrap_or_default();
        settings.sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name)));
        Ok(Self {
            owner: answer.owner,
            connection_limit: answer.connection_limit,
            grants,
            settings,
        })
    }

    /// The statement that gives a database with the properties `found` the owner. It has to come
    /// first: the owner's own grants go with the ownership.
    pub(crate) fn owner_statement(&self, database: &str, found: &Self) -> Vec<String> {
        if self.owner == found.owner {
            return Vec::new();
        }
        let (name, owner) = (quote_ident(database), quote_ident(&self.owner));
        vec![format!("ALTER DATABASE {name} OWNER TO {owner}")]
    }

    /// The statements that make a database with the properties `found` have these.
    pub(crate) fn statements(&self, database: &str, found: &Self) -> Vec<String> {
        let name = quote_ident(database);
        let mut statements = Vec::new();
        for old in found.grants.iter().filter(|g| !self.grants.contains(g)) {
            let (privilege, grantee) = (&old.privilege, grantee(old.grantee.as_deref()));
            statements.push(format!(
                "REVOKE {privilege} ON DATABASE {name} FROM {grantee} CASCADE"
            ));
        }
        for new in self.grants.iter().filter(|g| !found.grants.contains(g)) {
            let (role, privilege) = (new.grantee.as_deref(), &new.privilege);
            statements.extend(grant_statement(database, role, privilege, new.grantable));
        }
        for old in &found.settings {
            let same = |new: &&DatabaseSetting| new.role == old.role && new.name == old.name;
            if !self.settings.iter().any(|new| same(&new)) {
                let scope = setting_scope(database, old.role.as_deref());
                let setting = quote_setting(&old.name);
                statements.push(format!("ALTER {scope} RESET {setting}"));
            }
        }
        let settings = self.settings.iter();
        let changed = settings.filter(|new| !found.settings.contains(new));
        statements.extend(changed.map(|setting| setting_statement(database, setting)));
        if self.connection_limit != found.connection_limit {
            statements.push(connection_limit_statement(database, self.connection_limit));
        }
        statements
    }

    /// The statements that would make all of it, for a rehearsal on the database itself.
    pub(crate) fn all_statements(&self, database: &str) -> Vec<String> {
        let nothing = Self {
            owner: self.owner.clone(),
            connection_limit: self.connection_limit,
            grants: Vec::new(),
            settings: Vec::new(),
        };
        self.statements(database, &nothing)
    }
}

/// `GRANT`, of the privileges that databases have.
pub(crate) fn grant_statement(
    database: &str,
    role: Option<&str>,
    privilege: &str,
    grantable: bool,
) -> Option<String> {
    if !["CONNECT", "CREATE", "TEMPORARY"].contains(&privilege) {
        return None;
    }
    let (name, grantee) = (quote_ident(database), grantee(role));
    let option = if grantable { " WITH GRANT OPTION" } else { "" };
    Some(format!(
        "GRANT {privilege} ON DATABASE {name} TO {grantee}{option}"
    ))
}

/// `ALTER … SET`.
pub(crate) fn setting_statement(database: &str, setting: &DatabaseSetting) -> String {
    let scope = setting_scope(database, setting.role.as_deref());
    let value = setting_value(&setting.name, &setting.value);
    format!(
        "ALTER {scope} SET {} TO {value}",
        quote_setting(&setting.name)
    )
}

/// `ALTER … CONNECTION LIMIT`.
pub(crate) fn connection_limit_statement(database: &str, limit: i32) -> String {
    let name = quote_ident(database);
    format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}")
}

fn setting_scope(database: &str, role: Option<&str>) -> String {
    let name = quote_ident(database);
    match role {
        Some(role) => format!("ROLE {} IN DATABASE {name}", quote_ident(role)),
        None => format!("DATABASE {name}"),
    }
}

fn grantee(role: Option<&str>) -> String {
    role.map_or_else(|| "PUBLIC".to_owned(), quote_ident)
}

/// Runs statements one after the other; the one that failed is in the error.
pub(crate) async fn run_all(
    connection: &mut PgConnection,
    statements: Vec<String>,
) -> Result<(), Error> {
    for sql in statements {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql.clone()));
        statement
            .execute(&mut *connection)
            .await
            .map_err(Error::query(sql))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("plain", "'plain'")]
    #[case("it's", "'it''s'")]
    fn settings_are_quoted(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(setting_value("work_mem", value), expected);
    }

    #[rstest]
    #[case("\"$user\", public", "'$user', 'public'")]
    #[case("\"a, b\", \"c\"\"d\"", "'a, b', 'c\"d'")]
    #[case("\"\"", "''")]
    #[case("", "''")]
    fn lists_are_quoted_by_element(#[case] value: &str, #[case] expected: &str) {
        assert_eq!(setting_value("search_path", value), expected);
    }

    fn grant(grantee: Option<&str>, privilege: &str, grantable: bool) -> Grant {
        Grant {
            grantee: grantee.map(str::to_owned),
            privilege: privilege.to_owned(),
            grantable,
        }
    }

    fn setting(role: Option<&str>, name: &str, value: &str) -> DatabaseSetting {
        DatabaseSetting {
            role: role.map(str::to_owned),
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn only_what_differs_is_changed() {
        let wanted = Properties {
            owner: "app".to_owned(),
            connection_limit: 5,
            grants: vec![
                grant(Some("app"), "CONNECT", false),
                grant(Some("report"), "CONNECT", true),
            ],
            settings: vec![setting(None, "work_mem", "64MB"), setting(None, "a.b", "1")],
        };
        let found = Properties {
            owner: "app".to_owned(),
            connection_limit: -1,
            grants: vec![
                grant(None, "TEMPORARY", false),
                grant(Some("app"), "CONNECT", false),
            ],
            settings: vec![
                setting(None, "a.b", "1"),
                setting(Some("app"), "jit", "off"),
                setting(None, "work_mem", "4MB"),
            ],
        };
        assert_eq!(
            wanted.statements("s\"x", &found),
            [
                "REVOKE TEMPORARY ON DATABASE \"s\"\"x\" FROM PUBLIC CASCADE",
                "GRANT CONNECT ON DATABASE \"s\"\"x\" TO \"report\" WITH GRANT OPTION",
                "ALTER ROLE \"app\" IN DATABASE \"s\"\"x\" RESET \"jit\"",
                "ALTER DATABASE \"s\"\"x\" SET \"work_mem\" TO '64MB'",
                "ALTER DATABASE \"s\"\"x\" CONNECTION LIMIT 5",
            ]
        );
        assert_eq!(wanted.statements("x", &wanted), Vec::<String>::new());
        assert_eq!(wanted.all_statements("x").len(), 4);
    }
}
