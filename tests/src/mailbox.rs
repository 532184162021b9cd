//! A real mail server on loopback that keeps what it is sent.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::canary::Kind;
use crate::child::{self, Server};
use crate::scratch::Scratch;
use crate::{canary, ports, servers};

/// How long it may take to listen.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The server; it ends on drop.
#[derive(Debug)]
pub struct Mailbox {
    _server: Server,
    scratch: Scratch,
    port: u16,
}

/// A mail that it was sent.
#[derive(Clone, Debug, Deserialize)]
pub struct KeptMail {
    /// The sender of the envelope.
    pub from: String,
    /// The recipients of the envelope.
    pub to: Vec<String>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Who logged in.
    pub login: Option<String>,
    /// All headers, decoded.
    pub headers: Vec<(String, String)>,
    /// The subject, decoded.
    pub subject: String,
    /// The text for those who want no HTML.
    pub text: String,
    /// The page.
    pub html: String,
}

impl Mailbox {
    /// Starts one: `tls` is `starttls`, `implicit` or `none`. With a password, everybody must log in
    /// with it, whatever his name.
    ///
    /// # Errors
    ///
    /// When it is not there or does not come up.
    pub fn start(tls: &str, password: &str) -> Result<Self> {
        canary::keep_if_any(password);
        let python = servers::path("PGB_TEST_SMTP")?;
        let (scratch, port) = (Scratch::new()?, ports::free(&[])?);
        let folder = scratch.path();
        certify(folder)?;
        let script = folder.join("mailbox.py");
        fs::write(&script, include_str!("mailbox.py"))?;
        let mut command = child::command_as_self(python, Signal::SIGKILL);
        command.arg(script).arg(tls).arg(port.to_string());
        command.arg(folder).arg(password);
        let log = folder.join("log");
        command.stdin(File::open("/dev/null")?);
        command.stdout(File::create(&log)?);
        command.stderr(File::options().append(true).open(&log)?);
        let mut server = Server::spawn(command, Signal::SIGTERM)?;
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.exited()?;
            let said = fs::read_to_string(&log)?;
            ensure!(ended.is_none(), "the mail server ended: {said}");
            let in_time = Instant::now() < deadline;
            ensure!(in_time, "the mail server does not listen: {said}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            _server: server,
            scratch,
            port,
        })
    }

    /// Where it listens, on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate of the authority that vouches for it.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.scratch.path().join("ca.pem")
    }

    /// What it was sent, the oldest first.
    ///
    /// # Errors
    ///
    /// When that cannot be read.
    pub fn mails(&self) -> Result<Vec<KeptMail>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(self.scratch.path())? {
            let path = entry?.path();
            paths.extend(
                path.extension()
                    .is_some_and(|e| e == "json")
                    .then_some(path),
            );
        }
        paths.sort();
        let mails = paths.iter().map(|path| {
            let bytes = fs::read(path)?;
            canary::look(Kind::Message, "a mail", &bytes)?;
            Ok(serde_json::from_slice(&bytes)?)
        });
        mails.collect()
    }
}

/// An authority, and the certificate of `localhost` from it.
fn certify(folder: &Path) -> Result<()> {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(folder);
        child::run(command).map(drop)
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=mail-authority"
    ))?;
    openssl(&format!(
        "req {key} -keyout server.key -out server.csr -subj /CN=localhost"
    ))?;
    fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n")?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names \
         -out server.pem",
    )
}
