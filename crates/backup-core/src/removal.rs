//! Taking back what a run has written.

use std::time::Duration;

use crate::store::{Store, StoreKey};

/// How long the removal of a failed run's objects may take.
const LIMIT: Duration = Duration::from_mins(1);

/// How long a store may take to carry out a request that we do not wait for any more.
const STRAGGLERS: Duration = Duration::from_millis(500);

/// Removes objects of a failed run, the newest first. Returns what is worth a warning.
pub(crate) async fn remove(store: &dyn Store, mut keys: Vec<StoreKey>) -> Vec<String> {
    if keys.is_empty() {
        return Vec::new();
    }
    keys.reverse();
    let removal = async {
        for key in &keys {
            // The second try tells whether it is gone.
            let _ = store.delete(key).await;
        }
        // A request that was on its way when its upload was dropped is carried out later.
        tokio::time::sleep(STRAGGLERS).await;
        let mut left = Vec::new();
        for key in &keys {
            if let Err(e) = store.delete(key).await {
                left.push(format!("object of a failed run is left behind: {key}: {e}"));
            }
        }
        left
    };
    let removed = tokio::time::timeout(LIMIT, removal).await;
    removed.unwrap_or_else(|_| {
        let last = keys.first().map_or("", StoreKey::as_str);
        vec![format!(
            "objects of a failed run may be left behind, up to {last}"
        )]
    })
}
