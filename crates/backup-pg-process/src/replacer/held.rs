//! The lock on a name.

use sqlx::postgres::PgConnection;

use super::{ReplaceError, connect};
use crate::session::KeptAlive;
use crate::{ConnectionConfig, Error, advisory};

/// The session that has it.
#[derive(Debug)]
pub(super) struct Held(pub(super) KeptAlive);

impl Held {
    /// Takes it or fails at once.
    pub(super) async fn take(config: &ConnectionConfig, name: &str) -> Result<Self, ReplaceError> {
        let mut connection = connect(config).await?;
        match try_lock(&mut connection, name).await? {
            None => Ok(Self(KeptAlive::new(connection))),
            Some(holder) => Err(ReplaceError::Held {
                database: name.to_owned(),
                holder,
            }),
        }
    }
}

/// Takes the lock until the session ends, or says who has it.
pub(super) async fn try_lock(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<String>, Error> {
    advisory::try_lock(connection, &format!("replaces database {name}")).await
}
