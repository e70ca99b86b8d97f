//! Making a cluster's directory.

use super::Args;
use crate::cmd::session::now_ms;
use crate::cmd::store::random_uuid;
use anyhow::bail;
use cairn_conf::{ClusterPlan, DaemonConf, Layout, Role, create_cluster};
use cairn_mon::daemon::{self, Seed};
use cairn_mon::service::Genesis;
use cairn_types::{EntityAddr, EntityKind, Fsid, Timestamp};
use std::collections::BTreeMap;
use std::time::SystemTime;

const MONS_DEFAULT: u8 = 3;
const OSDS_DEFAULT: u32 = 3;
const OSD_BYTES_DEFAULT: u64 = 10 << 30;

/// Makes it: certificates, configurations, the first state of the monitors. The OSDs' stores are made when the
/// monitors are there to give them their numbers.
pub fn create(layout: &Layout, args: &Args) -> anyhow::Result<()> {
    let fsid = random_uuid()?;
    let plan = ClusterPlan {
        fsid: Fsid(fsid),
        now: SystemTime::now(),
        mons: args.mons.unwrap_or(MONS_DEFAULT),
        osds: args.osds.unwrap_or(OSDS_DEFAULT),
        osd_bytes: args.osd_size.unwrap_or(OSD_BYTES_DEFAULT),
        seed: u64::from_le_bytes(fsid[8..].try_into().expect("16 bytes have 8 behind the eighth")),
    };
    create_cluster(layout, &plan, |staged| found_monitors(staged, plan.fsid))
}

/// Gives each monitor the state that the cluster begins with.
fn found_monitors(layout: &Layout, fsid: Fsid) -> anyhow::Result<()> {
    let mut founders = Vec::new();
    for name in layout.daemons()?.into_iter().filter(|name| name.kind() == EntityKind::Mon) {
        founders.push(DaemonConf::load(&layout.daemon_conf(&name))?);
    }
    let addr = |conf: &DaemonConf| EntityAddr { socket: conf.listen, nonce: 0 };
    let mons: BTreeMap<_, _> =
        founders.iter().map(|conf| (conf.name.id().to_owned(), vec![addr(conf)])).collect();
    let genesis = Genesis { fsid, now: Timestamp(now_ms()), mons };
    for conf in &founders {
        let Role::Mon(own) = &conf.role else { continue };
        daemon::create(&own.data, &conf.name, Seed::Founding(genesis.clone()))?;
    }
    Ok(())
}

/// Refuses to go on with another cluster than the one that is asked for.
pub fn check_same(layout: &Layout, args: &Args) -> anyhow::Result<()> {
    let names = layout.daemons()?;
    let count = |kind| names.iter().filter(|name| name.kind() == kind).count();
    let dir = layout.dir().display();
    let (mons, osds) = (count(EntityKind::Mon), count(EntityKind::Osd));
    if args.mons.is_some_and(|wanted| usize::from(wanted) != mons) {
        bail!(
            "{dir} holds a cluster with {mons} monitors already: leave --mons out to go on with it, or name another --dir"
        );
    }
    if args.osds.is_some_and(|wanted| wanted as usize != osds) {
        bail!(
            "{dir} holds a cluster with {osds} OSDs already: leave --osds out to go on with it, or name another --dir"
        );
    }
    Ok(())
}
