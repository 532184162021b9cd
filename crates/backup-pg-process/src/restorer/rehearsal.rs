//! What a restore by a login that is no superuser needs done for it, on a server that was made for
//! this restore alone.
//!
//! Nothing that comes out of the backup runs with a superuser's rights: the statements here are
//! made of names, which are quoted, and nothing else.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use backup_pg_archive::TocEntry;
use sqlx::postgres::PgConnection;

use super::error::RestoreError;
use super::superuser;
use super::target::Server;
use crate::error::sqlstate;
use crate::session::execute;
use crate::{ConnectionConfig, DatabaseDetails, Error, quote_ident};

/// Since this major, the schema `public` belongs to whoever owns the database.
const PUBLIC_IS_THE_OWNERS: u32 = 15;

/// A restore into a server that was made for it, by a login that is no superuser.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// A superuser of that server.
    pub admin: ConnectionConfig,
    /// Extensions that may be made although only a superuser can.
    pub extensions: BTreeSet<String>,
    /// A role that every owner is a member of while the load lasts.
    pub helper: String,
    left_out: Arc<Mutex<Vec<String>>>,
}

impl Rehearsal {
    /// A rehearsal that `admin` helps.
    #[must_use]
    pub fn new(
        admin: ConnectionConfig,
        helper: impl Into<String>,
        extensions: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            admin,
            extensions: extensions.into_iter().collect(),
            helper: helper.into(),
            left_out: Arc::default(),
        }
    }

    /// What was left out, in words.
    #[must_use]
    pub fn left_out(&self) -> Vec<String> {
        let left_out = self.left_out.lock();
        left_out.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn leave_out(&self, what: impl IntoIterator<Item = String>) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        left_out.extend(what);
    }

    /// A connection as the superuser to a database that the backup has settings for.
    pub(crate) async fn admin_in(&self, database: &str) -> Result<PgConnection, Error> {
        superuser::session(&self.admin, database).await
    }

    /// After the load: nothing is left of what only helped it.
    pub(crate) async fn clear(&self, database: &str) -> Result<(), Error> {
        let mut admin = self.admin_in(database).await?;
        // A limit that the database brings with it is not for who looks at it now.
        let sql = format!(
            "DROP OWNED BY {}; ALTER DATABASE {} CONNECTION LIMIT -1",
            quote_ident(&self.helper),
            quote_ident(database)
        );
        execute(&mut admin, sql, "take back what helped the load").await
    }

    pub(crate) fn backstage(
        &self,
        details: &DatabaseDetails,
        entries: &[TocEntry],
        server: &Server,
    ) -> Backstage {
        let schemas = entries.iter().filter(|e| e.desc.as_bytes() == b"SCHEMA");
        let wanted = details.extensions.iter();
        Backstage {
            rehearsal: self.clone(),
            schemas: schemas.map(|entry| entry.dump_id).collect(),
            extensions: wanted.map(|e| (e.name.clone(), e.schema.clone())).collect(),
            public_owner: (server.major() < PUBLIC_IS_THE_OWNERS && !details.owner.is_empty())
                .then(|| details.owner.clone()),
        }
    }
}

/// What a superuser does in the middle of a load.
#[derive(Debug)]
pub(crate) struct Backstage {
    rehearsal: Rehearsal,
    /// Dump ids of the schemas.
    schemas: HashSet<u32>,
    /// Names with their schemas.
    extensions: Vec<(String, String)>,
    public_owner: Option<String>,
}

impl Backstage {
    /// The schemas, and everything else.
    pub(crate) fn split(&self, dump_ids: Vec<u32>) -> (Vec<u32>, Vec<u32>) {
        dump_ids
            .into_iter()
            .partition(|id| self.schemas.contains(id))
    }

    /// Once the schemas are there, and nothing in them: makes the extensions, and lets every owner
    /// create in every schema, since an owner must be able to when an object is given to him.
    pub(crate) async fn prepare(&self, database: &str) -> Result<(), RestoreError> {
        let mut admin = self.rehearsal.admin_in(database).await?;
        if let Some(owner) = &self.public_owner {
            let sql = format!(
                "ALTER SCHEMA public OWNER TO {0}; GRANT ALL ON SCHEMA public TO PUBLIC, {0}",
                quote_ident(owner)
            );
            execute(&mut admin, sql, "give the schema public to the owner").await?;
        }
        self.make_extensions(&mut admin).await?;
        grant(&mut admin, &self.rehearsal.helper).await
    }

    /// One may need another: what fails for that is tried again after the others.
    async fn make_extensions(&self, admin: &mut PgConnection) -> Result<(), RestoreError> {
        let mut open: Vec<_> = self.extensions.iter().collect();
        loop {
            let (mut later, before) = (Vec::new(), open.len());
            let mut refusal = None;
            for (name, schema) in open {
                superuser::check_empty(admin, name).await?;
                let made = superuser::make_extension(admin, name, schema).await;
                match made {
                    Ok(()) => {}
                    // undefined_object: the one that it needs.
                    Err(error) if sqlstate(&error).as_deref() == Some("42704") => {
                        refusal.get_or_insert((name, error));
                        later.push((name, schema));
                    }
                    Err(error) => return Err(superuser::not_made(name, error)),
                }
            }
            match refusal {
                None => return Ok(()),
                Some((name, error)) if later.len() == before => {
                    return Err(superuser::not_made(name, error));
                }
                Some(_) => {
                    open = self
                        .extensions
                        .iter()
                        .filter(|(name, _)| later.iter().any(|(found, _)| *found == name))
                        .collect();
                }
            }
        }
    }
}

/// Everything of schemas, extensions' tables and foreign data wrappers that a load touches.
const GRANTS: &str = "
SELECT format('GRANT CREATE, USAGE ON SCHEMA %I TO %I', nspname, $1)
FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
UNION ALL
SELECT format('GRANT USAGE ON FOREIGN DATA WRAPPER %I TO %I', fdwname, $1)
FROM pg_foreign_data_wrapper
UNION ALL
SELECT format('GRANT SELECT, INSERT, UPDATE ON %s %s TO %I',
              CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass, $1)
FROM pg_extension AS e, unnest(e.extconfig) AS config(oid) JOIN pg_class AS c ON c.oid = config.oid";

/// Nobody but a superuser can be allowed to use a language that is not trusted. Whoever let the
/// drill make its extension trusts it.
const TRUST_LANGUAGES: &str = "
UPDATE pg_language AS l SET lanpltrusted = true FROM pg_depend AS d
WHERE d.classid = 'pg_language'::regclass AND d.objid = l.oid AND d.deptype = 'e'
  AND l.lanispl AND NOT l.lanpltrusted";

async fn grant(admin: &mut PgConnection, helper: &str) -> Result<(), RestoreError> {
    let operation = "let the owners create in the schemas";
    let grants: Vec<String> = sqlx::query_scalar(GRANTS)
        .bind(helper)
        .fetch_all(&mut *admin)
        .await
        .map_err(Error::query(operation))?;
    execute(&mut *admin, grants.join(";\n"), operation).await?;
    let operation = "let the owners use the languages";
    Ok(execute(admin, TRUST_LANGUAGES, operation).await?)
}
