//! Whole clusters of real processes, used and broken as their operators and their hardware do it.

mod bad_input;
mod failures;
mod guests;
mod harness;
mod images;
mod lifecycle;
mod power;
