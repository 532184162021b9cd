//! The contract of [`Compressor`].

use backup_core::compressor::Compressor;
use bytes::Bytes;

use super::codec::Codec;
use crate::bodies::{random, text};

macro_rules! codec {
    ($compressor:ident) => {
        Codec {
            encode: &|body| $compressor.compress(body, $compressor.default_level()),
            decode: &|body| $compressor.decompress(body),
        }
    };
}

/// Everything, for a format with an end mark and a checksum.
pub async fn all(compressor: &dyn Compressor) {
    names_are_usable(compressor);
    roundtrip(compressor).await;
    cuts_are_errors(compressor).await;
    garbage_is_an_error(compressor).await;
    damage_is_never_silent(compressor).await;
    input_errors_pass(compressor).await;
    memory_is_bounded(compressor).await;
}

/// Everything that a compressor without a format of its own (`none`) can promise.
pub async fn transparent(compressor: &dyn Compressor) {
    names_are_usable(compressor);
    roundtrip(compressor).await;
    input_errors_pass(compressor).await;
    memory_is_bounded(compressor).await;
}

/// Name and extension fit into manifests and keys.
pub fn names_are_usable(compressor: &dyn Compressor) {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    let name = compressor.name();
    assert!(!name.is_empty() && plain(name), "name {name:?}");
    let extension = compressor.extension();
    let bare = extension.strip_prefix('.').unwrap_or(extension);
    assert!(plain(bare), "extension {extension:?}");
    assert_eq!(
        bare.is_empty(),
        extension.is_empty(),
        "extension {extension:?}"
    );
}

/// Nothing, one byte, sizes around 64 KiB, 1 MiB of noise and of text, in any chunks.
pub async fn roundtrip(compressor: &dyn Compressor) {
    codec!(compressor).roundtrip().await;
}

/// A stream cut anywhere, also to nothing, ends with `Corrupt`.
pub async fn cuts_are_errors(compressor: &dyn Compressor) {
    codec!(compressor).cuts_are_errors().await;
}

/// Bytes behind the end, and bytes that are no stream at all.
pub async fn garbage_is_an_error(compressor: &dyn Compressor) {
    codec!(compressor).garbage_is_an_error().await;
}

/// One changed bit is an error, or it was one that does not matter (a time in a header).
pub async fn damage_is_never_silent(compressor: &dyn Compressor) {
    for content in [
        text(300_000),
        random(150_000, 9),
        Bytes::from_static(b"short"),
    ] {
        for (at, outcome) in codec!(compressor).flipped(&content).await {
            if let Ok(back) = outcome {
                assert!(
                    back == content,
                    "byte {at} changed: other content, no error"
                );
            }
        }
    }
}

/// An error of the input is the last item of the output.
pub async fn input_errors_pass(compressor: &dyn Compressor) {
    codec!(compressor).input_errors_pass().await;
}

/// Does not run ahead of its reader, and decodes what expands a thousandfold in pieces.
pub async fn memory_is_bounded(compressor: &dyn Compressor) {
    codec!(compressor).memory_is_bounded().await;
    codec!(compressor).expansion_is_bounded().await;
}
