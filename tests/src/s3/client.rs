//! A small S3 client over presigned URLs.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use rusty_s3::{Bucket, Method, UrlStyle};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

use super::{ACCESS_KEY, REGION, SECRET_KEY, Upload, Version};

const URL_LIFETIME_SECONDS: u64 = 600;

/// A bucket for the probe, hidden from nobody but of no interest to a test.
const PROBE_BUCKET: &str = "probe";

/// The shortest time there is, of the kind that not even the owner can end.
const LOCK: &str = "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
    <ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode>\
    <Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";

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

    /// Whether the server stores objects: some answer long before they can.
    pub(super) fn probe(&self) -> Result<()> {
        if self.create_bucket(PROBE_BUCKET).is_err() {
            self.list_keys(PROBE_BUCKET, "")?;
        }
        self.put_object(PROBE_BUCKET, "probe", b"probe")?;
        self.delete_object(PROBE_BUCKET, "probe")
    }

    pub(super) fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.call(&Call {
            method: Method::Put,
            bucket,
            ..Call::default()
        })
        .map(drop)
    }

    /// A bucket whose objects nobody can remove for a day, whoever he is.
    pub(super) fn create_locked_bucket(&self, bucket: &str) -> Result<()> {
        let locked = [("x-amz-bucket-object-lock-enabled", "true")];
        self.call(&Call {
            method: Method::Put,
            bucket,
            headers: &locked,
            ..Call::default()
        })?;
        self.call(&Call {
            method: Method::Put,
            bucket,
            query: &[("object-lock", "")],
            body: LOCK.as_bytes(),
            ..Call::default()
        })
        .map(drop)
    }

    pub(super) fn list_versions(&self, bucket: &str) -> Result<Vec<Version>> {
        let query = &[("versions", "")];
        let xml = String::from_utf8(self.call(&Call {
            bucket,
            query,
            ..Call::default()
        })?)?;
        if !xml.contains("<IsTruncated>false</IsTruncated>") {
            bail!("more versions than one page has");
        }
        let mut found = Vec::new();
        for name in ["Version", "DeleteMarker"] {
            let begin = format!("<{name}>");
            for block in xml.split(&begin).skip(1) {
                found.push(version(name, block)?);
            }
        }
        Ok(found)
    }

    pub(super) fn delete_version(&self, bucket: &str, version: &Version) -> Result<()> {
        let call = Call {
            method: Method::Delete,
            bucket,
            key: Some(&version.key),
            query: &[("versionId", &version.id)],
            ..Call::default()
        };
        self.call(&call).map(drop)
    }

    pub(super) fn get_object(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        self.call(&Call {
            bucket,
            key: Some(key),
            ..Call::default()
        })
    }

    pub(super) fn header(&self, bucket: &str, key: &str, name: &str) -> Result<Option<String>> {
        let answer = self.send(&Call {
            method: Method::Head,
            bucket,
            key: Some(key),
            ..Call::default()
        })?;
        if !answer.status().is_success() {
            bail!("HEAD {key}: the server answered {}", answer.status());
        }
        let value = answer.headers().get(name);
        Ok(value
            .map(|value| value.to_str().map(str::to_owned))
            .transpose()?)
    }

    pub(super) fn put_object(&self, bucket: &str, key: &str, body: &[u8]) -> Result<()> {
        let call = Call {
            method: Method::Put,
            bucket,
            key: Some(key),
            body,
            ..Call::default()
        };
        self.call(&call).map(drop)
    }

    pub(super) fn delete_object(&self, bucket: &str, key: &str) -> Result<()> {
        let call = Call {
            method: Method::Delete,
            bucket,
            key: Some(key),
            ..Call::default()
        };
        self.call(&call).map(drop)
    }

    pub(super) fn begin_upload(&self, bucket: &str, key: &str) -> Result<String> {
        let method = Method::Post;
        let query = &[("uploads", "")];
        let answer = self.call(&Call {
            method,
            bucket,
            key: Some(key),
            query,
            ..Call::default()
        })?;
        let begun: UploadEntry = quick_xml::de::from_str(&String::from_utf8(answer)?)?;
        Ok(begun.upload_id)
    }

    pub(super) fn list_keys(&self, bucket: &str, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut token: Option<String> = None;
        loop {
            // Sorted by name, as the signature wants them.
            let mut query = Vec::new();
            query.extend(token.as_deref().map(|token| ("continuation-token", token)));
            query.extend([("list-type", "2"), ("prefix", prefix)]);
            let page: ObjectPage = self.list(bucket, &query)?;
            keys.extend(page.objects.into_iter().map(|object| object.key));
            token = page.next_token.filter(|token| !token.is_empty());
            if token.is_none() {
                keys.sort();
                return Ok(keys);
            }
        }
    }

    pub(super) fn list_multipart_uploads(&self, bucket: &str) -> Result<Vec<Upload>> {
        let mut uploads = Vec::new();
        let mut marker: Option<(String, String)> = None;
        loop {
            let mut query = Vec::new();
            query.extend(marker.as_ref().map(|(key, _)| ("key-marker", key.as_str())));
            query.extend(
                marker
                    .as_ref()
                    .map(|(_, id)| ("upload-id-marker", id.as_str())),
            );
            query.push(("uploads", ""));
            let page: UploadPage = self.list(bucket, &query)?;
            uploads.extend(page.uploads.into_iter().map(|u| Upload {
                key: u.key,
                upload_id: u.upload_id,
            }));
            if !page.truncated {
                uploads.sort();
                return Ok(uploads);
            }
            marker = Some((
                page.next_key.unwrap_or_default(),
                page.next_id.unwrap_or_default(),
            ));
        }
    }

    fn list<T: DeserializeOwned>(&self, bucket: &str, query: &[(&str, &str)]) -> Result<T> {
        let xml = String::from_utf8(self.call(&Call {
            bucket,
            query,
            ..Call::default()
        })?)?;
        quick_xml::de::from_str(&xml).with_context(|| format!("the server answered {xml}"))
    }

    fn call(&self, call: &Call<'_>) -> Result<Vec<u8>> {
        let what = || {
            let (method, key) = (call.method.to_str(), call.key.unwrap_or_default());
            format!("{method} {} {key}", call.bucket)
        };
        read(self.send(call)?).with_context(what)
    }

    fn send(&self, call: &Call<'_>) -> Result<Response<Body>> {
        let address = format!("http://127.0.0.1:{}", self.port).parse()?;
        let place = Bucket::new(address, UrlStyle::Path, call.bucket.to_owned(), REGION)?;
        let url = match call.key {
            Some(key) => place.object_url(key),
            None => place.base_url().clone(),
        };
        let signed = rusty_s3::signing::sign(
            &Timestamp::now(),
            call.method,
            url,
            ACCESS_KEY,
            SECRET_KEY,
            None,
            REGION,
            URL_LIFETIME_SECONDS,
            call.query.iter().copied(),
            call.headers.iter().copied(),
        );
        let method = call.method.to_str();
        let what = || format!("{method} {} {}", call.bucket, call.key.unwrap_or_default());
        let mut request = Request::builder().method(method).uri(signed.as_str());
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        let response = match call.method {
            Method::Put | Method::Post => self.agent.run(request.body(call.body)?),
            _ => self.agent.run(request.body(())?),
        };
        response.with_context(what)
    }
}

struct Call<'a> {
    method: Method,
    bucket: &'a str,
    /// The bucket itself is meant if `None`.
    key: Option<&'a str>,
    /// Sorted by name, as the signature wants it.
    query: &'a [(&'a str, &'a str)],
    body: &'a [u8],
    /// Sorted, as the signature wants them.
    headers: &'a [(&'a str, &'a str)],
}

impl Default for Call<'_> {
    fn default() -> Self {
        Self {
            method: Method::Get,
            bucket: "",
            key: None,
            query: &[],
            body: &[],
            headers: &[],
        }
    }
}

fn read(mut response: Response<Body>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    response.body_mut().as_reader().read_to_end(&mut bytes)?;
    if !response.status().is_success() {
        bail!(
            "the server answered {}: {}",
            response.status(),
            String::from_utf8_lossy(&bytes)
        );
    }
    Ok(bytes)
}

fn version(name: &str, block: &str) -> Result<Version> {
    let field = |name: &str| {
        let (_, rest) = block.split_once(&format!("<{name}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    Ok(Version {
        key: field("Key").context("a version has a key")?,
        id: field("VersionId").context("a version has an id")?,
        marks_deletion: name == "DeleteMarker",
    })
}

#[derive(Deserialize)]
struct ObjectPage {
    #[serde(default, rename = "Contents")]
    objects: Vec<ObjectEntry>,
    #[serde(rename = "NextContinuationToken")]
    next_token: Option<String>,
}

#[derive(Deserialize)]
struct ObjectEntry {
    #[serde(rename = "Key")]
    key: String,
}

#[derive(Deserialize)]
struct UploadPage {
    #[serde(default, rename = "Upload")]
    uploads: Vec<UploadEntry>,
    #[serde(default, rename = "IsTruncated")]
    truncated: bool,
    #[serde(rename = "NextKeyMarker")]
    next_key: Option<String>,
    #[serde(rename = "NextUploadIdMarker")]
    next_id: Option<String>,
}

#[derive(Deserialize)]
struct UploadEntry {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "UploadId")]
    upload_id: String,
}
