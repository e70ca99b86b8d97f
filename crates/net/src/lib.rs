mod pki;
mod token;
pub use pki::*;
