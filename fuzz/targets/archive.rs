//! See `backup_fuzz::archive`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backup_fuzz::archive(data));
