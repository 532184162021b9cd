//! See `backup_fuzz::keys`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backup_fuzz::keys(data));
