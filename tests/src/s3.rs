//! Real S3 servers on loopback, and a client to look into their buckets.

mod client;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use backup_store::StoreOptions;
use nix::sys::signal::Signal;

use crate::child::{self, Server as Process};
use crate::scratch::Scratch;
use crate::{canary, ports, servers};

use client::Client;

/// How long a server may take until it stores its first object.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Attempts at ports before giving up: another process may take one first.
const PORT_ATTEMPTS: usize = 5;

/// `SeaweedFS` serves gRPC this far above each of its ports.
const GRPC_OFFSET: u16 = 10_000;

const ACCESS_KEY: &str = "backup-e2e";
const SECRET_KEY: &str = "a s3c-c4n4ry0b7a/key+with=signs";
const READER_ACCESS_KEY: &str = "backup-e2e-reader";
const READER_SECRET_KEY: &str = "a reader's-c4n4ry2e9b/key";
const REGION: &str = "us-east-1";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `SeaweedFS`: on every machine.
    SeaweedFs,
    /// `MinIO`: where Go is. Tests that use it have `minio` in their name.
    MinIo,
}

/// An upload that was begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upload {
    /// The key that it would become.
    pub key: String,
    /// The server's name for it.
    pub upload_id: String,
}

/// One of the contents that a key of a bucket with versions has had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The key.
    pub key: String,
    /// The server's name for it.
    pub id: String,
    /// It is no content: it says that the object was deleted.
    pub marks_deletion: bool,
}

/// A running S3 server with an empty store; stopped and removed on drop.
///
/// Buckets are addressed by path. The helpers use a client of their own and share no code with the
/// store under test. All methods block.
#[derive(Debug)]
pub struct Server {
    // Order matters: the server ends before its files go.
    process: Option<Process>,
    scratch: Scratch,
    kind: Kind,
    program: PathBuf,
    port: u16,
    client: Client,
}

/// Credentials for a while.
#[derive(Debug, Clone)]
pub struct Login {
    /// The access key id.
    pub access_key: String,
    /// The secret access key.
    pub secret_key: String,
    /// What goes with them.
    pub session_token: String,
}

impl Server {
    /// Starts a server and waits until it stores objects.
    ///
    /// # Errors
    ///
    /// When the program is not where `scripts/test-servers` puts it, or does not come up; the error
    /// names the log's last lines.
    pub fn start(kind: Kind) -> Result<Self> {
        for secret in [SECRET_KEY, READER_SECRET_KEY] {
            canary::keep(secret);
        }
        let program = servers::path(match kind {
            Kind::SeaweedFs => "PGB_TEST_WEED",
            Kind::MinIo => "PGB_TEST_MINIO",
        })?;
        let mut server = Self {
            process: None,
            scratch: Scratch::new()?,
            kind,
            program,
            port: 0,
            client: Client::new(0),
        };
        for _ in 0..PORT_ATTEMPTS {
            server.port = server.free_port()?;
            server.client = Client::new(server.port);
            if server.launch()? {
                return Ok(server);
            }
        }
        bail!("{kind:?} found no ports")
    }

    /// The server that all tests of this process share. Make a bucket of your own in it.
    ///
    /// # Errors
    ///
    /// As [`Server::start`]; a server that did not start is not tried again.
    pub fn shared(kind: Kind) -> Result<&'static Self> {
        static SEAWEEDFS: OnceLock<Result<Server, String>> = OnceLock::new();
        static MINIO: OnceLock<Result<Server, String>> = OnceLock::new();
        let slot = match kind {
            Kind::SeaweedFs => &SEAWEEDFS,
            Kind::MinIo => &MINIO,
        };
        let start = || Self::start(kind).map_err(|error| format!("{error:#}"));
        slot.get_or_init(start)
            .as_ref()
            .map_err(|message| anyhow::anyhow!("{message}"))
    }

    /// The URL without a bucket, such as `http://127.0.0.1:15813`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of [`Server::endpoint`], for a [`crate::fault::Proxy`] in front of it.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How the engine in this process gets there.
    #[must_use]
    pub fn options(&self) -> StoreOptions {
        StoreOptions {
            endpoint: Some(self.endpoint()),
            region: Some(self.region().to_owned()),
            access_key_id: Some(self.access_key().into()),
            secret_access_key: Some(self.secret_key().into()),
            ..StoreOptions::default()
        }
    }

    /// The access key id; it may do everything.
    #[must_use]
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret access key. It contains characters that need care in URLs.
    #[must_use]
    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// Access key id and secret key of a login that may list and read and nothing else. `MinIO`
    /// has none.
    #[must_use]
    pub fn reader(&self) -> (&'static str, &'static str) {
        (READER_ACCESS_KEY, READER_SECRET_KEY)
    }

    /// A login that may do what a policy says and nothing else. `SeaweedFS` has none.
    ///
    /// # Errors
    ///
    /// When the server refuses the policy, or there is no curl that can sign.
    pub fn assume(&self, policy: &str) -> Result<Login> {
        let login = format!("{ACCESS_KEY}:{SECRET_KEY}");
        let sign = format!("aws:amz:{REGION}:sts");
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail-with-body",
            "--max-time",
            "60",
        ])
        .args(["--aws-sigv4", &sign, "--user", &login])
        .args([
            "--data",
            "Action=AssumeRole&Version=2011-06-15&DurationSeconds=3600",
        ])
        .args(["--data-urlencode", &format!("Policy={policy}")])
        .arg(format!("{}/", self.endpoint()));
        let text = child::run(curl)?;
        let field = |name: &str| {
            let (_, rest) = text.split_once(&format!("<{name}>"))?;
            Some(rest.split_once('<')?.0.to_owned())
        };
        let whole = || format!("the server answered {text}");
        Ok(Login {
            access_key: field("AccessKeyId").with_context(whole)?,
            secret_key: field("SecretAccessKey").with_context(whole)?,
            session_token: field("SessionToken").with_context(whole)?,
        })
    }

    /// The region that requests are signed for.
    #[must_use]
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// Creates a bucket.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.client.create_bucket(bucket)
    }

    /// Creates a bucket with versions and Object Lock, where nobody can remove a version within a
    /// day of its making.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn create_locked_bucket(&self, bucket: &str) -> Result<()> {
        self.client.create_locked_bucket(bucket)
    }

    /// All versions in a bucket.
    ///
    /// # Errors
    ///
    /// When there are more than a page has.
    pub fn list_versions(&self, bucket: &str) -> Result<Vec<Version>> {
        self.client.list_versions(bucket)
    }

    /// Removes one version for good.
    ///
    /// # Errors
    ///
    /// When the server refuses; the error has its answer.
    pub fn delete_version(&self, bucket: &str, version: &Version) -> Result<()> {
        self.client.delete_version(bucket, version)
    }

    /// All keys of `bucket` that start with `prefix`, in order.
    ///
    /// # Errors
    ///
    /// When there is no such bucket.
    pub fn list_keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        self.client.list_keys(bucket, prefix)
    }

    /// The uploads of `bucket` that nobody finished, in order.
    ///
    /// # Errors
    ///
    /// When there is no such bucket.
    pub fn list_multipart_uploads(&self, bucket: &str) -> Result<Vec<Upload>> {
        self.client.list_multipart_uploads(bucket)
    }

    /// Begins an upload and leaves it there, as a client that died would; returns its id.
    ///
    /// # Errors
    ///
    /// When there is no such bucket.
    pub fn begin_multipart_upload(&self, bucket: &str, key: &str) -> Result<String> {
        self.client.begin_upload(bucket, key)
    }

    /// An object's bytes.
    ///
    /// # Errors
    ///
    /// When there is no such object.
    pub fn get_object(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        self.client.get_object(bucket, key)
    }

    /// A header of an object, such as `x-amz-storage-class`.
    ///
    /// # Errors
    ///
    /// When there is no such object.
    pub fn header(&self, bucket: &str, key: &str, name: &str) -> Result<Option<String>> {
        self.client.header(bucket, key, name)
    }

    /// Stores an object, over an older one.
    ///
    /// # Errors
    ///
    /// When there is no such bucket.
    pub fn put_object(&self, bucket: &str, key: &str, bytes: &[u8]) -> Result<()> {
        self.client.put_object(bucket, key, bytes)
    }

    /// Deletes an object; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// When there is no such bucket.
    pub fn delete_object(&self, bucket: &str, key: &str) -> Result<()> {
        self.client.delete_object(bucket, key)
    }

    /// Ends the server at once, as a power cut would; connections break.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            bail!("the server is not running")
        };
        process.signal_group(Signal::SIGKILL)?;
        process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Starts the server again on the same port and the same files, after ending it if it runs.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        drop(self.process.take());
        if !self.launch()? {
            bail!("port {} was taken by another process", self.port);
        }
        Ok(())
    }

    /// Stops the server where it is, with [`Server::thaw`] as the way back: connections stay open
    /// and nothing answers.
    ///
    /// # Errors
    ///
    /// When the server is not running.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends [`Server::freeze`].
    ///
    /// # Errors
    ///
    /// When the server is not running.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let Some(process) = &self.process else {
            bail!("the server is not running")
        };
        process.signal_group(signal)
    }

    fn free_port(&self) -> Result<u16> {
        match self.kind {
            Kind::SeaweedFs => {
                let own = 0..4;
                let offsets: Vec<u16> = own
                    .flat_map(|offset| [offset, offset + GRPC_OFFSET])
                    .collect();
                ports::free(&offsets)
            }
            Kind::MinIo => ports::free(&[1]),
        }
    }

    /// Starts the process and waits until it stores objects; `false` if a port is taken.
    fn launch(&mut self) -> Result<bool> {
        let folder = self.scratch.path();
        let data = folder.join("data");
        fs::create_dir_all(&data)?;
        let mut command = match self.kind {
            Kind::SeaweedFs => seaweedfs(&self.program, folder, self.port)?,
            Kind::MinIo => minio(&self.program, folder, self.port),
        };
        let log = folder.join("log");
        command
            .current_dir(folder)
            .env("TMPDIR", folder)
            .env("HOME", folder);
        command
            .stdin(File::open("/dev/null")?)
            .stdout(File::create(&log)?);
        command.stderr(File::options().append(true).open(&log)?);
        // SeaweedFS takes minutes to heed SIGTERM, and nobody will miss the data.
        let mut process = Process::spawn(command, Signal::SIGKILL)?;

        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = process.exited()? {
                let log = fs::read_to_string(&log)?;
                if log.contains("already in use") {
                    return Ok(false);
                }
                bail!("{:?} ended with {status}: {}", self.kind, tail(&log));
            }
            let Err(error) = self.client.probe() else {
                self.process = Some(process);
                return Ok(true);
            };
            if Instant::now() > deadline {
                bail!(
                    "{:?} stores nothing: {error:#}; {}",
                    self.kind,
                    tail(&fs::read_to_string(&log)?)
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn seaweedfs(program: &Path, folder: &Path, port: u16) -> Result<Command> {
    let identities = serde_json::json!({ "identities": [
        {
            "name": "e2e",
            "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{
                "accessKey": READER_ACCESS_KEY,
                "secretKey": READER_SECRET_KEY,
            }],
            "actions": ["Read", "List"],
        },
    ]});
    let config = folder.join("s3.json");
    fs::write(&config, identities.to_string())?;
    let logs = folder.join("logs");
    fs::create_dir_all(&logs)?;

    let mut command = child::command_as_self(program, Signal::SIGKILL);
    command
        .arg(format!("-logdir={}", logs.display()))
        .arg("server");
    command.arg(format!("-dir={}", folder.join("data").display()));
    command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]);
    command.arg(format!("-s3.port={port}"));
    command.arg(format!("-master.port={}", port + 1));
    command.arg(format!("-volume.port={}", port + 2));
    command.arg(format!("-filer.port={}", port + 3));
    // Each bucket has volumes of its own, so that the default of eight is used up by the second. They
    // grow one by one instead of seven at once.
    command.args(["-volume.max=4000", "-master.volumeSizeLimitMB=256"]);
    command.env("WEED_MASTER_VOLUME_GROWTH_COPY_1", "1");
    // Both of these other services of its listen on fixed ports, so two servers would clash.
    command.args(["-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
    // On by default, and no test talks to the outside.
    command.arg("-master.telemetry=false");
    command.arg(format!("-s3.config={}", config.display()));
    Ok(command)
}

fn minio(program: &Path, folder: &Path, port: u16) -> Command {
    let mut command = child::command_as_self(program, Signal::SIGKILL);
    command.arg("server").arg("--quiet");
    command.arg("--address").arg(format!("127.0.0.1:{port}"));
    command
        .arg("--console-address")
        .arg(format!("127.0.0.1:{}", port + 1));
    command.arg(folder.join("data"));
    command
        .env("MINIO_ROOT_USER", ACCESS_KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET_KEY);
    // With a key of its own it encrypts where it is asked to.
    let key = format!("e2e:{}", "QUJD".repeat(10) + "QUI=");
    command.env("MINIO_KMS_SECRET_KEY", key);
    command
        .env("MINIO_UPDATE", "off")
        .env("MINIO_BROWSER", "off");
    command
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
