//! What a store says and does when something is wrong with it, with its device, or with who asks; and that
//! nothing acknowledged is lost by it. The sentences are the ones that a person reads.

mod device;
mod full;
#[path = "../support/model.rs"]
mod model;
mod opening;
mod rot;
#[path = "../support/sim_store.rs"]
mod sim_store;
