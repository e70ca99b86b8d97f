//! What is on the device, byte for byte: `docs/format/store.md`. Decoders never panic and never
//! allocate more than their input is long, times a constant.

pub mod codec;
pub mod features;
#[cfg(test)]
mod golden;
pub mod mutation;
#[cfg(test)]
mod properties;
pub mod record;
pub mod superblock;
pub mod values;
