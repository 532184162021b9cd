//! DAGs for Apache Airflow.

use std::collections::BTreeMap;

use crate::{
    Artifact, Calendar, Generated, Opens, Plan, fill, put, quote, unsayable, upkeep_arguments,
};

const FILE: &str = include_str!("../templates/backup_dags.py");

/// What the DAG of sources without a schedule has in the place of one.
const BY_HAND: (&str, &str) = ("", "UTC");

pub(crate) fn dags(plan: &Plan) -> Generated {
    let mut made = Generated::default();
    let config = plan
        .config
        .as_deref()
        .map_or("None".to_owned(), quote::python);
    let rounds = rounds(plan, &mut made.notes);
    let upkeep = upkeep(plan, &mut made.notes);
    let connections = connections(plan);
    let variables = if plan.sources.is_empty() {
        VARIABLES_OF_ONE
    } else {
        VARIABLES
    };
    let values = [
        ("PROGRAM", quote::python(&plan.program)),
        ("CONFIG", config),
        ("ROUNDS", rounds),
        ("UPKEEP", upkeep),
        ("CONNECTIONS", connections),
        ("VARIABLES", variables.to_owned()),
    ];
    let values: Vec<_> = values
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    made.files
        .push(Artifact::new("backup_dags.py", fill(FILE, &values)));
    made
}

const VARIABLES: &str = "    \"PARALLEL_JOBS\": None,\n";
const VARIABLES_OF_ONE: &str = "    \"MINIO_BUCKET\": None,
    \"MINIO_BACKUP_PATH\": \"backups/postgres\",
    \"PARALLEL_JOBS\": \"4\",
";

/// Without configured sources, one database, as its Connection says.
const CONNECTIONS_OF_ONE: &[(&str, &str, &str)] = &[
    ("PG_HOST", "postgres_default", "host"),
    ("PG_PORT", "postgres_default", "port"),
    ("PG_DB", "postgres_default", "schema"),
    ("PG_USER", "postgres_default", "login"),
    ("PG_PASSWORD", "postgres_default", "password"),
    ("MINIO_ENDPOINT", "minio_default", "host"),
    ("MINIO_ACCESS_KEY", "minio_default", "login"),
    ("MINIO_SECRET_KEY", "minio_default", "password"),
];

/// One DAG for all sources of one schedule: they begin together, and executors spread them.
fn rounds(plan: &Plan, notes: &mut Vec<String>) -> String {
    let mut rounds: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for source in &plan.sources {
        let key = match &source.when {
            None => Some((BY_HAND.0.to_owned(), BY_HAND.1)),
            Some(when) => {
                let calendar = Calendar::parse(&when.expression);
                if calendar.is_none() {
                    let what = format!("source {:?}", source.name);
                    notes.push(unsayable(&what, when, "Airflow"));
                }
                calendar.map(|calendar| (calendar.cron(), when.zone.as_str()))
            }
        };
        if let Some(key) = key {
            rounds.entry(key).or_default().push(&source.name);
        }
    }
    if plan.sources.is_empty() {
        // The one database that the Connection names.
        return "    (\"backup\", \"0 0 * * *\", \"UTC\", [None]),\n".to_owned();
    }
    let only = rounds.len() == 1;
    let mut text = String::new();
    for ((cron, zone), names) in rounds {
        let id = if only {
            "backup".to_owned()
        } else if cron.is_empty() {
            "backup_by_hand".to_owned()
        } else {
            // Two schedules have two names.
            let words = cron.replace('*', "any");
            format!("backup_{}", quote::slug(&format!("{words} {zone}"), 60))
        };
        let cron = if cron.is_empty() {
            "None".to_owned()
        } else {
            quote::python(&cron)
        };
        let names: Vec<_> = names.into_iter().map(quote::python).collect();
        let (id, zone, names) = (quote::python(&id), quote::python(zone), names.join(", "));
        put(
            &mut text,
            format_args!("    ({id}, {cron}, {zone}, [{names}]),\n"),
        );
    }
    text
}

fn upkeep(plan: &Plan, notes: &mut Vec<String>) -> String {
    let mut text = String::new();
    for one in &plan.upkeep {
        let Some(calendar) = Calendar::parse(&one.when.expression) else {
            notes.push(unsayable(&one.operation, &one.when, "Airflow"));
            continue;
        };
        let arguments = upkeep_arguments(&one.operation)
            .iter()
            .map(|word| quote::python(word));
        let arguments: Vec<_> = arguments.collect();
        put(
            &mut text,
            format_args!(
                "    ({}, {}, {}, [{}]),\n",
                quote::python(&format!("backup_{}", one.operation)),
                quote::python(&calendar.cron()),
                quote::python(&one.when.zone),
                arguments.join(", ")
            ),
        );
    }
    text
}

/// Which variable of the program comes out of which Connection.
fn connections(plan: &Plan) -> String {
    let line = |(variable, connection, field): (&str, &str, &str)| {
        format!(
            "    {}: ({}, {}),\n",
            quote::python(variable),
            quote::python(connection),
            quote::python(field)
        )
    };
    if plan.sources.is_empty() {
        return CONNECTIONS_OF_ONE.iter().copied().map(line).collect();
    }
    let variables = plan.variables();
    let several = |is: fn(&Opens) -> Option<&str>| {
        let mut names: Vec<_> = variables
            .iter()
            .filter_map(|(_, opens)| is(opens))
            .collect();
        names.sort_unstable();
        names.dedup();
        names.len() > 1
    };
    let servers = several(|opens| match opens {
        Opens::Server(name) => Some(name),
        _ => None,
    });
    let destinations = several(|opens| match opens {
        Opens::DestinationId(name) | Opens::DestinationKey(name) => Some(name),
        _ => None,
    });
    // One is the default; of several, each has its own name.
    let connection = |several: bool, kind: &str, name: &str| {
        if several {
            format!("{kind}_{name}")
        } else {
            format!("{kind}_default")
        }
    };
    let lines = variables.iter().map(|(variable, opens)| {
        let (connection, field) = match opens {
            Opens::Server(name) => (connection(servers, "postgres", name), "password"),
            Opens::DestinationId(name) => (connection(destinations, "minio", name), "login"),
            Opens::DestinationKey(name) => (connection(destinations, "minio", name), "password"),
            Opens::Restores | Opens::Serving | Opens::Other => {
                (format!("backup_{}", variable.to_lowercase()), "password")
            }
        };
        line((variable, &connection, field))
    });
    lines.collect()
}
