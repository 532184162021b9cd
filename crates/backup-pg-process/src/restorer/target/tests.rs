use std::collections::BTreeSet;

use super::*;
use crate::{DatabaseGrant, DatabaseSetting, ExtensionDetails};
use rstest::rstest;

fn server(version_num: u32) -> Server {
    Server {
        version_num,
        login: "me".to_owned(),
        is_superuser: true,
        creates_roles: true,
        member_of: BTreeSet::new(),
        roles: ["app".to_owned()].into(),
        tablespaces: BTreeSet::new(),
        extensions: vec![("plpgsql".to_owned(), Some("1.0".to_owned()))],
        trusted: BTreeSet::new(),
        max_name_bytes: 63,
        is_standby: false,
    }
}

fn target() -> Target {
    let mark = Mark::Made("run 1".to_owned());
    Target::new(ConnectionConfig::new("/run", "me"), "new \"one\"", mark)
}

#[rstest]
#[case("shop", true)]
#[case("dbname=other", true)]
#[case("", false)]
#[case("a\nb", false)]
#[case(&"x".repeat(64), false)]
fn names_of_targets(#[case] name: &str, #[case] good: bool) {
    assert_eq!(server(180_000).check_name(name).is_ok(), good);
}

#[test]
fn properties_follow_the_owner() {
    let setting = |role: Option<&str>| DatabaseSetting {
        role: role.map(str::to_owned),
        name: "app.mode".to_owned(),
        value: "x".to_owned(),
    };
    let details = DatabaseDetails {
        settings: vec![setting(None), setting(Some("app"))],
        grants: Some(vec![DatabaseGrant {
            grantee: None,
            grantor: "app".to_owned(),
            privilege: "CONNECT".to_owned(),
            grantable: false,
        }]),
        connection_limit: -1,
        ..DatabaseDetails::default()
    };
    let name = r#""new ""one""""#;
    assert_eq!(
        target().properties(&details, &Ownership::Login),
        [format!(r#"ALTER DATABASE {name} SET "app"."mode" TO 'x'"#)]
    );
    assert_eq!(
        target().properties(&details, &Ownership::Keep),
        [
            format!(r#"ALTER DATABASE {name} SET "app"."mode" TO 'x'"#),
            format!(r#"ALTER ROLE "app" IN DATABASE {name} SET "app"."mode" TO 'x'"#),
            format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
            format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC"),
        ]
    );
}

#[test]
fn missing_extensions_are_named() {
    let extension = |name: &str, version: &str| ExtensionDetails {
        name: name.to_owned(),
        version: version.to_owned(),
        schema: "public".to_owned(),
    };
    let mut details = DatabaseDetails {
        extensions: vec![extension("plpgsql", "0.9")],
        ..DatabaseDetails::default()
    };
    let warnings = server(150_000)
        .check_extensions(details.extensions.iter())
        .unwrap();
    assert_eq!(
        warnings,
        ["extension plpgsql is version 1.0 on the target, 0.9 in the backup"]
    );
    details.extensions.push(extension("postgis", "3"));
    let error = server(150_000)
        .check_extensions(details.extensions.iter())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "extensions that the backup needs are not installed: postgis"
    );
}
