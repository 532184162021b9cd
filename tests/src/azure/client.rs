//! A small client of blob storage, by a signature in the URL.

use std::fmt::Write as _;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sha2::Sha256;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use super::{ACCESS_KEY, ACCOUNT};

/// The version of the service whose form of signatures this is.
const VERSION: &str = "2020-08-04";

#[derive(Debug)]
pub(super) struct Client {
    port: u16,
    agent: Agent,
}

impl Client {
    pub(super) fn new(port: u16) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_mins(1)));
        Self {
            port,
            agent: config.build().into(),
        }
    }

    pub(super) fn create_container(&self, container: &str) -> Result<()> {
        let path = format!("{container}?restype=container");
        self.call("PUT", &path, Some(b"")).map(drop)
    }

    pub(super) fn list(&self, container: &str, include: &str) -> Result<Vec<String>> {
        let (mut names, mut marker) = (Vec::new(), String::new());
        loop {
            let path = format!(
                "{container}?restype=container&comp=list&include={include}&marker={marker}"
            );
            let xml = String::from_utf8(body(self.call("GET", &path, None)?)?)?;
            // A mark of the byte order comes before it.
            let page: Page = quick_xml::de::from_str(xml.trim_start_matches('\u{feff}'))
                .with_context(|| format!("the server answered {xml}"))?;
            names.extend(page.blobs.blobs.into_iter().map(|blob| blob.name));
            marker = page.next.unwrap_or_default();
            if marker.is_empty() {
                names.sort();
                return Ok(names);
            }
        }
    }

    pub(super) fn put(&self, container: &str, blob: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("{container}/{}", encoded(blob));
        self.call("PUT", &path, Some(bytes)).map(drop)
    }

    pub(super) fn get(&self, container: &str, blob: &str) -> Result<Vec<u8>> {
        body(self.call("GET", &format!("{container}/{}", encoded(blob)), None)?)
    }

    pub(super) fn header(&self, container: &str, blob: &str, name: &str) -> Result<Option<String>> {
        let path = format!("{container}/{}", encoded(blob));
        let answer = self.call("HEAD", &path, None)?;
        let header = answer.headers().get(name);
        Ok(header
            .map(|value| value.to_str().map(str::to_owned))
            .transpose()?)
    }

    fn call(&self, method: &str, path: &str, sent: Option<&[u8]>) -> Result<Response<Body>> {
        let join = if path.contains('?') { '&' } else { '?' };
        let signature = sas_token("rwdlac")?;
        let port = self.port;
        let url = format!("http://127.0.0.1:{port}/{ACCOUNT}/{path}{join}{signature}");
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("x-ms-version", VERSION)
            .header("x-ms-blob-type", "BlockBlob");
        let answer = match sent {
            Some(bytes) => self.agent.run(request.body(bytes)?),
            None => self.agent.run(request.body(())?),
        };
        let answer = answer.with_context(|| format!("{method} {path}"))?;
        let status = answer.status();
        if !status.is_success() {
            let words = String::from_utf8_lossy(&body(answer)?).into_owned();
            bail!("{method} {path}: the server answered {status}: {words}");
        }
        Ok(answer)
    }
}

/// A signature for the whole account.
/// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-account-sas>
pub(super) fn sas_token(permissions: &str) -> Result<String> {
    let end = Timestamp::now() + SignedDuration::from_hours(1);
    let end = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let signed = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{end}\n\n\n{VERSION}\n");
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(ACCESS_KEY)?)?;
    mac.update(signed.as_bytes());
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    let (end, signature) = (encoded(&end), encoded(&signature));
    Ok(format!(
        "sv={VERSION}&ss=b&srt=sco&sp={permissions}&se={end}&sig={signature}"
    ))
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

fn body(mut answer: Response<Body>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    answer.body_mut().as_reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "Blobs")]
    blobs: Blobs,
    #[serde(rename = "NextMarker")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Blobs {
    #[serde(default, rename = "Blob")]
    blobs: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    #[serde(rename = "Name")]
    name: String,
}
