//! Order-independent hashes of large objects.

use std::fmt;
use std::ops::{Add, AddAssign};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Number, bytes and a hash of some large objects, whatever their order.
///
/// The hash is the sum, modulo 2^128, over the objects of the XXH3-128 of 20 bytes: the OID, then
/// the XXH3-128 of the content, both most significant byte first. So content that changed places
/// with another object's is noticed, though the order of the objects is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LargeObjects {
    /// How many objects.
    pub count: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Sum of their hashes.
    pub hash: u128,
}

impl Add for LargeObjects {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
            hash: self.hash.wrapping_add(other.hash),
        }
    }
}

impl AddAssign for LargeObjects {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// Makes [`LargeObjects`] of contents that arrive in pieces, one object after the other.
///
/// ```
/// use backup_pg_archive::LargeObjectHasher;
///
/// let mut hasher = LargeObjectHasher::default();
/// hasher.push(b"what lo_get");
/// hasher.push(b" gave");
/// hasher.end_object(16_401);
/// assert_eq!(hasher.finish().count, 1);
/// ```
#[derive(Clone, Default)]
pub struct LargeObjectHasher {
    total: LargeObjects,
    content: Xxh3,
}

impl fmt::Debug for LargeObjectHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeObjectHasher")
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}

impl LargeObjectHasher {
    /// Takes the next bytes of the current object.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total.bytes += bytes.len() as u64;
        self.content.update(bytes);
    }

    /// Ends the current object; the next bytes belong to another.
    pub fn end_object(&mut self, oid: u32) {
        let mut bound = [0; 20];
        bound[..4].copy_from_slice(&oid.to_be_bytes());
        bound[4..].copy_from_slice(&self.content.digest128().to_be_bytes());
        self.content.reset();
        self.total.count += 1;
        self.total.hash = self.total.hash.wrapping_add(xxh3_128(&bound));
    }

    /// The sum over the objects that were ended.
    #[must_use]
    pub fn finish(self) -> LargeObjects {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(objects: &[(u32, &[u8])]) -> LargeObjects {
        let mut hasher = LargeObjectHasher::default();
        for (oid, content) in objects {
            hasher.push(content);
            hasher.end_object(*oid);
        }
        hasher.finish()
    }

    #[test]
    fn order_is_free_but_oids_are_bound() {
        let objects = hash(&[(1, b"a"), (2, b"bc"), (3, b"")]);
        assert_eq!((objects.count, objects.bytes), (3, 3));
        assert_eq!(hash(&[(3, b""), (1, b"a"), (2, b"bc")]), objects);
        assert_ne!(hash(&[(1, b"bc"), (2, b"a"), (3, b"")]), objects);
        assert_eq!(hash(&[(1, b"a")]) + hash(&[(2, b"bc"), (3, b"")]), objects);
    }
}
