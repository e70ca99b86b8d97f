//! `cairn mon rm`.

use super::{add, parse_name};
use crate::cmd::session::{Session, block_on, conf};
use crate::cmd::{Context, print_line};
use crate::local::DEFAULT_DIR;
use anyhow::bail;
use cairn_conf::{ClientConf, Layout};
use cairn_mon::service::{MonCommand, Request};
use cairn_types::{EntityKind, EntityName, Fsid, MonMap, MonStep};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long the others may take to go on without it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);
const LEAVE_INTERVAL: Duration = Duration::from_millis(100);

/// Take a monitor out of the cluster, or take one back that joins
///
/// The others go on without it. Its number is never given again, so its data is of no use any more: where it runs on
/// this machine it is stopped and its directory removed.
#[derive(clap::Args)]
pub struct Args {
    /// Its name, such as c
    #[arg(value_parser = parse_name)]
    name: String,
    /// Directory of the cluster, where the monitor runs on this machine
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let conf = conf(context)?;
    let name = EntityName::new(EntityKind::Mon, &args.name)?;
    let layout = Layout::new(&args.dir);
    let is_here = is_of(&layout, conf.fsid);
    block_on(async {
        let session = Session::start(&conf).await?;
        let command = MonCommand::Remove { name: args.name.clone() };
        session.mon.change(Request::Mon(command)).await?;
        let left = session.mon_map().await?;
        if is_here {
            let addrs = left.mons.values().flat_map(|mon| &mon.addrs);
            layout.set_monitors(&addrs.map(|addr| addr.socket).collect::<Vec<_>>())?;
        }
        wait_until_not_needed(&session, &name, left).await
    })?;
    if is_here && layout.daemons()?.contains(&name) {
        add::remove(&layout, &name)?;
    }
    print_line(context.format, &format!("{name} is removed."), &json!({"removed": args.name}))
}

fn is_of(layout: &Layout, fsid: Fsid) -> bool {
    ClientConf::load(&layout.client_conf()).is_ok_and(|conf| conf.fsid == fsid)
}

/// The others need the voice of the one that was removed until a majority of those that are left knows that it was: of
/// two, both have to agree that one goes.
///
/// Whichever monitor is asked, the leader answers, and from no older state than the one that the removal was answered from.
async fn wait_until_not_needed(session: &Session, name: &EntityName, mut map: MonMap) -> anyhow::Result<()> {
    let until = Instant::now() + LEAVE_TIMEOUT;
    while map.change.is_some_and(|change| change.step == MonStep::Leaves && change.name == name.id()) {
        if Instant::now() > until {
            bail!(
                "{name} is removed, but the others do not agree without it yet, so it is left running; it ends by \
                 itself when they do: `cairn health` tells what they wait for"
            );
        }
        sleep(LEAVE_INTERVAL).await;
        map = session.mon_map().await?;
    }
    Ok(())
}
