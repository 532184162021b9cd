//! A Compose file for the server alone.

use crate::{Artifact, Generated, Plan, fill, in_comment, put, quote};

/// The file with a database and a bucket beside it, whose confinement this shares.
const PACKAGED: &str = include_str!("../../../packaging/compose/compose.yaml");
const FILE: &str = include_str!("../templates/compose.yaml");

pub(crate) fn file(plan: &Plan) -> Generated {
    let mut made = Generated::default();
    let mut environment = String::new();
    for (name, _) in plan.variables() {
        let name = in_comment(name);
        put(
            &mut environment,
            format_args!(
                "      {}: \"${{{name}:?say it in .env}}\"\n",
                quote::yaml(&name)
            ),
        );
    }
    let (mut uses, mut secrets) = (String::new(), String::new());
    let files = plan
        .files()
        .into_iter()
        .map(|path| (path.to_owned(), path.to_owned()));
    let credentials = plan.credentials().into_iter();
    let credentials = credentials.map(|name| {
        let from = format!("/etc/backup/{name}");
        (from, format!("/run/backup-credentials/{name}"))
    });
    for (from, to) in files.chain(credentials) {
        let key = quote::slug(&to, 60);
        put(
            &mut uses,
            format_args!(
                "      - {{ source: {key}, target: {} }}\n",
                quote::compose(&to)
            ),
        );
        put(
            &mut secrets,
            format_args!("  {key}:\n    file: {}\n", quote::compose(&from)),
        );
    }
    if !plan.credentials().is_empty() {
        environment += "      CREDENTIALS_DIRECTORY: /run/backup-credentials\n";
    }
    let (mut mounts, mut volumes) = (String::new(), String::new());
    for (name, path) in &plan.directories {
        let volume = format!("backup-{}", quote::slug(name, 50));
        put(
            &mut mounts,
            format_args!(
                "      - {{ type: volume, source: {volume}, target: {} }}\n",
                quote::compose(path)
            ),
        );
        put(&mut volumes, format_args!("  {volume}:\n"));
    }
    let config = plan.config.as_deref().unwrap_or("/etc/backup/backup.toml");
    let text = fill(
        FILE,
        &[
            ("IMAGE", &quote::compose(&plan.image)),
            ("ENVIRONMENT", &section("    environment:\n", &environment)),
            ("USES", &section("    secrets:\n", &uses)),
            ("MOUNTS", &section("    volumes:\n", &mounts)),
            ("CONFINED", &confined()),
            ("CONFIG", &quote::compose(config)),
            ("SECRETS", &section("\nsecrets:\n", &secrets)),
            ("VOLUMES", &section("\nvolumes:\n", &volumes)),
        ],
    );
    made.notes.extend(plan.unreachable());
    made.files.push(Artifact::new("compose.yaml", text));
    made
}

/// Lines with their heading, unless there are none.
fn section(heading: &str, lines: &str) -> String {
    if lines.is_empty() {
        String::new()
    } else {
        format!("{heading}{lines}")
    }
}

/// How the packaged service is confined.
fn confined() -> String {
    let (_, service) = PACKAGED.split_once("\n  backup:\n").unwrap_or_default();
    let (_, confined) = service.split_once("    read_only:").unwrap_or_default();
    let (confined, _) = confined.split_once("    depends_on:").unwrap_or_default();
    format!("    read_only:{confined}")
}
