#![no_main]
//! Frames, messages and handshakes out of arbitrary bytes.

libfuzzer_sys::fuzz_target!(|data: &[u8]| cairn_wire::fuzzing::wire_frame(data));
