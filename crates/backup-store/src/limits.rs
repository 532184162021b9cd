//! Sizes and times, in one place, so that tests can shrink them.

use std::time::Duration;

const MIB: u64 = 1 << 20;

/// S3's limit for one object.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>
const MAX_OBJECT: u64 = 5 << 40;

/// How much memory, how many requests and how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The smallest upload part (S3 allows none below 5 MiB but the last).
    pub part_bytes: u64,
    /// The largest upload part; bounds memory. Longer bodies go into several objects.
    pub max_part_bytes: u64,
    /// How many parts an object can have.
    pub max_parts: u64,
    /// Upload parts of one object in flight at once.
    pub parts_in_flight: usize,
    /// Bytes in flight over all uploads of a store. Each upload holds one more part while it
    /// is being filled, so that a stalled body cannot starve the others.
    pub upload_memory: u64,
    /// Bytes fetched by one request of a read.
    pub read_bytes: u64,
    /// Requests of one read that run ahead of its reader.
    pub reads_ahead: usize,
    /// Tries for one request of a read, each with the client's own retries.
    pub read_attempts: u32,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// Until the first byte of an answer to anything but an upload, and between two bytes.
    pub read_timeout: Duration,
    /// For one whole request; each is bounded in size.
    pub request_timeout: Duration,
    /// No retry begins later than this after the first try.
    pub retry_timeout: Duration,
    /// Retries of one request.
    pub max_retries: usize,
    /// Wait before the first retry; doubles.
    pub first_backoff: Duration,
    /// For assembling an upload's parts.
    pub complete_timeout: Duration,
    /// For removing a failed upload, with retries.
    pub abort_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            part_bytes: 8 * MIB,
            max_part_bytes: 32 * MIB,
            max_parts: 10_000,
            parts_in_flight: 3,
            upload_memory: 64 * MIB,
            read_bytes: 8 * MIB,
            reads_ahead: 2,
            read_attempts: 3,
            connect_timeout: secs(10),
            read_timeout: secs(60),
            request_timeout: secs(300),
            retry_timeout: secs(280),
            // The waits are random: ten of them can be over in three seconds, twenty last about
            // two minutes.
            max_retries: 20,
            first_backoff: Duration::from_millis(100),
            complete_timeout: secs(300),
            abort_timeout: secs(30),
        }
    }
}

impl Limits {
    /// The size of every part but the last (some servers refuse unequal ones), such that nine
    /// tenths of the allowed parts hold a quarter more than expected.
    pub(crate) fn part_size(&self, expected: Option<u64>) -> u64 {
        let parts = (self.max_parts.saturating_mul(9) / 10).max(1);
        let expected = u128::from(expected.unwrap_or(0)) * 5 / 4;
        let needed = u64::try_from(expected.div_ceil(u128::from(parts))).unwrap_or(u64::MAX);
        // Whole MiB: a part is then a multiple of everything that buffers.
        let needed = needed.checked_next_multiple_of(MIB).unwrap_or(u64::MAX);
        needed.clamp(self.part_bytes, self.max_part_bytes.max(self.part_bytes))
    }

    /// What one object can hold.
    pub(crate) fn capacity(&self, expected: Option<u64>) -> u64 {
        let bytes = self.part_size(expected).saturating_mul(self.max_parts);
        bytes.min(MAX_OBJECT)
    }

    /// The wait before retry number `retry`, counted from 0.
    pub(crate) fn backoff(&self, retry: u32) -> Duration {
        self.first_backoff * 2_u32.saturating_pow(retry.min(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn parts_grow_with_what_is_expected() {
        let limits = Limits::default();
        for (expected, part) in [
            (None, 8 * MIB),
            (Some(0), 8 * MIB),
            (Some(50 * GIB), 8 * MIB),
            (Some(100 * GIB), 15 * MIB),
            (Some(200 * GIB), 29 * MIB),
            (Some(900 * GIB), 32 * MIB),
            (Some(u64::MAX), 32 * MIB),
        ] {
            assert_eq!(limits.part_size(expected), part, "{expected:?}");
        }
    }

    #[test]
    fn capacity_leaves_room_or_is_the_largest_possible() {
        let limits = Limits::default();
        for gib in [1, 10, 50, 100, 200] {
            assert!(
                limits.capacity(Some(gib * GIB)) >= gib * GIB * 5 / 4,
                "{gib} GiB"
            );
        }
        assert_eq!(limits.capacity(Some(u64::MAX)), 32 * MIB * 10_000);
        let unlimited = Limits {
            max_parts: u64::MAX,
            ..limits
        };
        assert_eq!(unlimited.part_size(Some(u64::MAX)), 8 * MIB);
        let wide = Limits {
            max_part_bytes: 5 * GIB,
            ..limits
        };
        assert_eq!(wide.capacity(Some(u64::MAX)), MAX_OBJECT);
    }
}
