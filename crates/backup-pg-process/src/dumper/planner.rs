//! Which tables share a part: a pure function of their sizes.

/// At most so many parts beside `data-rest`; each costs a `pg_dump` that reads all catalogs.
const MAX_APART: usize = 64;
/// At most so many tables leave the tail: each is an argument for two programs, and a search through
/// the catalog in both.
const MAX_GROUPED: usize = 1000;

/// From which size on a table is treated apart. The defaults suit; tests use smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSizes {
    /// A table below this is not worth a program of its own.
    pub apart: u64,
    /// A table below this is not worth splitting.
    pub split: u64,
    /// The least that a range of a split table has.
    pub range: u64,
}

impl Default for PartSizes {
    /// 64, 256 and 128 MiB.
    fn default() -> Self {
        Self {
            apart: 64 << 20,
            split: 256 << 20,
            range: 128 << 20,
        }
    }
}

/// What the planner knows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableSize {
    /// Bytes with long values.
    pub(super) bytes: u64,
    /// Blocks of the table itself.
    pub(super) blocks: u64,
    /// Whether `pg_dump --table` can name it and dumps all of it.
    pub(super) can_be_apart: bool,
    /// Whether ranges of its blocks can be read instead.
    pub(super) can_be_split: bool,
}

/// Rows of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DataPart {
    /// These tables, by position, whole.
    Tables(Vec<usize>),
    /// Blocks of one table.
    Range(BlockRange),
    /// Everything that no other part has: the long tail, sequences, large objects.
    Rest,
}

/// Blocks of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockRange {
    /// The table by position.
    pub(super) table: usize,
    /// The first block.
    pub(super) first: u64,
    /// The block after the last; the last range is open, since the table may have grown.
    pub(super) end: Option<u64>,
}

/// A part and its likely size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedData {
    pub(super) part: DataPart,
    pub(super) bytes: u64,
}

/// Parts of data for `jobs` readers, largest first.
///
/// `other_bytes` is what only the rest can hold, such as large objects.
pub(super) fn plan(
    tables: &[TableSize],
    other_bytes: u64,
    jobs: usize,
    least: PartSizes,
) -> Vec<PlannedData> {
    let jobs = u64::try_from(jobs.max(1)).unwrap_or(1);
    let total = tables.iter().map(|table| table.bytes).sum::<u64>() + other_bytes;
    let mut by_size: Vec<usize> = (0..tables.len())
        .filter(|&index| tables[index].can_be_apart)
        .collect();
    by_size.sort_by_key(|&index| (std::cmp::Reverse(tables[index].bytes), index));

    let threshold = (total / (8 * jobs)).max(least.apart);
    let large = by_size
        .iter()
        .take(MAX_APART)
        .take_while(|&&index| tables[index].bytes >= threshold)
        .count();
    let (large, tail) = by_size.split_at(large);
    let mut parts = Vec::new();
    let mut rest = total;
    for &index in large {
        rest -= tables[index].bytes;
        let share = total / jobs;
        if jobs > 1 && tables[index].can_be_split && tables[index].bytes > share.max(least.split) {
            parts.extend(split(index, &tables[index], jobs, least.range));
        } else {
            parts.push(PlannedData {
                part: DataPart::Tables(vec![index]),
                bytes: tables[index].bytes,
            });
        }
    }
    let sizes = tail.iter().map(|&index| (index, tables[index].bytes));
    let groups = group(sizes, rest, Share { total, jobs }, least.apart);
    rest -= groups.iter().map(|group| group.bytes).sum::<u64>();
    parts.extend(groups);
    parts.push(PlannedData {
        part: DataPart::Rest,
        bytes: rest,
    });
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    parts
}

/// Two ranges a reader, so that one slow range does not hold up the end.
fn split(
    index: usize,
    table: &TableSize,
    jobs: u64,
    least: u64,
) -> impl Iterator<Item = PlannedData> {
    let (blocks, bytes) = (table.blocks, table.bytes);
    let pieces = (bytes / least.max(1)).clamp(2, 2 * jobs);
    (0..pieces).map(move |piece| PlannedData {
        part: DataPart::Range(BlockRange {
            table: index,
            first: blocks * piece / pieces,
            end: (piece + 1 < pieces).then(|| blocks * (piece + 1) / pieces),
        }),
        bytes: bytes / pieces,
    })
}

/// What there is to do, and how many share it.
#[derive(Clone, Copy)]
struct Share {
    total: u64,
    jobs: u64,
}

/// A long tail of middling tables would make the rest the part that everybody waits for: as many
/// of them as make it small enough go into a few parts of their own.
fn group(
    tail: impl Iterator<Item = (usize, u64)>,
    mut rest: u64,
    Share { total, jobs }: Share,
    least: u64,
) -> Vec<PlannedData> {
    let wanted = (total / (4 * jobs)).max(least);
    let tail: Vec<(usize, u64)> = tail.take(MAX_GROUPED).collect();
    if jobs == 1 || tail.iter().map(|(_, bytes)| bytes).sum::<u64>() < least {
        return Vec::new();
    }
    let mut groups: Vec<(Vec<usize>, u64)> = Vec::new();
    for (index, bytes) in tail {
        if rest <= wanted.max(total / (2 * jobs)) {
            break;
        }
        let is_full = |(_, size): &(Vec<usize>, u64)| *size + bytes > wanted;
        if groups.last().is_none_or(is_full) {
            if groups.len() as u64 == 4 * jobs {
                break;
            }
            groups.push((Vec::new(), 0));
        }
        if let Some((members, size)) = groups.last_mut() {
            members.push(index);
            *size += bytes;
        }
        rest -= bytes;
    }
    groups
        .into_iter()
        .map(|(members, bytes)| PlannedData {
            part: DataPart::Tables(members),
            bytes,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const MB: u64 = 1 << 20;

    fn table(megabytes: u64) -> TableSize {
        TableSize {
            bytes: megabytes * MB,
            blocks: megabytes * 128,
            can_be_apart: true,
            can_be_split: true,
        }
    }

    fn shape(parts: &[PlannedData]) -> String {
        let words: Vec<String> = parts
            .iter()
            .map(|planned| {
                let size = planned.bytes / MB;
                match &planned.part {
                    DataPart::Rest => format!("rest:{size}"),
                    DataPart::Range(range) => format!("range{}:{size}", range.table),
                    DataPart::Tables(members) if members.len() == 1 => {
                        format!("table{}:{size}", members[0])
                    }
                    DataPart::Tables(members) => format!("group of {}:{size}", members.len()),
                }
            })
            .collect();
        words.join(" ")
    }

    #[rstest]
    #[case::empty(&[], 0, 2, "rest:0")]
    #[case::small(&[1, 2, 3], 0, 4, "rest:6")]
    #[case::just_below(&[63, 63], 0, 1, "rest:126")]
    #[case::one_job_still_has_parts(&[500, 10], 0, 1, "table0:500 rest:10")]
    #[case::one_table_dwarfs(&[1000, 10], 0, 2, "range0:250 range0:250 range0:250 range0:250 rest:10")]
    #[case::pieces_have_a_least_size(&[300, 10], 0, 4, "range0:150 range0:150 rest:10")]
    #[case::two_equals(&[400, 400, 10], 0, 2, "table0:400 table1:400 rest:10")]
    #[case::large_objects_go_first(&[100, 10], 5000, 2, "rest:5000 group of 2:110")]
    #[case::large_objects_and_a_table(&[700, 10], 1000, 2, "rest:1010 table0:700")]
    fn plans(
        #[case] sizes: &[u64],
        #[case] other: u64,
        #[case] jobs: usize,
        #[case] expected: &str,
    ) {
        let tables: Vec<TableSize> = sizes.iter().map(|&size| table(size)).collect();
        assert_eq!(
            shape(&plan(&tables, other * MB, jobs, PartSizes::default())),
            expected
        );
    }

    #[test]
    fn a_long_tail_is_shared_out() {
        let tables = vec![table(1); 4000];
        let parts = plan(&tables, 0, 2, PartSizes::default());
        assert!(parts.len() > 2, "{}", shape(&parts));
        let rest = parts
            .iter()
            .find(|part| part.part == DataPart::Rest)
            .unwrap();
        assert!(rest.bytes < 4000 * MB, "{}", shape(&parts));
    }

    #[test]
    fn what_cannot_be_split_or_named_is_not() {
        let mut tables = [table(1000), table(900)];
        tables[0].can_be_split = false;
        tables[1].can_be_apart = false;
        assert_eq!(
            shape(&plan(&tables, 0, 4, PartSizes::default())),
            "table0:1000 rest:900"
        );
    }

    #[rstest]
    #[case(&[1000, 10, 300, 64, 65, 2], 3)]
    #[case(&[0, 0, 0], 2)]
    #[case(&[1, 1000, 1, 1000, 1, 1000], 8)]
    fn every_table_and_block_is_planned_once(#[case] sizes: &[u64], #[case] jobs: usize) {
        let tables: Vec<TableSize> = sizes.iter().map(|&size| table(size)).collect();
        let parts = plan(&tables, 0, jobs, PartSizes::default());
        let mut whole = vec![0; tables.len()];
        let mut ranges: Vec<Vec<BlockRange>> = vec![Vec::new(); tables.len()];
        for planned in &parts {
            match &planned.part {
                DataPart::Tables(members) => members.iter().for_each(|&i| whole[i] += 1),
                DataPart::Range(range) => ranges[range.table].push(*range),
                DataPart::Rest => {}
            }
        }
        for (index, ranges) in ranges.iter_mut().enumerate() {
            assert!(whole[index] <= 1);
            if ranges.is_empty() {
                continue;
            }
            assert_eq!(whole[index], 0);
            ranges.sort_by_key(|range| range.first);
            assert_eq!(ranges[0].first, 0);
            assert_eq!(ranges.last().unwrap().end, None);
            for pair in ranges.windows(2) {
                assert_eq!(pair[0].end, Some(pair[1].first));
            }
        }
        let rests = parts.iter().filter(|part| part.part == DataPart::Rest);
        assert_eq!(rests.count(), 1);
        assert!(parts.is_sorted_by_key(|part| std::cmp::Reverse(part.bytes)));
    }
}
