//! What must hold, and what is said when it does not.

pub mod register;
