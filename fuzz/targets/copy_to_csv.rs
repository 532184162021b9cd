//! See `backup_fuzz::copy_to_csv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backup_fuzz::copy_to_csv(data));
