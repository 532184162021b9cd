//! The fakes keep the contracts they are used to test.

use std::sync::Arc;

use backup_core::store::Store;
use backup_testing::{
    FakeCipher, FakeCompressor, FaultyStore, MemoryStore, RecordingStore, contract,
};

#[tokio::test]
async fn memory_store_keeps_the_contract() {
    contract::store::all(async || Arc::new(MemoryStore::new()) as Arc<dyn Store>).await;
    contract::store::emptied_prefixes_disappear(&MemoryStore::new()).await;
}

#[tokio::test]
async fn wrappers_change_nothing_by_themselves() {
    contract::store::all(async || {
        let faulty = FaultyStore::new(Arc::new(MemoryStore::new()));
        Arc::new(RecordingStore::new(Arc::new(faulty))) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test]
async fn fake_compressor_keeps_the_contract() {
    contract::compressor::all(&FakeCompressor).await;
}

#[tokio::test]
async fn fake_cipher_keeps_the_contract() {
    contract::cipher::all(&FakeCipher::default()).await;
    let stranger = FakeCipher::new(&["operator"], &["somebody-else"]);
    contract::cipher::strangers_are_refused(&FakeCipher::default(), &stranger);
}
