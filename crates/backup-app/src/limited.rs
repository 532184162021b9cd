//! Work that has only so much time.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// What came of `work`, and whether its time was over before it ended: then `cancel` told it, and
/// it ended as it does when somebody stops it.
pub(crate) async fn within<T>(
    limit: Duration,
    mut work: impl Future<Output = T> + Unpin,
    cancel: &CancellationToken,
) -> (T, bool) {
    tokio::select! {
        done = &mut work => (done, false),
        () = tokio::time::sleep(limit) => {
            cancel.cancel();
            (work.await, true)
        }
    }
}
