//! The decoder of binary CRUSH maps. Body: `bodies/crush.rs`.
#![no_main]

#[path = "../bodies/crush.rs"]
mod crush;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| crush::binary(bytes));
