//! Listening, with and without TLS, until somebody stops it.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use backup_app::{App, AppError, Environment, HttpConfig, SecretRef, names};
use hyper_util::rt::TokioTimer;
use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;

use crate::connections::{Limited, MOST};
use crate::routes::router;
use crate::state::Server;
use crate::systemd;

/// How long the head of a request may take to come.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// How long answers that have begun may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// A server that can be reached and answers nothing yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    /// Where.
    pub address: SocketAddr,
}

impl Listening {
    /// Takes the address.
    ///
    /// # Errors
    /// When the settings would send tokens in the clear, the certificate cannot be used, or the
    /// address is taken.
    pub async fn new(settings: &HttpConfig, environment: &Environment) -> Result<Self, AppError> {
        settings
            .check()
            .map_err(|(key, message)| AppError::usage(format!("server_http.{key}: {message}")))?;
        let tls = tls(settings, environment).await?;
        let failure = |source| AppError::File {
            operation: format!("listen on {}", settings.listen),
            source,
        };
        let listener = TcpListener::bind(settings.listen).map_err(failure)?;
        listener.set_nonblocking(true).map_err(failure)?;
        let address = listener.local_addr().map_err(failure)?;
        Ok(Self {
            listener,
            tls,
            address,
        })
    }
}

async fn tls(
    settings: &HttpConfig,
    environment: &Environment,
) -> Result<Option<RustlsConfig>, AppError> {
    let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) else {
        return Ok(None);
    };
    let certificates = std::fs::read(cert).map_err(|source| AppError::File {
        operation: format!("read {}", cert.display()),
        source,
    })?;
    // As every file with a secret, it must not be readable by others.
    let secret = SecretRef::File(key.clone()).resolve(environment)?;
    let secret = secret.expose_secret().as_bytes().to_vec();
    let config = RustlsConfig::from_pem(certificates, secret).await;
    let config = config.map_err(|source| AppError::File {
        operation: format!("use {} and {}", cert.display(), key.display()),
        source,
    })?;
    // Who is told of another version would speak it.
    let mut own = (*config.get_inner()).clone();
    own.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(RustlsConfig::from_config(Arc::new(own))))
}

/// Answers until `stop`, and then ends what has begun.
///
/// # Errors
/// When the system does not let us go on.
pub async fn serve(
    listening: Listening,
    app: &App,
    server: Arc<Server>,
    stop: &CancellationToken,
) -> Result<(), AppError> {
    let handle = Handle::new();
    let stopping = handle.clone();
    let asked = stop.clone();
    let socket = app.environment().get(names::NOTIFY_SOCKET);
    let told = socket.map(str::to_owned);
    tokio::spawn(async move {
        asked.cancelled().await;
        systemd::notify(told.as_deref(), "STOPPING=1");
        stopping.graceful_shutdown(Some(GRACE));
    });
    let service = router(server).into_make_service_with_connect_info::<SocketAddr>();
    let scheme = if listening.tls.is_some() {
        "https"
    } else {
        "http"
    };
    tracing::info!(target: "backup", "listening on {scheme}://{}", listening.address);
    systemd::notify(socket, "READY=1");
    let failure = |source| AppError::File {
        operation: format!("serve on {}", listening.address),
        source,
    };
    let ended = if let Some(tls) = listening.tls {
        let server = axum_server::from_tcp_rustls(listening.listener, tls).map_err(failure)?;
        let server = bounded(server, HEAD_LIMIT);
        server.handle(handle).serve(service).await
    } else {
        let server = axum_server::from_tcp(listening.listener).map_err(failure)?;
        let server = bounded(server, HEAD_LIMIT);
        server.handle(handle).serve(service).await
    };
    ended.map_err(failure)
}

/// So many connections, of which none is kept by whoever sends slowly on purpose, or nothing. That
/// holds from its beginning only where one version alone is spoken: the first bytes, which tell
/// which one it is, would be waited for without a limit.
fn bounded<A>(
    mut server: axum_server::Server<SocketAddr, A>,
    head: Duration,
) -> axum_server::Server<SocketAddr, Limited<A>> {
    let builder = server.http_builder();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head);
    server
        .map(|acceptor| Limited::new(acceptor, MOST))
        .http1_only()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_says_nothing_keeps_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let server = axum_server::from_tcp(listener).unwrap();
        let server = bounded(server, Duration::from_millis(100));
        let serving = tokio::spawn(server.serve(Router::new().into_make_service()));
        let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
        // It comes to an end, which may have some words before it.
        let mut said = Vec::new();
        let ended = tokio::time::timeout(Duration::from_mins(1), silent.read_to_end(&mut said));
        ended.await.unwrap().unwrap();
        serving.abort();
    }
}
