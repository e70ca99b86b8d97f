//! What the store keeps on its device. Body: `bodies/store_format.rs`.
#![no_main]

#[path = "../bodies/store_format.rs"]
mod store_format;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| store_format::decode(bytes));
