//! Any bytes, cut anywhere, give the same CSV.
#![no_main]

use backup_pg_archive::CsvConverter;
use libfuzzer_sys::fuzz_target;

fn convert(columns: usize, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut converter, mut out) = (CsvConverter::new(columns), Vec::new());
    for piece in pieces {
        converter.push(piece, &mut out);
    }
    converter.finish(&mut out);
    out
}

fuzz_target!(|data: &[u8]| {
    let [columns, at, text @ ..] = data else {
        return;
    };
    let columns = usize::from(*columns);
    let (first, second) = text.split_at(usize::from(*at).min(text.len()));
    assert_eq!(
        convert(columns, &[first, second]),
        convert(columns, &[text])
    );
});
