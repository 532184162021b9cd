//! What targets of the fuzzer were given once is read well ever after: the seeds in `fuzz/corpus`, and in
//! `fuzz/regressions` what a reader could not take before it was mended. `scripts/fuzz` looks for more.

#[path = "../../fuzz/src/lib.rs"]
pub mod targets;

use std::fs;
use std::path::Path;

/// Gives a target all files of its folder; how many they were.
fn replay(target: targets::Target, folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut count = 0;
    for entry in entries {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        #[expect(clippy::print_stdout, reason = "shown if the test fails")]
        {
            println!("{}", path.display());
        }
        target(&bytes);
        count += 1;
    }
    count
}

#[test]
fn readers_take_what_they_were_given_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, target) in targets::TARGETS {
        let seeds = replay(target, &root.join("corpus").join(name));
        assert!(seeds >= 3, "{name} has {seeds} seeds");
        replay(target, &root.join("regressions").join(name));
        // And nothing at all.
        target(b"");
    }
}

#[test]
fn each_folder_belongs_to_a_target_and_each_target_is_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
    for (name, _) in targets::TARGETS {
        assert!(
            manifest.contains(&format!("path = \"targets/{name}.rs\"")),
            "{name}"
        );
    }
    for kind in ["corpus", "regressions"] {
        for entry in fs::read_dir(root.join(kind)).into_iter().flatten() {
            let name = entry.expect("an entry").file_name();
            let known = targets::TARGETS.iter().any(|(target, _)| name == *target);
            assert!(known, "{kind}/{}", name.display());
        }
    }
}
