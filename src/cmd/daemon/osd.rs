//! An OSD.

use cairn_conf::{DaemonConf, OsdConf};
use cairn_net::Identity;
use cairn_osd::daemon::{self, OsdError, OsdOptions};
use std::future::Future;

/// Runs it until `stop` ends.
pub async fn run(
    conf: &DaemonConf,
    own: &OsdConf,
    identity: Identity,
    stop: impl Future<Output = ()>,
) -> Result<(), OsdError> {
    let options = OsdOptions {
        public: conf.listen,
        cluster: own.cluster_listen,
        ..OsdOptions::new(identity, &own.store, super::monitors(conf))
    };
    daemon::run(options, stop).await
}
