//! Manifests for Kubernetes.

use crate::{
    Artifact, Calendar, Generated, Plan, PlannedSource, When, fill, in_comment, put, quote,
    unsayable, upkeep_arguments,
};

const HEAD: &str = include_str!("../templates/kubernetes/head.yaml");
const CRON_JOB: &str = include_str!("../templates/kubernetes/cronjob.yaml");
const SERVER: &str = include_str!("../templates/kubernetes/server.yaml");
const CONFINED: &str = include_str!("../templates/kubernetes/confined.yaml");
const CONTAINER: &str = include_str!("../templates/kubernetes/container.yaml");
const VOLUMES: &str = include_str!("../templates/kubernetes/volumes.yaml");

/// A Job and its pod get names that are eleven characters longer.
const LONGEST: usize = 52;
/// Where credentials are that systemd would have passed.
const CREDENTIALS: &str = "/run/backup-credentials";
/// The columns in which a pod's own settings begin: in a `CronJob`, and in a Deployment.
const IN_JOB: usize = 10;
const IN_DEPLOYMENT: usize = 6;

pub(crate) fn manifests(plan: &Plan) -> Generated {
    let mut made = Generated::default();
    let pod = Pod::new(plan);
    made.notes.extend(plan.unreachable());
    let mut text = fill(HEAD, &[("SECRETS", &pod.wanted)]);
    for (source, when) in plan.scheduled() {
        let words = ["backup", "--", &source.name];
        let job = Job {
            name: format!("backup-{}", quote::slug(&source.name, LONGEST - 7)),
            what: &source.name,
            words: &words,
            limit: deadline(source),
        };
        match job.manifest(plan, when) {
            Some(job) => text += &job,
            None => made.notes.push(unsayable(
                &format!("source {:?}", source.name),
                when,
                "Kubernetes",
            )),
        }
    }
    for one in &plan.upkeep {
        let job = Job {
            // No source has a name with two hyphens in its slug.
            name: format!("backup--{}", one.operation),
            what: &one.operation,
            words: upkeep_arguments(&one.operation),
            limit: String::new(),
        };
        match job.manifest(plan, &one.when) {
            Some(job) => text += &job,
            None => made
                .notes
                .push(unsayable(&one.operation, &one.when, "Kubernetes")),
        }
    }
    let image = quote::yaml(&plan.image);
    let lines = pod.lines(IN_DEPLOYMENT);
    text += &fill(SERVER, &lines.and(&[("IMAGE", &image)]));
    made.notes
        .extend(plan.directories.iter().map(|(name, path)| {
            let claim = claim(name);
            format!("destination {name:?}: the pods want a volume claim {claim} for {path}")
        }));
    made.files.push(Artifact::new("backup.yaml", text));
    made
}

/// A backup ends by itself in its time, with a record; this is for a node that does not let it.
fn deadline(source: &PlannedSource) -> String {
    match source.timeout_seconds {
        0 => String::new(),
        seconds => format!(
            "      activeDeadlineSeconds: {}\n",
            seconds.saturating_add(600)
        ),
    }
}

fn claim(destination: &str) -> String {
    format!("backup-{}", quote::slug(destination, 50))
}

/// What is run at its time.
struct Job<'a> {
    name: String,
    what: &'a str,
    words: &'a [&'a str],
    limit: String,
}

impl Job<'_> {
    fn manifest(&self, plan: &Plan, when: &When) -> Option<String> {
        let pod = Pod::new(&plan.wanted_by(self.words));
        let schedule = quote::yaml(&Calendar::parse(&when.expression)?.cron());
        let words = ["backup-cli", "--log-format", "json"];
        let words = words.iter().chain(self.words);
        let words = words.map(|word| format!("                - {}\n", quote::kubernetes(word)));
        let words: String = words.collect();
        let (what, zone) = (quote::yaml(self.what), quote::yaml(&when.zone));
        let image = quote::yaml(&plan.image);
        let lines = pod.lines(IN_JOB);
        Some(fill(
            CRON_JOB,
            &lines.and(&[
                ("NAME", &self.name),
                ("SOURCE", &what),
                ("SCHEDULE", &schedule),
                ("ZONE", &zone),
                ("LIMIT", &self.limit),
                ("IMAGE", &image),
                ("ARGUMENTS", &words),
            ]),
        ))
    }
}

/// What every pod has of the configuration, as lines of YAML.
#[derive(Default)]
struct Pod {
    environment: String,
    mounts: String,
    volumes: String,
    /// The keys of the Secret that are files in there, and no others.
    items: String,
    /// What the Secret is to hold, as lines of a comment.
    wanted: String,
}

/// The same where it belongs.
struct Lines([(&'static str, String); 3]);

impl Pod {
    fn new(plan: &Plan) -> Self {
        let mut pod = Self::default();
        let mut keys = Vec::new();
        for (name, _) in plan.variables() {
            let quoted = quote::yaml(name);
            put(
                &mut pod.environment,
                format_args!(
                    "- name: {quoted}\n  valueFrom:\n    secretKeyRef: {{ name: backup-secrets, key: {quoted} }}\n"
                ),
            );
            keys.push((name.to_owned(), format!("variable {name}")));
        }
        for path in plan.files() {
            let (key, path) = (quote::slug(path, 200), in_comment(path));
            let place = quote::yaml(&path);
            put(
                &mut pod.mounts,
                format_args!(
                    "- {{ name: secrets, mountPath: {place}, subPath: {key}, readOnly: true }}\n"
                ),
            );
            pod.item(&key);
            keys.push((key, format!("file {path}")));
        }
        let credentials = plan.credentials();
        if !credentials.is_empty() {
            put(
                &mut pod.environment,
                format_args!("- {{ name: CREDENTIALS_DIRECTORY, value: {CREDENTIALS} }}\n"),
            );
            put(
                &mut pod.mounts,
                format_args!("- {{ name: secrets, mountPath: {CREDENTIALS}, readOnly: true }}\n"),
            );
        }
        for name in credentials {
            pod.item(name);
            keys.push((name.to_owned(), format!("credential {name}")));
        }
        for (name, path) in &plan.directories {
            let (volume, path) = (claim(name), quote::yaml(path));
            put(
                &mut pod.mounts,
                format_args!("- {{ name: {volume}, mountPath: {path} }}\n"),
            );
            put(
                &mut pod.volumes,
                format_args!(
                    "- name: {volume}\n  persistentVolumeClaim: {{ claimName: {volume} }}\n"
                ),
            );
        }
        for (key, what) in keys {
            put(
                &mut pod.wanted,
                format_args!("#     {}    {}\n", in_comment(&key), in_comment(&what)),
            );
        }
        pod
    }

    /// Shows the pod a key of the Secret.
    fn item(&mut self, key: &str) {
        let key = quote::yaml(key);
        put(
            &mut self.items,
            format_args!("      - {{ key: {key}, path: {key} }}\n"),
        );
    }

    /// Its lines, for a pod that begins in that column.
    fn lines(&self, column: usize) -> Lines {
        let container = fill(
            CONTAINER,
            &[
                ("ENVIRONMENT", &indented(&self.environment, 2)),
                ("MOUNTS", &indented(&self.mounts, 2)),
            ],
        );
        // Without a list, everything in the Secret would be there.
        let secrets = match self.items.as_str() {
            "" => String::new(),
            items => format!(
                "- name: secrets\n  secret:\n    secretName: backup-secrets\n    defaultMode: 0440\n    \
                 items:\n{items}"
            ),
        };
        let volumes = fill(
            VOLUMES,
            &[("SECRETS", &secrets), ("VOLUMES", &self.volumes)],
        );
        Lines([
            ("CONFINED", indented(CONFINED, column)),
            ("CONTAINER", indented(&container, column + 4)),
            ("VOLUMES", indented(&volumes, column + 2)),
        ])
    }
}

impl Lines {
    fn and<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = self.0.iter().map(|(name, text)| (*name, text.as_str()));
        own.chain(more.iter().copied()).collect()
    }
}

fn indented(text: &str, columns: usize) -> String {
    let lines = text.lines().filter(|line| !line.is_empty());
    let mut moved = String::new();
    for line in lines {
        put(&mut moved, format_args!("{:columns$}{line}\n", ""));
    }
    moved
}
