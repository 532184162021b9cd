//! Recipients (public) and identities (secret), as text and in memory.

use std::fmt;

use age::x25519;
use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::{ExposeSecret, SecretString};

use crate::Error;

const IDENTITY_PREFIX: &str = "AGE-SECRET-KEY-";
const PLUGIN_PREFIX: &str = "AGE-PLUGIN-";
const FILE_PREFIX: &str = "age-encryption.org/";
const ARMOR_PREFIX: &str = "-----BEGIN AGE ENCRYPTED FILE-----";

/// Who may read: public keys, in the order of the configuration, without repetitions.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// The `age1…` texts.
    #[must_use]
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.0
            .iter()
            .map(|recipient| recipient as &dyn age::Recipient)
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.to_texts()).finish()
    }
}

/// Secret keys. `Debug` tells how many there are.
#[derive(Clone, Default)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// The recipients that these identities read for.
    #[must_use]
    pub fn recipients(&self) -> Recipients {
        Recipients(self.0.iter().map(x25519::Identity::to_public).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and those of another file.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The identity if there is exactly one.
    pub(crate) fn into_only(mut self) -> Option<x25519::Identity> {
        self.0.pop().filter(|_| self.0.is_empty())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &dyn age::Identity> {
        self.0.iter().map(|identity| identity as &dyn age::Identity)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({} redacted)", self.0.len())
    }
}

/// Reads `age1…` texts. Empty input is fine here: what must not be empty is said by
/// [`AgeCipher::seal`](crate::AgeCipher).
///
/// # Errors
/// [`Error::Recipient`], [`Error::IdentityAsRecipient`].
pub fn parse_recipients(texts: &[String]) -> Result<Recipients, Error> {
    let mut recipients: Vec<x25519::Recipient> = Vec::with_capacity(texts.len());
    for text in texts {
        let text = text.trim();
        let upper = text.to_ascii_uppercase();
        if upper.contains(IDENTITY_PREFIX) || upper.contains(PLUGIN_PREFIX) {
            return Err(Error::IdentityAsRecipient);
        }
        let recipient = text.parse().map_err(|_| Error::Recipient {
            recipient: text.to_owned(),
        })?;
        if !recipients.contains(&recipient) {
            recipients.push(recipient);
        }
    }
    Ok(Recipients(recipients))
}

/// Reads the content of an identity file: one identity a line, empty lines and `#` comments.
///
/// # Errors
/// [`Error::Identity`], [`Error::NoIdentity`], [`Error::EncryptedIdentity`].
pub fn load_identities(text: &str) -> Result<Identities, Error> {
    let start = text.trim_start();
    if start.starts_with(FILE_PREFIX) || start.starts_with(ARMOR_PREFIX) {
        return Err(Error::EncryptedIdentity);
    }
    let identities: Vec<_> = text
        .lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        // The parser's own words are dropped: they could quote the line.
        .map(|(line, identity)| identity.parse().map_err(|_| Error::Identity { line }))
        .collect::<Result<_, _>>()?;
    if identities.is_empty() {
        return Err(Error::NoIdentity);
    }
    Ok(Identities(identities))
}

/// A fresh identity in the form that `age-keygen` writes.
#[derive(Debug)]
pub struct NewIdentity {
    /// The content of the identity file, comments included.
    pub identity_file: SecretString,
    /// The public recipient.
    pub recipient: String,
}

/// Makes an identity, `created` being the time in its comment.
#[must_use]
pub fn generate(created: DateTime<Utc>) -> NewIdentity {
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    let created = created.to_rfc3339_opts(SecondsFormat::Secs, true);
    let secret = identity.to_string();
    // Room for all of it at once: growing would leave copies of the secret behind.
    let mut text = String::with_capacity(512);
    for piece in [
        "# created: ",
        &created,
        "\n# public key: ",
        &recipient,
        "\n",
    ] {
        text.push_str(piece);
    }
    text.push_str(secret.expose_secret());
    text.push('\n');
    NewIdentity {
        identity_file: text.into(),
        recipient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_debug_is_silent(value: &dyn fmt::Debug, secret: &str) {
        for text in [format!("{value:?}"), format!("{value:#?}")] {
            assert!(!text.to_uppercase().contains("AGE-SECRET-KEY-1"), "{text}");
            assert!(!text.contains(secret));
        }
    }

    fn secret_line(new: &NewIdentity) -> String {
        new.identity_file
            .expose_secret()
            .lines()
            .last()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn generated_files_look_like_those_of_age_keygen() {
        let new = generate(DateTime::from_timestamp(1_769_999_999, 500).unwrap());
        let text = new.identity_file.expose_secret();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "# created: 2026-02-02T02:39:59Z");
        assert_eq!(lines[1], format!("# public key: {}", new.recipient));
        assert!(lines[2].starts_with("AGE-SECRET-KEY-1") && text.ends_with('\n'));
        let identities = load_identities(text).unwrap();
        assert_eq!(
            identities.recipients(),
            parse_recipients(std::slice::from_ref(&new.recipient)).unwrap()
        );
        check_debug_is_silent(&new, lines[2]);
        check_debug_is_silent(&identities, lines[2]);
    }

    #[test]
    fn recipients_are_checked_and_not_repeated() {
        let (one, two) = (
            generate(DateTime::UNIX_EPOCH),
            generate(DateTime::UNIX_EPOCH),
        );
        let texts = [
            one.recipient.clone(),
            format!(" {}\n", two.recipient),
            one.recipient.clone(),
        ];
        let recipients = parse_recipients(&texts).unwrap();
        assert_eq!(
            recipients.to_texts(),
            [one.recipient.clone(), two.recipient]
        );
        assert!(parse_recipients(&[]).unwrap().is_empty());

        for wrong in ["", "age1", "ssh-ed25519 AAAA", &one.recipient[..40]] {
            let error = parse_recipients(&[wrong.to_owned()]).unwrap_err();
            assert_eq!(
                error,
                Error::Recipient {
                    recipient: wrong.to_owned()
                }
            );
        }
        let secret = secret_line(&one);
        for text in [secret.clone(), secret.to_lowercase(), format!("x{secret}")] {
            let error = parse_recipients(&[text]).unwrap_err();
            assert_eq!(error, Error::IdentityAsRecipient);
            check_debug_is_silent(&error, &secret);
        }
    }

    #[test]
    fn identity_files_may_have_comments_and_several_identities() {
        let (one, two) = (
            generate(DateTime::UNIX_EPOCH),
            generate(DateTime::UNIX_EPOCH),
        );
        let both = [&one, &two]
            .map(|new| new.identity_file.expose_secret())
            .join("\n\n");
        let expected = [one.recipient.clone(), two.recipient.clone()];
        for text in [
            both.clone(),
            both.replace('\n', "\r\n"),
            format!("\n  {both}"),
        ] {
            assert_eq!(
                load_identities(&text).unwrap().recipients().to_texts(),
                expected
            );
        }
    }

    #[test]
    fn identity_files_are_refused_without_repeating_them() {
        let secret = secret_line(&generate(DateTime::UNIX_EPOCH));
        let cut = &secret[..secret.len() - 1];
        for (text, expected) in [
            (String::new(), Error::NoIdentity),
            ("# only a comment\n".to_owned(), Error::NoIdentity),
            (
                format!("# c\n{secret}\n{cut}\n"),
                Error::Identity { line: 3 },
            ),
            (format!("{secret} {secret}"), Error::Identity { line: 1 }),
            (
                "age-encryption.org/v1\n-> scrypt".to_owned(),
                Error::EncryptedIdentity,
            ),
            (format!("{ARMOR_PREFIX}\nYWdl"), Error::EncryptedIdentity),
        ] {
            let error = load_identities(&text).unwrap_err();
            assert_eq!(error, expected);
            check_debug_is_silent(&error, cut);
            assert!(!error.to_string().contains(cut));
        }
    }
}
