//! Errors of `object_store` in the words of the port.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use backup_core::error::{ErrorKind, PortError};
use object_store::client::{HttpError, HttpErrorKind};

/// The longest text of a server that is repeated.
const MAX_TEXT: usize = 300;

/// The cause in one line. `object_store` repeats each cause in the text of the next, and a
/// server's answer is a page of XML; the whole of it goes to the debug log.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Cause {}

/// What a service says about a failure. All of them do it in S3's form.
struct Answer {
    code: String,
    message: String,
}

/// `operation` is what was tried, as `read object`.
pub(crate) fn port_error(
    operation: &str,
    at: impl fmt::Display,
    error: &object_store::Error,
) -> PortError {
    tracing::debug!(%at, %error, "{operation} failed");
    let answer = answer_of(error);
    let code = answer.as_ref().map_or("", |answer| answer.code.as_str());
    let kind = kind(error, code);
    let cause = match &answer {
        Some(answer) => format!("{}: {}", answer.code, answer.message),
        None => innermost(error).to_string(),
    };
    let cause: String = cause.chars().take(MAX_TEXT).collect();
    let port = PortError::new(kind, format!("{operation} {at}")).with_source(Cause(cause));
    match hint(error, kind, code) {
        Some(hint) => port.with_hint(hint),
        None => port,
    }
}

fn kind(error: &object_store::Error, code: &str) -> ErrorKind {
    use object_store::Error as E;
    match code {
        // Of a listing `object_store` keeps the code alone, not what it means.
        "AccessDenied"
        | "AccountIsDisabled"
        | "AuthenticationFailed"
        | "AuthenticationRequired"
        | "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "BlobArchived"
        | "BlobBeingRehydrated"
        | "BlobImmutableDueToPolicy"
        | "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidAuthenticationInfo"
        | "InvalidObjectState"
        | "InvalidToken"
        | "KeyBasedAuthenticationNotPermitted"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch" => {
            return ErrorKind::PermissionDenied;
        }
        "XMinioStorageFull" => return ErrorKind::NoRoom,
        "NoSuchBucket" | "ContainerNotFound" => return ErrorKind::NotFound,
        // The status alone would say that the key is taken.
        "ContainerBeingDeleted" => return ErrorKind::Unavailable,
        "AuthorizationHeaderMalformed"
        | "InvalidArgument"
        | "EntityTooLarge"
        | "PermanentRedirect"
        | "InvalidBucketName"
        | "InvalidResourceName"
        | "InvalidStorageClass"
        | "NotImplemented" => {
            return ErrorKind::InvalidInput;
        }
        _ => {}
    }
    match error {
        E::NotFound { .. } => ErrorKind::NotFound,
        E::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::PermissionDenied,
        // Objects are never rewritten: one that is not what it was is damaged.
        E::Precondition { .. } | E::NotModified { .. } => ErrorKind::Corrupt,
        E::InvalidPath { .. } | E::NotSupported { .. } | E::NotImplemented { .. } => {
            ErrorKind::InvalidInput
        }
        E::JoinError { .. } | E::UnknownConfigurationKey { .. } => ErrorKind::Internal,
        _ => kind_of_transport(error),
    }
}

fn kind_of_transport(error: &object_store::Error) -> ErrorKind {
    if let Some(io) = find::<io::Error>(error) {
        return match io.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                ErrorKind::PermissionDenied
            }
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoRoom,
            _ => ErrorKind::Unavailable,
        };
    }
    match find::<HttpError>(error).map(HttpError::kind) {
        Some(HttpErrorKind::Timeout) => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    }
}

fn hint(error: &object_store::Error, kind: ErrorKind, code: &str) -> Option<&'static str> {
    Some(match code {
        "InvalidAccessKeyId" => "the server does not know this access key id",
        "SignatureDoesNotMatch" => "the secret access key is wrong for this access key id",
        "AuthenticationFailed"
        | "AuthenticationRequired"
        | "AuthorizationFailure"
        | "InvalidAuthenticationInfo" => {
            "the key or signature is wrong for this account, or has ended"
        }
        "RequestTimeTooSkewed" => "the clock of this host and that of the server differ",
        "ExpiredToken" | "InvalidToken" => "the temporary credentials have ended; get new ones",
        "NoSuchBucket" => "create the bucket, or correct the store's URL",
        "ContainerNotFound" => "create the container, or correct the store's URL",
        "InvalidObjectState" | "BlobArchived" | "BlobBeingRehydrated" => {
            "the object is in an archive and cannot be read as it is; \
             have the service bring it back to a readable class, wait, and try again"
        }
        "BlobImmutableDueToPolicy" => "the container keeps its objects for a fixed time",
        "AuthorizationHeaderMalformed" | "PermanentRedirect" => "set the region of the bucket",
        _ if kind == ErrorKind::NoRoom => "free space on the destination, then run again",
        _ if is_read_only(error) => {
            "that file system is mounted read-only: mount it to be written, or name another"
        }
        _ if kind == ErrorKind::PermissionDenied && find::<io::Error>(error).is_some() => {
            "run as the owner of the directory, or give this user rights to it"
        }
        _ if kind == ErrorKind::PermissionDenied => {
            "the credentials need the rights to get, put, list and delete objects there"
        }
        _ => return None,
    })
}

fn is_read_only(error: &object_store::Error) -> bool {
    let io = find::<io::Error>(error);
    io.is_some_and(|io| io.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

/// Whether the same request may succeed a moment later.
pub(crate) fn is_transient(error: &object_store::Error) -> bool {
    let code = answer_of(error).map_or(String::new(), |answer| answer.code);
    matches!(
        kind(error, &code),
        ErrorKind::Unavailable | ErrorKind::Timeout
    )
}

fn chain<'a>(error: &'a object_store::Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let first: &'a (dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error| StdError::source(*error))
}

fn find<T: StdError + 'static>(error: &object_store::Error) -> Option<&T> {
    chain(error).find_map(|error| error.downcast_ref::<T>())
}

fn innermost(error: &object_store::Error) -> &(dyn StdError + 'static) {
    chain(error).last().unwrap_or(error)
}

/// The code and message of an error document. The error that holds the answer has no
/// public type, so its text is where they can be had.
fn answer_of(error: &object_store::Error) -> Option<Answer> {
    let text = error.to_string();
    Some(Answer {
        code: element(&text, "Code")?,
        message: element(&text, "Message").unwrap_or_default(),
    })
}

fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (content, _) = rest.split_once(&format!("</{name}>"))?;
    Some(content.trim().trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic {
            store: "test",
            source: source.into(),
        }
    }

    #[test]
    fn a_full_disk_is_named() {
        let error = generic(io::Error::from_raw_os_error(nix::libc::ENOSPC));
        let port = port_error("write object", "a", &error);
        assert_eq!(port.kind(), ErrorKind::NoRoom);
        assert_eq!(port.to_string(), "write object a");
        assert!(port.source().unwrap().to_string().contains("No space left"));
        assert!(port.hint().unwrap().contains("free space"));
        assert!(!is_transient(&error));
    }

    #[test]
    fn a_disk_that_is_mounted_read_only_is_no_matter_of_rights() {
        let error = generic(io::Error::from_raw_os_error(nix::libc::EROFS));
        let port = port_error("write object", "a", &error);
        assert_eq!(port.kind(), ErrorKind::PermissionDenied);
        assert!(port.hint().unwrap().contains("read-only"));
    }

    #[test]
    fn codes_of_s3_decide_and_are_shown() {
        let answer = |code: &str| {
            format!("status 403: <Error><Code>{code}</Code><Message>Words.</Message></Error>")
        };
        for (code, kind) in [
            ("ExpiredToken", ErrorKind::PermissionDenied),
            ("AuthorizationHeaderMalformed", ErrorKind::InvalidInput),
            ("SlowDown", ErrorKind::Unavailable),
            ("XMinioStorageFull", ErrorKind::NoRoom),
        ] {
            let port = port_error("read object", "a", &generic(answer(code)));
            assert_eq!(port.kind(), kind, "{code}");
            assert_eq!(port.source().unwrap().to_string(), format!("{code}: Words"));
        }
    }
}
