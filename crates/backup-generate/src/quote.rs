//! How each format writes a text so that it is read back as it was.

use std::fmt::Write as _;

/// What a POSIX shell takes as one word.
#[must_use]
pub fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@:".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// A command for a shell, in a crontab. Cron ends a command at `%` and takes a backslash before it away, but
/// not one that itself follows a backslash: there the quotation, which a backslash outside of one never
/// precedes, is ended and begun again. A line cannot have two lines: `None`.
pub(crate) fn crontab(command: &str) -> Option<String> {
    if command.contains(['\n', '\r']) {
        return None;
    }
    Some(command.replace("\\%", "\\''%").replace('%', "\\%"))
}

/// A word of a command in a unit of systemd: quoted, and without specifiers. Variables are turned off for
/// the whole command, by a colon before it.
pub(crate) fn systemd(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '%' => quoted.push_str("%%"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_ascii_control() => hex(&mut quoted, u32::from(c), 2),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The name of an instance of a template, as `systemd-escape` makes it.
pub(crate) fn systemd_instance(text: &str) -> String {
    let mut name = String::new();
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                name.push(char::from(byte));
            }
            byte => hex(&mut name, u32::from(byte), 2),
        }
    }
    name
}

/// A text in YAML, in double quotes.
pub(crate) fn yaml(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if (' '..='~').contains(&c) => quoted.push(c),
            c => escaped(&mut quoted, c),
        }
    }
    quoted.push('"');
    quoted
}

/// A text in Python.
pub(crate) fn python(text: &str) -> String {
    // The same escapes.
    yaml(text)
}

/// A text in YAML of Compose, which reads variables in it.
pub(crate) fn compose(text: &str) -> String {
    yaml(&text.replace('$', "$$"))
}

/// An argument in a manifest of Kubernetes, which reads variables in it.
pub(crate) fn kubernetes(text: &str) -> String {
    yaml(&text.replace('$', "$$"))
}

/// A command for a shell, in a recipe of a Makefile. A recipe has no way to say a line end: `None`.
pub(crate) fn makefile(command: &str) -> Option<String> {
    (!command.contains('\n')).then(|| command.replace('$', "$$"))
}

fn hex(text: &mut String, value: u32, digits: usize) {
    // A string takes whatever is written to it.
    let _ = write!(text, "\\x{value:0digits$x}");
}

fn escaped(text: &mut String, c: char) {
    let value = u32::from(c);
    let _ = match value {
        0..=0xff => write!(text, "\\x{value:02x}"),
        0x100..=0xffff => write!(text, "\\u{value:04x}"),
        _ => write!(text, "\\U{value:08x}"),
    };
}

/// A name for where only small letters, digits and `-` may stand: of that form, of at most `longest`
/// characters, and different for different texts.
pub(crate) fn slug(text: &str, longest: usize) -> String {
    let mut slug = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let plain = slug.trim_end_matches('-');
    if plain == text && plain.len() <= longest {
        return plain.to_owned();
    }
    let room = longest.saturating_sub(9);
    let plain: String = plain.chars().take(room).collect();
    let plain = plain.trim_end_matches('-');
    let sum = checksum(text);
    if plain.is_empty() {
        format!("x-{sum:08x}")
    } else {
        format!("{plain}-{sum:08x}")
    }
}

/// FNV-1a: tells names apart, and nobody gains by making two alike.
fn checksum(text: &str) -> u32 {
    let step = |sum: u32, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    text.bytes().fold(0x811c_9dc5, step)
}
