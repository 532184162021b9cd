//! What an archive says of its database, as far as it does: the rest a restore takes from its server.

use std::collections::BTreeSet;

use backup_pg_archive::{ArchiveReport, CreatedAt, DumpText, TocEntry};
use chrono::{NaiveDate, NaiveDateTime};

use crate::{DatabaseDetails, LocaleProvider};

/// The clock of the host that dumped it.
pub(super) fn created(at: &CreatedAt) -> Option<NaiveDateTime> {
    let number = |number: i32| u32::try_from(number).ok();
    NaiveDate::from_ymd_opt(at.year, number(at.month)?, number(at.day)?)?.and_hms_opt(
        number(at.hour)?,
        number(at.minute)?,
        number(at.second)?,
    )
}

/// `16.15` of `16.15 (Debian 16.15-1)`.
pub(super) fn version(text: Option<&DumpText>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    let word = text.split_whitespace().next().unwrap_or("unknown");
    word.to_owned()
}

fn version_num(version: &str) -> u32 {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    let (major, minor): (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    major * 10_000 + minor
}

pub(super) fn details(archive: &ArchiveReport, warnings: &mut Vec<String>) -> DatabaseDetails {
    let database = archive
        .entries
        .iter()
        .find(|entry| entry.desc == "DATABASE");
    let definition = database.and_then(|entry| entry.defn.as_ref());
    let definition = definition.map(ToString::to_string).unwrap_or_default();
    let option = |name: &str| option(&definition, name);
    let locale = option("LOCALE");
    let collate = option("LC_COLLATE").or(locale.clone());
    let ctype = option("LC_CTYPE").or(locale.clone());
    if collate.is_none() {
        let text = "the dump does not say how its database sorts: a restore sorts as its server does \
                    by default in C";
        warnings.push(text.to_owned());
    }
    let provider = match option("LOCALE_PROVIDER").as_deref() {
        Some("icu") => LocaleProvider::Icu,
        Some("builtin") => LocaleProvider::Builtin,
        _ => LocaleProvider::Libc,
    };
    let other = option("ICU_LOCALE").or(option("BUILTIN_LOCALE"));
    let roles = roles(&archive.entries);
    let collate = collate.unwrap_or_else(|| "C".to_owned());
    let server = version(archive.header.server_version.as_ref());
    DatabaseDetails {
        name: archive
            .header
            .database
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        server_version_num: version_num(&server),
        encoding: archive.encoding().unwrap_or("UTF8").to_owned(),
        ctype: ctype.unwrap_or_else(|| collate.clone()),
        locale: match provider {
            LocaleProvider::Libc => None,
            _ => other.or(locale),
        },
        locale_provider: provider,
        owner: owner(database),
        connection_limit: -1,
        roles: roles.into_iter().collect(),
        large_objects: archive.large_objects.count,
        // What it was is not known; a column of type money shows in the comparison if it was another.
        lc_monetary: collate.clone(),
        collate,
        ..DatabaseDetails::default()
    }
}

fn owner(database: Option<&TocEntry>) -> String {
    let owner = database.and_then(|entry| entry.owner.as_ref());
    owner.map(ToString::to_string).unwrap_or_default()
}

/// The value of `NAME = 'value'` or `NAME = value`.
fn option(definition: &str, name: &str) -> Option<String> {
    let (_, rest) = definition.split_once(&format!(" {name} = "))?;
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next()?,
        None => rest.split([' ', ';']).next()?,
    };
    Some(value.to_owned())
}

/// Owners, and those who are granted something.
fn roles(entries: &[TocEntry]) -> BTreeSet<String> {
    let mut roles = BTreeSet::new();
    for entry in entries {
        roles.extend(entry.owner.as_ref().map(ToString::to_string));
        let is_grant = entry.desc == "ACL" || entry.desc == "DEFAULT ACL";
        if let Some(text) = entry.defn.as_ref().filter(|_| is_grant) {
            roles.extend(grantees(&text.to_string()));
        }
    }
    roles.remove("");
    roles
}

/// Of `GRANT SELECT ON TABLE app.t TO reader;`. PUBLIC is everybody and no role.
fn grantees(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.contains("GRANT "));
    let named = lines.filter_map(|line| {
        let (_, rest) = line.rsplit_once(" TO ")?;
        let rest = rest
            .trim_end_matches(';')
            .trim_end_matches(" WITH GRANT OPTION");
        match rest.strip_prefix('"') {
            Some(quoted) => Some(quoted.strip_suffix('"')?.replace("\"\"", "\"")),
            None => (rest != "PUBLIC").then(|| rest.to_owned()),
        }
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_database() {
        let text = "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' \
                    LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8';";
        assert_eq!(option(text, "LOCALE").as_deref(), Some("C.UTF-8"));
        assert_eq!(option(text, "LOCALE_PROVIDER").as_deref(), Some("libc"));
        assert_eq!(option(text, "LC_COLLATE"), None);
        assert_eq!(version_num("16.15"), 160_015);
    }

    #[test]
    fn roles_of_grants() {
        let text = "REVOKE ALL ON TABLE t FROM x;\nGRANT SELECT ON TABLE t TO reader;\n\
                    GRANT ALL ON TABLE t TO \"a \"\"b\"\"\" WITH GRANT OPTION;\nGRANT SELECT ON t TO PUBLIC;";
        assert_eq!(grantees(text), ["reader", "a \"b\""]);
    }
}
