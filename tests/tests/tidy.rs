//! What the house rules say and no lint checks. `docs/ARCHITECTURE.md` has the reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

/// Which of our crates each of our crates may use. Development dependencies may add
/// `backup-testing`, and the end-to-end tests may use everything.
const EDGES: &[(&str, &[&str])] = &[
    ("backup-core", &[]),
    ("backup-pg-archive", &[]),
    ("backup-process", &["backup-core"]),
    (
        "backup-pg-process",
        &["backup-core", "backup-pg-archive", "backup-process"],
    ),
    ("backup-redis-process", &["backup-core", "backup-process"]),
    ("backup-store", &["backup-core"]),
    ("backup-compress", &["backup-core"]),
    ("backup-crypt", &["backup-core"]),
    ("backup-retention", &["backup-core"]),
    ("backup-notify", &["backup-core"]),
    ("backup-schedule", &[]),
    ("backup-generate", &[]),
    ("backup-config", &["backup-core"]),
    ("backup-telegram", &["backup-core"]),
    ("backup-testing", &["backup-core"]),
    (
        "backup-app",
        &[
            "backup-core",
            "backup-config",
            "backup-pg-archive",
            "backup-pg-process",
            "backup-process",
            "backup-redis-process",
            "backup-store",
            "backup-compress",
            "backup-crypt",
            "backup-retention",
            "backup-notify",
            "backup-schedule",
            "backup-generate",
            "backup-telegram",
        ],
    ),
    ("backup-cli", &["backup-app", "backup-core"]),
    (
        "backup-server",
        &["backup-app", "backup-core", "backup-telegram"],
    ),
];

/// Where a library that has its place may be named. A name that ends with `*` is a prefix.
/// `deny.toml` has the same fences for what comes in through others.
const FENCES: &[(&str, &[&str])] = &[
    ("object_store", &["backup-store"]),
    ("async-compression", &["backup-compress"]),
    ("age", &["backup-crypt"]),
    ("figment", &["backup-config"]),
    ("clap*", &["backup-cli", "backup-server"]),
    ("axum*", &["backup-server"]),
    ("croner", &["backup-schedule"]),
    ("lettre", &["backup-notify"]),
    ("plotters", &["backup-server"]),
    ("reqwest", &["backup-notify", "backup-telegram"]),
    ("sqlx*", &["backup-pg-process"]),
];

const E2E: &str = "backup-e2e";
const FILE_LINES: usize = 800;
const FUNCTION_LINES: usize = 70;

/// The one file that may hold unsafe code: a parent-death signal can only be asked for between
/// fork and exec.
const UNSAFE_FILE: &str = "crates/backup-process/src/child.rs";

/// Where our code is.
const EVERYWHERE: &[&str] = &["crates", "bins", "tests", "fuzz/src", "fuzz/targets"];

// The needles are written in two pieces so that this file does not find itself.
const ALLOW: &[&str] = &[concat!("#[al", "low("), concat!("#![al", "low(")];
const UNFINISHED: &[&str] = &[concat!("to", "do!("), concat!("unimple", "mented!(")];
const TOKIO_PROCESS: &str = concat!("tokio::", "process");
const PSQL: &str = concat!("\"ps", "ql\"");
const UNSAFE: &[&str] = &[
    concat!("unsa", "fe {"),
    concat!("unsa", "fe fn"),
    concat!("unsa", "fe impl"),
    concat!("unsa", "fe extern"),
    concat!("(unsa", "fe_code"),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    description: Option<String>,
    manifest_path: PathBuf,
    rust_version: Option<String>,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for a normal dependency.
    kind: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies inside the workspace")
}

fn packages() -> Vec<Package> {
    let child = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cargo starts");
    let output = child.wait_with_output().expect("cargo ends");
    assert!(output.status.success(), "cargo metadata fails");
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata.packages
}

/// All files below `folders`, in order; those that are not there are empty.
fn files_below(folders: &[&str]) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

/// The Rust files below `folders`, as path from the root and content.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut files = files_below(folders);
    files.retain(|path| has_extension(path, "rs"));
    files.iter().map(|path| (shown(path), read(path))).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(
        offenders.is_empty(),
        "{rule}:\n  {}",
        offenders.join("\n  ")
    );
}

/// The places that contain one of `needles`, comments left out.
fn places_of(needles: &[&str], sources: &[(String, String)]) -> Vec<String> {
    let mut places = Vec::new();
    for (path, content) in sources {
        for (number, line) in content.lines().enumerate() {
            let comment = line.trim_start().starts_with("//");
            if !comment && needles.iter().any(|needle| line.contains(needle)) {
                places.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    places
}

#[test]
fn crates_use_only_the_crates_they_may() {
    let edges: BTreeMap<_, _> = EDGES.iter().copied().collect();
    let mut offenders = Vec::new();
    for package in packages().iter().filter(|package| package.name != E2E) {
        let Some(allowed) = edges.get(package.name.as_str()) else {
            offenders.push(format!("{} is not in the table", package.name));
            continue;
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.name.starts_with("backup-"))
        {
            let dev = dependency.kind.as_deref() == Some("dev");
            let fine = allowed.contains(&dependency.name.as_str())
                || dev && dependency.name == "backup-testing";
            if !fine {
                offenders.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    assert_none("edges that the table does not have", &offenders);
}

#[test]
fn libraries_stay_behind_their_fences() {
    let mut offenders = Vec::new();
    for package in packages().iter().filter(|package| package.name != E2E) {
        for dependency in &package.dependencies {
            let fence = FENCES
                .iter()
                .find(|(library, _)| match library.strip_suffix('*') {
                    Some(prefix) => dependency.name.starts_with(prefix),
                    None => dependency.name == *library,
                });
            let outside = |homes: &[&str]| !homes.contains(&package.name.as_str());
            if let Some((_, homes)) = fence.filter(|(_, homes)| outside(homes)) {
                offenders.push(format!(
                    "{} -> {}: only {}",
                    package.name,
                    dependency.name,
                    homes.join(" and ")
                ));
            }
        }
    }
    assert_none("libraries outside their fence", &offenders);
}

#[test]
fn only_process_crates_start_processes() {
    let mut sources = sources(&["crates", "bins"]);
    sources.retain(|(path, _)| {
        path.split('/')
            .nth(1)
            .is_some_and(|dir| !dir.ends_with("-process"))
    });
    assert_none(
        "child processes outside the *-process crates",
        &places_of(&[TOKIO_PROCESS], &sources),
    );
}

#[test]
fn the_product_never_runs_psql() {
    let places = places_of(&[PSQL], &sources(&["crates", "bins"]));
    assert_none(
        "psql runs what a backup says; use the control connection",
        &places,
    );
}

#[test]
fn unsafe_code_lives_in_one_file() {
    let mut sources = sources(EVERYWHERE);
    sources.retain(|(path, _)| path != UNSAFE_FILE);
    assert_none("unsafe code outside its file", &places_of(UNSAFE, &sources));
}

#[test]
fn lints_are_expected_with_a_reason_and_nothing_is_unfinished() {
    let sources = sources(EVERYWHERE);
    assert_none("use expect with a reason", &places_of(ALLOW, &sources));
    assert_none("unfinished code", &places_of(UNFINISHED, &sources));
}

#[test]
fn files_and_functions_are_short() {
    let sources = sources(EVERYWHERE);
    let long_files: Vec<_> = sources
        .iter()
        .map(|(path, content)| (path, content.lines().count()))
        .filter(|(_, lines)| *lines >= FILE_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert_none("files that want to be split", &long_files);

    let code = sources.iter().filter(|(path, _)| !path.contains("/tests/"));
    let long_functions: Vec<_> = code
        .flat_map(|(path, content)| {
            let long = functions(content).filter(|(_, _, lines)| *lines > FUNCTION_LINES);
            long.map(move |(line, name, lines)| format!("{path}:{line}: {name}: {lines} lines"))
        })
        .collect();
    assert_none("functions that want to be split", &long_functions);
}

/// The functions outside test modules: line, name, length with signature and braces.
///
/// rustfmt puts the closing brace alone on a line, at the indentation of the line that starts the
/// function, so that is what ends one.
fn functions(content: &str) -> impl Iterator<Item = (usize, &str, usize)> {
    let end = content
        .find("\n#[cfg(test)]\nmod ")
        .unwrap_or(content.len());
    let lines: Vec<&str> = content[..end].lines().collect();
    (0..lines.len()).filter_map(move |start| {
        let name = function_name(lines[start])?;
        let indent = indent(lines[start]);
        let is_end = |line: &&str| line.trim() == "}" || line.ends_with(';');
        let length = if lines[start].ends_with('}') {
            1
        } else {
            let mut body = lines[start..].iter().zip(1..);
            let last = body.find(|(line, _)| self::indent(line) == indent && is_end(line));
            last?.1
        };
        Some((start + 1, name, length))
    })
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name, if a function starts on this line.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let before = [
        "pub",
        "pub(crate)",
        "pub(super)",
        "async",
        "const",
        "unsafe",
        "extern",
        "\"C\"",
    ];
    let word = words.find(|word| !before.contains(word))?;
    (word == "fn")
        .then(|| words.next())??
        .split(['(', '<'])
        .next()
}

#[test]
fn every_crate_says_what_it_is() {
    let mut offenders = Vec::new();
    for package in packages() {
        if package
            .description
            .as_deref()
            .is_none_or(|text| text.len() < 20)
        {
            offenders.push(format!("{} has no description", package.name));
        }
        let folder = package
            .manifest_path
            .parent()
            .expect("a manifest lies in a folder");
        let entries = ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file));
        for file in entries.iter().filter(|file| file.exists()) {
            let docs: usize = read(file)
                .lines()
                .take_while(|l| l.starts_with("//!"))
                .map(str::len)
                .sum();
            if docs < 40 {
                offenders.push(format!("{} has no crate documentation", shown(file)));
            }
        }
    }
    assert_none("crates without a word about themselves", &offenders);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents = files_below(&["docs"]);
    documents.retain(|path| has_extension(path, "md"));
    let at_root = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name));
    documents.extend(at_root.into_iter().filter(|path| path.exists()));
    let mut offenders = Vec::new();
    for document in &documents {
        let folder = document.parent().expect("a document lies in a folder");
        for target in links(&read(document)) {
            if !folder.join(&target).exists() {
                offenders.push(format!("{}: {target}", shown(document)));
            }
        }
    }
    assert_none("dead links", &offenders);
}

/// The files that a Markdown text links to, without fragments and the world outside.
fn links(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let prose = text.lines().filter(|line| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced
    });
    let targets = prose
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| {
            let target = rest.split([')', ' ', '#']).next()?;
            (!target.is_empty() && !target.contains(':')).then(|| target.to_owned())
        });
    targets.collect()
}

#[test]
fn scripts_can_be_run() {
    let offenders: Vec<_> = files_below(&["scripts", ".ci"])
        .iter()
        .filter(|path| fs::read(path).is_ok_and(|content| content.starts_with(b"#!")))
        .filter(|path| {
            fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0o111)
        })
        .map(|path| shown(path))
        .collect();
    assert_none("scripts that are not executable", &offenders);
}

/// `scripts/test` runs the acceptance checks beside all others, which it names by what they do not begin with.
#[test]
fn no_suite_begins_like_the_acceptance_checks() {
    let suites: Vec<_> = packages()
        .into_iter()
        .flat_map(|package| package.targets)
        .filter(|target| target.kind == ["test"] && target.name.starts_with("su"))
        .map(|target| target.name)
        .collect();
    assert_eq!(suites, ["survive"]);
    let script = read(&root().join("scripts/test"));
    assert!(script.contains("--test survive "));
    assert!(script.contains("--test '[!s]*' --test 's[!u]*' "));
}

#[test]
fn one_rust_version_is_named_everywhere() {
    let toolchain = read(&root().join("rust-toolchain.toml"));
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .expect("rust-toolchain.toml names a channel")
        .trim_matches('"');
    for package in packages() {
        let version = package.rust_version.unwrap_or_default();
        let same = channel == version
            || channel
                .strip_prefix(&version)
                .is_some_and(|rest| rest.starts_with('.'));
        assert!(
            same,
            "{} says Rust {version:?}, rust-toolchain.toml {channel}",
            package.name
        );
    }
    let image = read(&root().join("packaging/container/Containerfile"));
    let minor: Vec<_> = channel.split('.').take(2).collect();
    let stage = format!("\nFROM rust:{}-", minor.join("."));
    assert!(
        image.contains(&stage),
        "the image is not built by {channel}"
    );
}

#[test]
fn the_function_scan_sees_what_it_should() {
    let code = "impl A {\n    pub(crate) async fn long(\n        a: u8,\n    ) -> u8 {\n        {\n        }\n    }\n\n    fn declared(&self);\n    fn empty() {}\n}\n\n#[cfg(test)]\nmod tests {\n    fn hidden() {\n    }\n}\n";
    let found: Vec<_> = functions(code).collect();
    assert_eq!(
        found,
        [(2, "long", 6), (9, "declared", 1), (10, "empty", 1)]
    );
    assert_eq!(function_name("let f = fn_name();"), None);
}

#[test]
fn the_link_scan_sees_what_it_should() {
    let text = "[a](one.md#part) [b](https://x) ![c](two.png)\n```\n[d](not.md)\n```\n[e](#here)";
    assert_eq!(
        links(text).into_iter().collect::<Vec<_>>(),
        ["one.md", "two.png"]
    );
}
