//! A monitor.

use cairn_conf::{DaemonConf, MonConf};
use cairn_mon::daemon::{self, MonError, MonOptions};
use cairn_net::Identity;
use std::future::Future;

/// Runs it until `stop` ends.
pub async fn run(
    conf: &DaemonConf,
    own: &MonConf,
    identity: Identity,
    stop: impl Future<Output = ()>,
) -> Result<(), MonError> {
    daemon::run(MonOptions::new(identity, &own.data, conf.listen), stop).await
}
