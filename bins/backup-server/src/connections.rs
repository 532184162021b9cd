//! How many connections there may be at once. Whoever comes after that is not let in, so that no
//! crowd takes all the memory and files that the process may have.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

/// So many connections at the same time.
pub(crate) const MOST: usize = 512;

/// Lets so many in, and hands them to another acceptor.
#[derive(Debug, Clone)]
pub(crate) struct Limited<A> {
    inner: A,
    room: Arc<Semaphore>,
}

/// What answers one connection, which holds its place until it is over.
#[derive(Debug, Clone)]
pub(crate) struct Held<S> {
    service: S,
    _place: Arc<OwnedSemaphorePermit>,
}

impl<A> Limited<A> {
    pub(crate) fn new(inner: A, most: usize) -> Self {
        Self {
            inner,
            room: Arc::new(Semaphore::new(most)),
        }
    }
}

impl<A, I, S> Accept<I, S> for Limited<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = Held<A::Service>;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = std::io::Result<(A::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            let error = std::io::Error::other("there are too many connections");
            return Box::pin(async { Err(error) });
        };
        let accepted = self.inner.accept(stream, service);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            let place = Arc::new(place);
            Ok((
                stream,
                Held {
                    service,
                    _place: place,
                },
            ))
        })
    }
}

impl<S: Service<R>, R> Service<R> for Held<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.service.call(request)
    }
}

#[cfg(test)]
mod tests {
    use axum_server::accept::DefaultAcceptor;

    use super::*;

    #[tokio::test]
    async fn whoever_comes_too_late_is_let_in_when_somebody_leaves() {
        let limited = Limited::new(DefaultAcceptor::new(), 1);
        let ((), first) = limited.accept((), "service").await.unwrap();
        let again = first.clone();
        assert!(limited.accept((), "service").await.is_err());
        drop(first);
        assert!(limited.accept((), "service").await.is_err());
        drop(again);
        assert!(limited.accept((), "service").await.is_ok());
    }
}
