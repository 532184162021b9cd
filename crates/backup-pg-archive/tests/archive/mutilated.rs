//! Damaged archives never panic, and an incomplete one is never accepted.

use backup_pg_archive::{ArchiveError, Inspector};
use proptest::prelude::*;

use crate::build::{Archive, END, data_block, large_objects, object_block, plain, table_data};
use crate::{fixture, inspect, inspect_in};

/// Tables, large objects and a definition, in few bytes.
fn sample() -> Vec<u8> {
    let entries = vec![
        plain(3, "TABLE"),
        table_data(5, "a"),
        large_objects(7),
        table_data(6, "b"),
    ];
    let blocks = [
        data_block(5, &[b"1\tone\n", b"\n", b"\\N\n", END]),
        object_block(7, &[(16_400, &[b"content"]), (16_401, &[])]),
        data_block(6, &[END]),
    ];
    Archive::new(16, entries, blocks.concat()).bytes()
}

fn is_incomplete(error: &ArchiveError) -> bool {
    matches!(
        error,
        ArchiveError::Truncated { .. } | ArchiveError::MissingData { .. }
    )
}

#[test]
fn every_truncation_is_an_error() {
    let archive = sample();
    inspect(&archive).unwrap();
    for length in 0..archive.len() {
        let error = inspect(&archive[..length]).unwrap_err();
        assert!(is_incomplete(&error), "{length}: {error}");
    }
}

#[test]
fn every_truncation_of_a_real_dump_is_an_error() {
    for name in ["pg14.dump", "pg18.dump"] {
        let archive = fixture(name);
        // One inspector a length is quadratic; so push on byte by byte, and try to end at each.
        let mut inspector = Inspector::new();
        for (length, byte) in archive.chunks(1).enumerate() {
            if length % 7 == 0 || archive.len() - length < 3000 {
                let error = inspect_in(&archive[..length], 1 << 16).unwrap_err();
                assert!(is_incomplete(&error), "{name} {length}: {error}");
            }
            inspector.push(byte).unwrap();
        }
        inspector.finish().unwrap();
    }
}

#[test]
fn every_byte_appended_is_an_error() {
    let mut archive = sample();
    archive.push(0);
    for byte in 0..=255 {
        *archive.last_mut().unwrap() = byte;
        inspect(&archive).unwrap_err();
    }
}

#[test]
fn no_single_byte_makes_it_panic() {
    let archive = sample();
    for at in 0..archive.len() {
        for value in [0, 1, 2, 3, 0x7f, 0x80, 0xff, archive[at] ^ 1] {
            let mut changed = archive.clone();
            changed[at] = value;
            let whole = inspect(&changed);
            if value != archive[at] {
                assert_eq!(
                    inspect_in(&changed, 1).is_ok(),
                    whole.is_ok(),
                    "{at} {value}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn cuts_do_not_matter(cuts in prop::collection::vec(1_usize..600, 1..50)) {
        let archive = fixture("pg17.dump");
        let (mut rest, mut inspector) = (&archive[..], Inspector::new());
        for cut in cuts.into_iter().cycle() {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            inspector.push(piece).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(inspector.finish(), inspect(&archive));
    }

    #[test]
    fn garbage_is_refused(garbage in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(inspect(&garbage).is_err());
    }

    #[test]
    fn garbage_after_a_good_start_is_refused(
        start in 11_usize..200,
        garbage in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..4], 0..2000),
    ) {
        let archive = sample();
        let mutilated = [&archive[..start], &garbage].concat();
        prop_assert!(mutilated == archive || inspect(&mutilated).is_err());
    }

    #[test]
    fn flipped_bytes_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..8),
        piece in 1_usize..5000,
    ) {
        let mut archive = fixture("pg18.dump");
        for (at, mask) in flips {
            let at = at.index(archive.len());
            archive[at] ^= mask;
        }
        let whole = inspect(&archive);
        // The error's place may depend on the pieces; whether there is one may not.
        prop_assert_eq!(inspect_in(&archive, piece).is_ok(), whole.is_ok());
    }

    #[test]
    fn removed_bytes_are_noticed_or_inside_a_row(
        at in any::<prop::sample::Index>(),
        count in 1_usize..50,
    ) {
        let mut archive = fixture("pg16.dump");
        let at = at.index(archive.len() - count);
        archive.drain(at..at + count);
        let _ = inspect(&archive);
    }
}
