//! Secrets that must be nowhere but where they were put.
//!
//! Whatever makes a secret for the program under test says so with [`keep`]. The fixtures do: the
//! password of a cluster, the keys of stores, mail and bots, what stands in the variables of a run and in its
//! files of secrets, what a sandbox's visitor is told. From then on it is looked for, in each form
//! that it may take, in all that the program says: both outputs of every run, every answer over HTTP
//! and every page, every call of the bot API, every mail and web request, the JSON that it stores in
//! a folder, and the command lines of the programs that it runs. Private keys and API tokens have a shape
//! of their own, and need not be said.
//!
//! One that is found fails the test that was at it, and every later one of the process.
//!
//! Meant to be shown, and not looked for there: what `keygen` prints where no file is named, and what
//! `token` prints; the access to a sandbox, in the one answer, message or field that tells it; an address that is
//! itself a secret, to whoever listens there; what a test says, be it an argument, a header or a faked answer.

mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter, Write as _};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::{self, Finder};
use serde_json::Value;

pub(crate) use watch::Watched;

/// Nothing shorter is a canary: it may occur by itself.
const SHORTEST: usize = 10;

/// A piece of a secret with one of these in it is looked for in its place: no escaping changes it.
const MARKS: [&str; 2] = ["canary", "c4n4ry"];

/// What is a secret by its shape: how it begins, and how many letters and digits follow at least.
const SHAPES: [(&str, usize); 2] = [("AGE-SECRET-KEY-1", 20), ("backup_token_", 32)];

/// Larger objects are no manifest and no record.
const LARGEST_STORED: u64 = 4 << 20;

/// What is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One output of a run.
    Run,
    /// An answer over HTTP, or a page.
    Answer,
    /// A call of the bot API, a mail, a web request.
    Message,
    /// An object or a file.
    Stored,
    /// The command line of a child, or its variables.
    CommandLine,
}

/// The secrets of a process, and what was looked through for them.
#[derive(Debug)]
pub struct Canaries {
    state: Mutex<State>,
    since: Instant,
    spent: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    secrets: BTreeSet<String>,
    forms: BTreeSet<String>,
    finders: Vec<Finder<'static>>,
    found: Vec<String>,
    looked: BTreeMap<Kind, (u64, u64)>,
}

/// What was looked through until now in this process.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Secrets that were said, and their forms.
    pub secrets: (usize, usize),
    /// Outputs of runs, two each.
    pub runs: u64,
    /// Answers over HTTP, and pages.
    pub answers: u64,
    /// Calls of the bot API, mails, web requests.
    pub messages: u64,
    /// Objects and files.
    pub stored: u64,
    /// Command lines of programs that were run by the one under test.
    pub command_lines: u64,
    /// All of that.
    pub bytes: u64,
    /// The share of the time that went into it, in percent of one processor.
    pub cost: f64,
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (secrets, forms) = self.secrets;
        write!(
            f,
            "{secrets} secrets in {forms} forms and {} shapes were in none of {} outputs of runs, {} answers, {} \
             messages, {} stored objects and {} looks at command lines ({} KiB), at {:.1} % of the time",
            SHAPES.len(),
            self.runs,
            self.answers,
            self.messages,
            self.stored,
            self.command_lines,
            self.bytes >> 10,
            self.cost,
        )
    }
}

impl Default for Canaries {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            since: Instant::now(),
            spent: AtomicU64::new(0),
        }
    }
}

impl Canaries {
    /// Those of this process.
    #[must_use]
    pub fn ours() -> &'static Self {
        static OURS: LazyLock<Canaries> = LazyLock::new(Canaries::default);
        &OURS
    }

    /// Looks for `secret` from now on.
    ///
    /// # Panics
    ///
    /// When it is so short that it may occur by itself.
    pub fn keep(&self, secret: &str) {
        let secret = secret.trim_end_matches('\n');
        assert!(secret.len() >= SHORTEST, "{secret:?} is no canary");
        let mut state = self.state();
        if !state.secrets.insert(secret.to_owned()) {
            return;
        }
        for form in forms(secret) {
            if form.len() >= SHORTEST && state.forms.insert(form.clone()) {
                state.finders.push(Finder::new(&form).into_owned());
            }
        }
    }

    /// Looks through what was said; what is found is an error, now and at every later time.
    pub(crate) fn look(&self, kind: Kind, what: &str, bytes: &[u8], shapes: bool) -> Result<()> {
        let mut state = self.state();
        let begun = Instant::now();
        let looked = state.looked.entry(kind).or_default();
        looked.0 += 1;
        looked.1 += bytes.len() as u64;
        let mut finders = state.finders.iter();
        let at = finders.find_map(|finder| finder.find(bytes));
        let at = at.or_else(|| if shapes { shaped(bytes) } else { None });
        if let Some(at) = at {
            let found = format!("a secret is in {what}: {}", around(bytes, at));
            state.found.push(found);
        }
        drop(state);
        self.spend(begun);
        self.settle()
    }

    /// Whether nothing was found yet.
    ///
    /// # Errors
    ///
    /// With what was.
    pub fn settle(&self) -> Result<()> {
        let found = self.state().found.join("\n");
        if found.is_empty() {
            return Ok(());
        }
        bail!("{found}")
    }

    /// What was looked through until now.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let state = self.state();
        let count = |kind| state.looked.get(&kind).map_or(0, |(count, _)| *count);
        let spent = Duration::from_nanos(self.spent.load(Ordering::Relaxed));
        Seen {
            secrets: (state.secrets.len(), state.forms.len()),
            runs: count(Kind::Run),
            answers: count(Kind::Answer),
            messages: count(Kind::Message),
            stored: count(Kind::Stored),
            command_lines: count(Kind::CommandLine),
            bytes: state.looked.values().map(|(_, bytes)| bytes).sum(),
            cost: 100.0 * spent.as_secs_f64() / self.since.elapsed().as_secs_f64(),
        }
    }

    fn spend(&self, begun: Instant) {
        let spent = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.spent.fetch_add(spent, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for `secret` from now on in all that the program under test says.
///
/// # Panics
///
/// When it is so short that it may occur by itself.
pub fn keep(secret: &str) {
    Canaries::ours().keep(secret);
}

/// The same of something that may be no secret at all, such as a password that is left out.
pub(crate) fn keep_if_any(secret: &str) {
    if secret.trim_end_matches('\n').len() >= SHORTEST {
        keep(secret);
    }
}

/// Looks for a secret variable of a run, known by its name.
pub(crate) fn keep_variable(name: &str, value: &str) {
    let words = ["PASSWORD", "SECRET", "TOKEN", "SIGNATURE"];
    let is_key = name.ends_with("KEY") && !name.ends_with("ACCESS_KEY");
    let is_none = ["SHA256", "FILE"].iter().any(|word| name.contains(word));
    let is_secret = is_key || words.iter().any(|word| name.contains(word));
    if is_secret && !is_none && !value.starts_with('/') {
        keep_if_any(value);
    }
}

/// Looks for the one line of a file of its own, which is how secrets are handed over.
pub(crate) fn keep_file(name: &str, text: &str) {
    let is_line = !text.trim_end_matches('\n').contains('\n');
    if !name.contains('.') && is_line {
        keep_if_any(text);
    }
}

/// What is seen of this process' canaries until now, for the evidence.
#[must_use]
pub fn seen() -> Seen {
    Canaries::ours().seen()
}

/// Looks through something.
///
/// # Errors
///
/// With the secret that is in it, or that was found before.
pub fn look(kind: Kind, what: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
    Canaries::ours().look(kind, what, bytes.as_ref(), true)
}

/// Looks through both outputs of a run.
pub(crate) fn run(words: &str, stdout: &[u8], stderr: &[u8]) -> Result<()> {
    let has = |word| words.split_whitespace().any(|own| own == word);
    let shows = has("token") || has("keygen") && !has("-o") && !has("--output");
    let ours = Canaries::ours();
    ours.look(Kind::Run, &format!("what {words} printed"), stdout, !shows)?;
    let what = format!("what {words} said");
    ours.look(Kind::Run, &what, stderr, true)
}

/// Looks through the JSON in a folder: manifests, records, notes.
pub(crate) fn folder(root: &Path) {
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let is_json = path.extension().is_some_and(|end| end == "json");
            let is_small = entry.metadata().is_ok_and(|m| m.len() <= LARGEST_STORED);
            if is_json
                && is_small
                && let Ok(bytes) = fs::read(&path)
            {
                // Whoever asked for this tells of it afterwards.
                let _ = look(Kind::Stored, &path.display().to_string(), bytes);
            }
        }
    }
}

/// Fails the test if something was found, where no error can be returned.
///
/// # Panics
///
/// With what was found, unless the test fails already.
pub(crate) fn complain() {
    if std::thread::panicking() {
        return;
    }
    if let Err(error) = Canaries::ours().settle() {
        panic!("{error:#}");
    }
}

/// The forms that a secret takes in URLs, JSON, pages, SQL, shells and files. A piece that no escaping
/// changes is in nearly all of them.
fn forms(secret: &str) -> BTreeSet<String> {
    let mut pieces = secret.split(|c: char| !c.is_ascii_alphanumeric());
    let is_marked = |piece: &&str| MARKS.iter().any(|mark| piece.contains(mark));
    if let Some(piece) = pieces.find(|piece| piece.len() >= SHORTEST && is_marked(piece)) {
        return BTreeSet::from([piece.to_owned(), STANDARD.encode(secret)]);
    }
    let backslashes = secret.replace('\\', "\\\\");
    let mut forms = BTreeSet::from([
        secret.to_owned(),
        // The password file, connection strings, SQL, shells.
        backslashes.replace(':', "\\:"),
        backslashes.replace('\'', "\\'"),
        secret.replace('\'', "\\'"),
        secret.replace('\'', "''"),
        secret.replace('\'', "'\\''"),
        backslashes.replace('"', "\\\""),
        Value::from(secret).to_string().trim_matches('"').to_owned(),
        markup(secret, ["&#38;", "&#60;", "&#62;", "&#34;", "&#39;"]),
        markup(secret, ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"]),
        STANDARD.encode(secret),
    ]);
    let encoded: Vec<_> = forms.iter().map(|form| percent_encoded(form)).collect();
    for form in encoded {
        forms.insert(form.replace("%20", "+"));
        forms.insert(lower_digits(&form));
        forms.insert(form);
    }
    forms
}

fn markup(text: &str, [and, less, more, quote, apostrophe]: [&str; 5]) -> String {
    let text = text.replace('&', and).replace('<', less);
    let text = text.replace('>', more).replace('"', quote);
    text.replace('\'', apostrophe)
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// The same with small hexadecimal digits.
fn lower_digits(encoded: &str) -> String {
    let mut pieces = encoded.split('%');
    let mut lower = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        let _ = write!(lower, "%{}{rest}", digits.to_ascii_lowercase());
    }
    lower
}

/// Where something lies that is a secret by its shape.
fn shaped(bytes: &[u8]) -> Option<usize> {
    SHAPES.iter().find_map(|(start, least)| {
        let mut places = memmem::find_iter(bytes, start);
        places.find(|at| {
            let rest = &bytes[at + start.len()..];
            let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric());
            length.count() >= *least
        })
    })
}

fn around(bytes: &[u8], at: usize) -> String {
    const MOST: usize = 160;
    let range = at.saturating_sub(MOST)..bytes.len().min(at + MOST);
    String::from_utf8_lossy(&bytes[range]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = r#"p4ss:w\o'r"d @% 7f3a & <b>"#;

    fn finds(canaries: &Canaries, text: &str) -> bool {
        let found = canaries.look(Kind::Run, "it", text.as_bytes(), true);
        let is_found = found.is_err();
        canaries.state().found.clear();
        is_found
    }

    #[test]
    fn a_secret_is_found_in_each_of_its_forms_and_nothing_else_is() {
        let canaries = Canaries::default();
        canaries.keep(SECRET);
        for text in [
            SECRET,
            r#"p4ss\:w\\o'r"d @% 7f3a & <b>"#,
            r#"p4ss:w\\o\'r"d @% 7f3a & <b>"#,
            r#"{"a": "p4ss:w\\o'r\"d @% 7f3a & <b>"}"#,
            "p4ss%3Aw%5Co%27r%22d%20%40%25%207f3a%20%26%20%3Cb%3E",
            "p4ss%3aw%5co%27r%22d%20%40%25%207f3a%20%26%20%3cb%3e",
            "p4ss%3Aw%5Co%27r%22d+%40%25+7f3a+%26+%3Cb%3E",
            "<p>p4ss:w\\o&#39;r&#34;d @% 7f3a &#38; &#60;b&#62;</p>",
            &STANDARD.encode(SECRET),
        ] {
            assert!(finds(&canaries, &format!("before {text} after")), "{text}");
        }
        for text in ["", "p4ss:w", "7f3a", "the word secret"] {
            assert!(!finds(&canaries, text), "{text}");
        }
    }

    #[test]
    fn a_piece_that_no_escaping_changes_is_enough() {
        let canaries = Canaries::default();
        canaries.keep("p4ss:w@rd c4n4ry7f3a");
        assert!(finds(
            &canaries,
            "whatever came of it, c4n4ry7f3a is a piece"
        ));
        assert!(finds(&canaries, &STANDARD.encode("p4ss:w@rd c4n4ry7f3a")));
        for text in ["p4ss:w@rd", "c4n4ry", "c4n4ry7f3"] {
            assert!(!finds(&canaries, text), "{text}");
        }
    }

    #[test]
    fn keys_and_tokens_are_known_by_their_shape() {
        let canaries = Canaries::default();
        let token = format!("backup_token_{}", "0f".repeat(32));
        let key = format!("AGE-SECRET-KEY-1{}", "QZ".repeat(29));
        assert!(finds(&canaries, &token) && finds(&canaries, &format!("a{key}b")));
        let harmless = "a line AGE-SECRET-KEY-1… or backup_token_of_somebody; AGE-SECRET-KEY-1";
        assert!(!finds(&canaries, harmless));
        let shown = canaries.look(Kind::Run, "it", token.as_bytes(), false);
        shown.unwrap();
    }

    #[test]
    fn what_was_found_is_not_forgotten() {
        let canaries = Canaries::default();
        canaries.keep("a canary of its own");
        let early = canaries.look(Kind::Run, "a run", b"nothing", true);
        early.unwrap();
        let found = canaries.look(Kind::Answer, "an answer", b"has a canary of its own", true);
        assert!(found.unwrap_err().to_string().contains("an answer"));
        let later = canaries.look(Kind::Run, "a run", b"nothing", true);
        assert!(later.unwrap_err().to_string().contains("an answer"));
        let seen = canaries.seen();
        assert_eq!((seen.runs, seen.answers, seen.secrets.0), (2, 1, 1));
        assert_eq!(seen.bytes, 37);
    }

    #[test]
    #[should_panic(expected = "is no canary")]
    fn what_may_occur_by_itself_is_no_canary() {
        Canaries::default().keep("secret");
    }
}
