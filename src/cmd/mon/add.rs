//! `cairn mon add`.

use super::parse_name;
use crate::cmd::session::{Session, block_on, unexpected};
use crate::cmd::{Context, print_line};
use crate::local::{self, DEFAULT_DIR, start, stop, up_pid_file};
use anyhow::{Context as _, bail};
use cairn_conf::{ClientConf, DaemonPlan, Layout, create_daemon, free_ports, running};
use cairn_mon::daemon::{self, Seed};
use cairn_mon::service::{MonCommand, Reply, Request};
use cairn_types::{EntityAddr, EntityKind, EntityName, MonId, MonMap};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;

/// How long the new monitor may take until it counts.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
const JOIN_INTERVAL: Duration = Duration::from_millis(200);

/// Add a monitor to a cluster on this machine, and start it
///
/// Add two, one after the other: an even number of monitors survives no more than the odd one below it.
#[derive(clap::Args)]
pub struct Args {
    /// Its name, such as d
    #[arg(value_parser = parse_name)]
    name: String,
    /// Directory of the cluster
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let layout = local::open(&args.dir)?;
    let name = EntityName::new(EntityKind::Mon, &args.name)?;
    let addr = block_on(add(&layout, &name))?;
    let line = format!("{name} is added, at {}, and agrees with the others.", addr.socket);
    print_line(context.format, &line, &json!({"name": args.name, "addr": addr.socket}))
}

async fn add(layout: &Layout, name: &EntityName) -> anyhow::Result<EntityAddr> {
    let conf = ClientConf::load(&layout.client_conf())?;
    let session = Session::start(&conf).await?;
    if session.mon_map().await?.mons.contains_key(name.id()) {
        bail!("{name} exists already; `cairn mon ls` lists the monitors");
    }
    let addr = EntityAddr { socket: free_ports(1, now_ns())?[0], nonce: 0 };
    let command = MonCommand::Add { name: name.id().to_owned(), addrs: vec![addr] };
    // The monitors give it a number, under which it can be made. It does not count before it runs.
    let reply = session.mon.change(Request::Mon(command)).await?;
    let Reply::Mon { mon } = reply else { return Err(unexpected(&reply)) };
    let started = start(&session, layout, name, mon, addr).await;
    if let Err(error) = started {
        let back = MonCommand::Remove { name: name.id().to_owned() };
        return match session.mon.change(Request::Mon(back)).await {
            Ok(_) => Err(error),
            Err(_) => {
                Err(error.context(format!("{name} is still to join: take it back with `cairn mon rm`")))
            }
        };
    }
    let map = wait_until_it_counts(&session, name, mon).await?;
    let monitors: Vec<_> = map.mons.values().flat_map(|mon| &mon.addrs).map(|addr| addr.socket).collect();
    layout.set_monitors(&monitors)?;
    Ok(addr)
}

/// A seed for ports.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Makes and starts the monitor that has this number.
async fn start(
    session: &Session,
    layout: &Layout,
    name: &EntityName,
    mon: MonId,
    addr: EntityAddr,
) -> anyhow::Result<()> {
    let map = session.mon_map().await?;
    if map.name_of(mon) != Some(name.id()) {
        bail!("{name} was taken back by another command");
    }
    let plan = DaemonPlan {
        name: name.clone(),
        monitors: map.peers().flat_map(|(_, mon)| &mon.addrs).map(|addr| addr.socket).collect(),
        listen: vec![addr.socket],
        host: String::new(),
        store_bytes: 0,
    };
    create_daemon(layout, &plan, SystemTime::now(), |dir| {
        daemon::create(&dir.join("data"), name, Seed::Joining(map)).map_err(anyhow::Error::from)
    })?;
    let up = running(&up_pid_file(layout))?;
    let started = start::spawn(layout, name, up.map(|held| held.pid.unsigned_abs()))
        .and_then(|mut spawned| spawned.wait_until_known(layout));
    if started.is_err() {
        remove(layout, name)?;
    }
    started
}

/// Waits until the monitors count it; the map that does.
async fn wait_until_it_counts(session: &Session, name: &EntityName, mon: MonId) -> anyhow::Result<MonMap> {
    let until = Instant::now() + JOIN_TIMEOUT;
    loop {
        let map = session.mon_map().await?;
        if map.mons.get(name.id()).is_some_and(|known| known.id == mon) {
            return Ok(map);
        }
        if map.name_of(mon).is_none() {
            bail!("{name} was taken back by another command");
        }
        if Instant::now() > until {
            bail!(
                "{name} runs but does not agree with the others yet: `cairn mon ls` shows when it does; \
                 `cairn mon rm {}` takes it back",
                name.id()
            );
        }
        sleep(JOIN_INTERVAL).await;
    }
}

/// Ends a monitor that is not one of the cluster's, and removes its directory.
pub fn remove(layout: &Layout, name: &EntityName) -> anyhow::Result<()> {
    if let Some(held) = running(&layout.pid_file(name))? {
        stop::stop(vec![(name.clone(), held)])?;
    }
    let dir = layout.entity_dir(name);
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}
