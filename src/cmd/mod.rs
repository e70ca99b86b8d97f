//! One module per command of the first level.

pub mod crush;
pub mod store;
