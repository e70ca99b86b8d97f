//! The index under a damaged device. Body: `bodies/index_region.rs`.
#![no_main]

#[path = "../bodies/index_region.rs"]
mod index_region;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| index_region::damage(bytes));
