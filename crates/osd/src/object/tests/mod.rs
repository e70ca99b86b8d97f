//! Tests of the whole: vectors through [`execute`](super::execute) and [`apply`](super::apply) into a real store.

mod classes;
mod formats;
mod harness;
mod model;
mod vectors;
