//! Uploads in parts that nobody finished: they cost money and are in no listing of objects.
//!
//! `object_store` ends an upload whose id is known, and lists none. So the listing is asked for here,
//! through its client and signed by it.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backup_core::error::{ErrorKind, PortError};
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AwsAuthorizer};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequestBody, HttpResponseBody};
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use serde::Deserialize;
use tokio::time::sleep;
use url::Url;

use crate::connector::Connector;
use crate::error::port_error;

/// The longest answer that is read: a page has a thousand uploads at most.
const LONGEST_ANSWER: usize = 4 << 20;

/// So many pages are asked for; what stands on the others, the next one finds.
const PAGES: usize = 1000;

/// How long to wait before asking again a server that has no answer.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
];

/// How servers call a request that they do not know.
const UNKNOWN: [&str; 4] = [
    "NotImplemented",
    "MethodNotAllowed",
    "InvalidRequest",
    "InvalidArgument",
];

/// The uploads of a bucket.
pub(crate) struct Uploads {
    store: Arc<AmazonS3>,
    http: HttpClient,
    bucket: Url,
    region: String,
}

/// One that was begun.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Begun {
    /// The path of the object that it was to become.
    pub(crate) key: String,
    #[serde(rename = "UploadId")]
    pub(crate) id: String,
    #[serde(rename = "Initiated")]
    pub(crate) at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Begun>,
    #[serde(default)]
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
}

impl fmt::Debug for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Uploads")
            .field(&self.bucket.as_str())
            .finish()
    }
}

impl Uploads {
    /// `bucket` is the bucket's own address, by path or by host.
    pub(crate) fn new(
        store: Arc<AmazonS3>,
        client: &ClientOptions,
        bucket: Url,
        region: &str,
    ) -> Result<Self, PortError> {
        let http = Connector.connect(client);
        Ok(Self {
            store,
            http: http.map_err(|e| port_error("configure bucket", &bucket, &e))?,
            bucket,
            region: region.to_owned(),
        })
    }

    /// Those below `prefix`. None where the server does not tell: some have no such request, or tell
    /// only of one object, and end such uploads by themselves.
    ///
    /// # Errors
    /// What keeps from knowing. Whoever has no right to ask gets `PermissionDenied`.
    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Begun>, PortError> {
        let (mut uploads, mut after) = (Vec::new(), None);
        for _ in 0..PAGES {
            let Some(page) = self.page_at_last(prefix, after.as_ref()).await? else {
                break;
            };
            uploads.extend(page.uploads);
            let next = page.next_key_marker.zip(page.next_upload_id_marker);
            // A server that sends the same page for ever must not keep us.
            if !page.is_truncated || next.is_none() || next == after {
                break;
            }
            after = next;
        }
        Ok(uploads)
    }

    /// Ends an upload; one that is gone is no error.
    pub(crate) async fn abort(&self, path: &Path, id: &str) -> Result<(), PortError> {
        match self.store.abort_multipart(path, &id.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(port_error("end upload of", path, &e)),
        }
    }

    /// As `object_store` does with requests of its own, asks more than once.
    async fn page_at_last(
        &self,
        prefix: &str,
        after: Option<&(String, String)>,
    ) -> Result<Option<Page>, PortError> {
        for pause in PAUSES {
            match self.page(prefix, after).await {
                Err(e) if e.kind() == ErrorKind::Unavailable => sleep(pause).await,
                page => return page,
            }
        }
        self.page(prefix, after).await
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&(String, String)>,
    ) -> Result<Option<Page>, PortError> {
        let mut url = self.bucket.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some((key, id)) = after {
                query.append_pair("key-marker", key);
                query.append_pair("upload-id-marker", id);
            }
            query
                .append_pair("prefix", prefix)
                .append_pair("uploads", "");
        }
        let request = http::Request::get(url.as_str()).body(HttpRequestBody::empty());
        let mut request =
            request.map_err(|e| self.failed(ErrorKind::InvalidInput, e.to_string()))?;
        let credential = self.store.credentials().get_credential().await;
        let credential = credential.map_err(|e| port_error("list uploads of", &self.bucket, &e))?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|e| port_error("list uploads of", &self.bucket, &e))?;
        let answer = self.http.execute(request).await;
        let answer = answer.map_err(|e| self.failed(ErrorKind::Unavailable, e.to_string()))?;
        let status = answer.status();
        let text = self.text(answer.into_body()).await?;
        match status.as_u16() {
            200 => {}
            404 | 405 | 501 => return Ok(None),
            400 if UNKNOWN.iter().any(|code| text.contains(code)) => return Ok(None),
            400 => return Err(self.failed(ErrorKind::InvalidInput, status.to_string())),
            401 | 403 => return Err(self.failed(ErrorKind::PermissionDenied, status.to_string())),
            _ => return Err(self.failed(ErrorKind::Unavailable, status.to_string())),
        }
        let page = quick_xml::de::from_str(&text);
        page.map(Some)
            .map_err(|e| self.failed(ErrorKind::Internal, e.to_string()))
    }

    async fn text(&self, body: HttpResponseBody) -> Result<String, PortError> {
        let mut text = Vec::new();
        let mut body = body.bytes_stream();
        while let Some(piece) = body
            .try_next()
            .await
            .map_err(|e| self.failed(ErrorKind::Unavailable, e.to_string()))?
        {
            text.extend_from_slice(&piece);
            if text.len() > LONGEST_ANSWER {
                let why = "the answer has no end".to_owned();
                return Err(self.failed(ErrorKind::Internal, why));
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn failed(&self, kind: ErrorKind, why: String) -> PortError {
        let port = PortError::new(kind, format!("list uploads of {}", self.bucket));
        port.with_source(std::io::Error::other(why))
    }
}
