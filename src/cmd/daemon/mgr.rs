//! A mgr.

use cairn_conf::{DaemonConf, MgrConf};
use cairn_mgr::daemon::{self, MgrError, MgrOptions};
use cairn_net::Identity;
use cairn_osd::message::Report;
use std::future::Future;

/// Runs it until `stop` ends.
pub async fn run(
    conf: &DaemonConf,
    own: &MgrConf,
    identity: Identity,
    stop: impl Future<Output = ()>,
) -> Result<(), MgrError> {
    let options = MgrOptions {
        identity,
        listen: conf.listen,
        prometheus_listen: Some(own.metrics_listen),
        monitors: super::monitors(conf),
        read_report: |frame| frame.message::<Report>().map(|report| report.0),
    };
    daemon::run(options, stop).await
}
