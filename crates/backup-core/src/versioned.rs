//! JSON whose `format` says who can read it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, PortError};

/// The stored form; `what` is named in the error.
///
/// # Errors
/// `Internal`, which JSON of plain data does not have.
pub(crate) fn encode(value: &impl Serialize, what: &str) -> Result<Vec<u8>, PortError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| {
        PortError::new(ErrorKind::Internal, format!("encode {what}")).with_source(e)
    })?;
    text.push(b'\n');
    Ok(text)
}

/// Reads the stored form. The format is looked at first: what another one has in its fields is
/// not for this build to judge.
///
/// # Errors
/// `Corrupt` when it is no such thing; `InvalidInput` when its format is not `format`.
pub(crate) fn decode<T: DeserializeOwned>(
    text: &[u8],
    format: u32,
    what: &str,
) -> Result<T, PortError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let corrupt =
        |e| PortError::new(ErrorKind::Corrupt, format!("{what} cannot be read")).with_source(e);
    let version: Version = serde_json::from_slice(text).map_err(corrupt)?;
    if version.format != format {
        return Err(PortError::new(
            ErrorKind::InvalidInput,
            format!(
                "{what} has format {}, this build reads {format}",
                version.format
            ),
        )
        .with_hint("upgrade to a build that knows this format"));
    }
    serde_json::from_slice(text).map_err(corrupt)
}
