//! HTTP as `object_store` does it, with one error told for what it is.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// Makes clients whose requests are sent again when their connection was gone before they were.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service(client)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.0.execute(request).await.map_err(classified)
    }
}

/// `object_store` does not know this error, and would not try again.
fn classified(error: HttpError) -> HttpError {
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_of_hyper = cause.downcast_ref::<hyper::Error>();
        if cause_of_hyper.is_some_and(hyper::Error::is_canceled) {
            return HttpError::new(HttpErrorKind::Request, Unsent(error));
        }
        source = cause.source();
    }
    error
}

/// Such an error, which says what the inner one says, once.
#[derive(Debug)]
struct Unsent(HttpError);

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => write!(f, "{cause}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Error for Unsent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()?.source()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use object_store::client::HttpRequestBody;
    use tokio::net::TcpListener;

    use super::*;

    /// Which error comes of it is a matter of microseconds: here it is asked until it was ours.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_that_is_closed_at_once_is_a_reason_to_try_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                connection.set_zero_linger().unwrap();
            }
        });
        let options = ClientOptions::new().with_allow_http(true);
        let client = Connector.connect(&options).unwrap();
        let mut ours = 0;
        let until = Instant::now() + Duration::from_mins(1);
        while ours == 0 {
            assert!(Instant::now() < until, "no request was taken back");
            let request = http::Request::get(format!("http://{address}/object"));
            let request = request.body(HttpRequestBody::empty()).unwrap();
            let error = client.execute(request).await.unwrap_err();
            assert_ne!(error.kind(), HttpErrorKind::Unknown, "{error:?}");
            assert_eq!(error.to_string().matches("HTTP error").count(), 1);
            ours += usize::from(matches!(error.source(), Some(cause) if cause.is::<Unsent>()));
        }
        closing.abort();
    }
}
