//! Listings of thousands of backups: complete, in order, neighbours apart, and nothing touched.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use backup_e2e::cli::Cli;
use backup_e2e::crowd::{self, Member, SOURCES};
use backup_e2e::s3::{Kind, Server};
use serde_json::Value;

const COUNT: usize = 3000;

/// What others have put beside and between the backups.
const FOREIGN: [&str; 6] = [
    "notes.txt",
    "backups/readme",
    "backups/app/20230101T000000Z-0000-copy/manifest.json",
    "backups/app/manifest.json",
    "backups/not encoded+é/20230101T000000Z-0000/manifest.json",
    "_runs/2023/01/note.json",
];

/// A place full of backups, by the program and by other means.
struct Place<'a> {
    cli: Cli,
    url: String,
    members: Vec<Member>,
    keys: &'a dyn Fn() -> Result<Vec<String>>,
    put: &'a dyn Fn(&str, &[u8]) -> Result<()>,
    delete: &'a dyn Fn(&str) -> Result<()>,
}

impl Place<'_> {
    fn list(&self, more: &[&str], code: i32) -> Result<Vec<Value>> {
        let place = ["list", "--json", "--from", &self.url];
        let run = self.cli.run(place.iter().chain(more))?.exits(code)?;
        let listed = run.json()?;
        Ok(listed.as_array().context("an array")?.clone())
    }

    fn assert_lists(&self, more: &[&str], expected: &[&Member]) -> Result<()> {
        let listed = self.list(more, 0)?;
        assert_eq!(listed.len(), expected.len(), "{more:?}");
        for (found, member) in listed.iter().zip(expected) {
            assert_eq!(
                (&found["source"], &found["id"]),
                (&member.source.into(), &member.id.as_str().into())
            );
            let level = &found["verified_level"];
            let verified = if member.verified {
                Value::from("hashed")
            } else {
                Value::Null
            };
            assert_eq!(*level, verified, "{found}");
            assert_eq!(found["stored_bytes"], 4_u64 << 27);
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        for key in FOREIGN {
            (self.put)(key, b"theirs")?;
        }
        let before = (self.keys)()?;
        let newest_first: Vec<_> = self.members.iter().rev().collect();
        let of = |source: &str| -> Vec<_> {
            let all = newest_first.iter().copied();
            all.filter(|member| member.source == source).collect()
        };
        self.assert_lists(&[], &newest_first)?;
        // What was read before may be remembered; it is the same.
        self.assert_lists(&[], &newest_first)?;
        for source in SOURCES {
            assert_eq!(of(source).len(), COUNT / SOURCES.len());
            self.assert_lists(&[source], &of(source))?;
            self.assert_lists(&[source, "--limit", "7"], &of(source)[..7])?;
        }
        self.assert_lists(&["--limit", "40"], &newest_first[..40])?;
        let show = |what: &str, source: &str| -> Result<Value> {
            let place = [
                "show", what, "--source", source, "--json", "--from", &self.url,
            ];
            Ok(self.cli.run(place)?.exits(0)?.json()?["id"].clone())
        };
        for source in SOURCES {
            let all = of(source);
            let verified = all.iter().find(|member| member.verified);
            assert_eq!(show("latest", source)?, all[0].id);
            assert_eq!(show("oldest", source)?, all[all.len() - 1].id);
            let verified = verified.context("a verified one")?;
            assert_eq!(show("latest-verified", source)?, verified.id);
        }
        assert!((self.keys)()? == before, "something was touched");
        self.check_changes(&newest_first)
    }

    /// A backup that lost its manifest is none, and one with a damaged manifest is named, also
    /// where both were read before.
    fn check_changes(&self, newest_first: &[&Member]) -> Result<()> {
        let manifest = |member: &Member| {
            let keys = member.objects.iter().map(|(key, _)| key.clone());
            let mut manifests = keys.filter(|key| key.ends_with("/manifest.json"));
            manifests.next().context("a manifest")
        };
        (self.delete)(&manifest(newest_first[5])?)?;
        let mut left = newest_first.to_vec();
        left.remove(5);
        self.assert_lists(&[], &left)?;
        (self.put)(&manifest(newest_first[9])?, b"{}")?;
        let place = ["list", "--json", "--from", &self.url];
        let run = self.cli.run(place)?.exits(3)?;
        assert!(run.stderr.contains(&newest_first[9].id), "{}", run.stderr);
        assert_eq!(run.json()?.as_array().map(Vec::len), Some(left.len() - 1));
        Ok(())
    }
}

#[test]
fn a_directory_with_thousands_of_backups_is_listed() -> Result<()> {
    let cli = Cli::without_server()?;
    let root = cli.local_root();
    fs::create_dir(&root)?;
    let members = crowd::members(COUNT)?;
    crowd::into_directory(&root, &members)?;
    let keys = || {
        let mut found = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    folders.push(entry.path());
                } else {
                    let length = entry.metadata()?.len();
                    found.insert(format!("{} {length}", entry.path().display()));
                }
            }
        }
        Ok(found.into_iter().collect())
    };
    let put = |key: &str, bytes: &[u8]| {
        let file = root.join(key);
        fs::create_dir_all(file.parent().context("a folder")?)?;
        Ok(fs::write(file, bytes)?)
    };
    let delete = |key: &str| Ok(fs::remove_file(root.join(key))?);
    let place = Place {
        url: cli.local_store(),
        cli,
        members,
        keys: &keys,
        put: &put,
        delete: &delete,
    };
    place.check()?;
    // A directory is read anew each time.
    assert!(!place.cli.folder().join(".cache").exists());
    Ok(())
}

#[test]
#[ignore = "needs servers: run ./scripts/test"]
fn a_bucket_with_thousands_of_backups_is_listed() -> Result<()> {
    let server = Server::shared(Kind::SeaweedFs)?;
    let (bucket, prefix) = ("crowded", "some/place");
    server.create_bucket(bucket)?;
    let members = crowd::members(COUNT)?;
    crowd::into_bucket(server, bucket, prefix, &members)?;
    let at = |key: &str| format!("{prefix}/{key}");
    let keys = || server.list_keys(bucket, "");
    let put = |key: &str, bytes: &[u8]| server.put_object(bucket, &at(key), bytes);
    let delete = |key: &str| server.delete_object(bucket, &at(key));
    let place = Place {
        url: format!("s3://{bucket}/{prefix}"),
        cli: Cli::without_server()?.with_s3(server),
        members,
        keys: &keys,
        put: &put,
        delete: &delete,
    };
    place.check()?;
    let folder = place.cli.folder().join(".cache/backup");
    let mode = |path| fs::metadata(path).map(|meta| meta.permissions().mode() & 0o777);
    assert_eq!(mode(folder.clone())?, 0o700);
    let files: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    assert_eq!(files.len(), 1, "{files:?}");
    assert_eq!(mode(files[0].path())?, 0o600);
    Ok(())
}
