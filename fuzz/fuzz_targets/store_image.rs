//! A store on a damaged image. Body: `bodies/store_image.rs`.
#![no_main]

#[path = "../bodies/store_image.rs"]
mod store_image;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| store_image::torture(bytes));
