//! A store on a damaged image. Body: `bodies/store_image.rs`.
#![no_main]

#[path = "../bodies/store_image.rs"]
mod store_image;

use std::sync::Once;

/// The fuzzer's hook ends the process at any panic, also at one of the index library, which the store makes an
/// error of. A panic that leaves the target still ends it.
static PANICS: Once = Once::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    PANICS.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    store_image::torture(bytes);
});
