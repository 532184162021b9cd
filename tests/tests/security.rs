//! What the page on security promises is held by tests: each that it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package lies inside the workspace")
}

fn page() -> String {
    fs::read_to_string(root().join("docs/SECURITY.md")).expect("the page is there")
}

/// The names of all functions that are tests.
fn tests() -> BTreeSet<String> {
    let mut open: Vec<PathBuf> = ["crates", "bins", "tests"]
        .iter()
        .map(|folder| root().join(folder))
        .collect();
    let mut names = BTreeSet::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                names.extend(tests_of(&text));
            }
        }
    }
    names
}

/// The functions below an attribute that makes them tests.
fn tests_of(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        is_test |= line.starts_with("#[") && (line.contains("test]") || line.contains("test("));
        let signature = line.trim_start_matches("async ");
        if let Some(rest) = signature.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next();
            names.extend(name.filter(|_| is_test).map(str::to_owned));
            is_test = false;
        }
    }
    names
}

/// The numbered groups of names below the page's last list.
fn groups(page: &str) -> Vec<(usize, Vec<&str>)> {
    let (_, list) = page
        .split_once("\n## Tests that prove it\n")
        .expect("the page has a list");
    let list = list.split("\n## ").next().unwrap_or(list);
    let mut groups: Vec<(usize, Vec<&str>)> = Vec::new();
    for line in list.lines() {
        let number = line.split_once(". `").and_then(|(n, _)| n.parse().ok());
        groups.extend(number.map(|number| (number, Vec::new())));
        if let Some((_, names)) = groups.last_mut() {
            names.extend(line.split('`').skip(1).step_by(2));
        }
    }
    groups
}

#[test]
fn the_tests_that_the_page_names_are_there() {
    let (page, tests) = (page(), tests());
    let groups = groups(&page);
    let numbers: Vec<_> = groups.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=groups.len()).collect::<Vec<_>>());
    assert!(groups.len() >= 15, "{groups:?}");
    let missing: Vec<_> = groups
        .iter()
        .flat_map(|(_, names)| names)
        .filter(|name| !tests.contains(**name))
        .collect();
    assert_eq!(missing, [] as [&&str; 0], "no such tests");
    assert!(groups.iter().all(|(_, names)| !names.is_empty()));
}

#[test]
fn every_promise_of_the_page_has_a_test() {
    let page = page();
    let (_, table) = page
        .split_once("| tests |\n")
        .expect("the page has a table");
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let known = groups(&page).len();
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let number = cells
            .last()
            .expect("a row has cells")
            .trim()
            .parse::<usize>();
        let number = number.unwrap_or_else(|_| panic!("no number of a test: {row}"));
        assert!((1..=known).contains(&number), "{row}");
        count += 1;
    }
    assert!(count >= 10, "{count} promises");
}

#[test]
fn the_scan_sees_tests_and_nothing_else() {
    let text = "fn helper() {}\n#[test]\nfn one() {}\nfn two() {}\n#[rstest]\n#[ignore = \"x\"]\n\
                fn three(#[values(1)] a: u8) {}\n    #[tokio::test]\n    async fn four() {}\n\
                #[cfg(test)]\nmod tests {\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn five() {}\n";
    assert_eq!(tests_of(text), ["one", "three", "four", "five"]);
    let page = "\n## Tests that prove it\n\n1. `a`,\n   `b`\n2. `c`\n\n## Next\n`d`\n";
    assert_eq!(groups(page), [(1, vec!["a", "b"]), (2, vec!["c"])]);
}
