//! `cairn mon add`.

use super::parse_name;
use crate::cmd::session::{Session, block_on, unexpected};
use crate::cmd::{Context, print_line};
use crate::local::{self, DEFAULT_DIR, start, stop, up_pid_file};
use anyhow::{Context as _, bail};
use cairn_conf::{ClientConf, DaemonPlan, Layout, create_daemon, free_ports, running};
use cairn_mon::daemon::{self, Seed};
use cairn_mon::service::{MonCommand, Reply, Request};
use cairn_mon::session::CallError;
use cairn_types::{EntityAddr, EntityKind, EntityName, MonInfo, MonMap};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::sleep;

/// How long the new monitor may take to agree with the others.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
const JOIN_INTERVAL: Duration = Duration::from_millis(200);

/// Add a monitor to a cluster on this machine, and start it
///
/// Add two at a time: an even number of monitors survives no more than the odd one below it.
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
    let (map, addr) = map_with(session.mon_map().await?, name)?;
    let monitors: Vec<_> = map.mons.values().flat_map(|mon| &mon.addrs).map(|addr| addr.socket).collect();
    let plan = DaemonPlan {
        name: name.clone(),
        monitors: monitors.clone(),
        listen: vec![addr.socket],
        host: String::new(),
        store_bytes: 0,
    };
    create_daemon(layout, &plan, SystemTime::now(), |dir| {
        daemon::create(&dir.join("data"), name, Seed::Joining(map.clone())).map_err(anyhow::Error::from)
    })?;
    // It runs before it counts: the others may need its vote at once.
    if let Err(error) = start_daemon(layout, name) {
        remove(layout, name)?;
        return Err(error);
    }
    join(&session, layout, name, addr, &map).await?;
    layout.set_monitors(&monitors)?;
    wait_for_quorum(&session, name).await?;
    Ok(addr)
}

/// The map as it will be with one more monitor, on a free port of this machine.
fn map_with(mut map: MonMap, name: &EntityName) -> anyhow::Result<(MonMap, EntityAddr)> {
    if map.mons.contains_key(name.id()) {
        bail!("{name} exists already; `cairn mon ls` lists the monitors");
    }
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let socket = free_ports(1, seed)?[0];
    let addr = EntityAddr { socket, nonce: 0 };
    let id = map.next_id;
    map.mons.insert(name.id().to_owned(), MonInfo { id, addrs: vec![addr] });
    map.next_id.0 += 1;
    map.epoch = map.epoch.next();
    Ok((map, addr))
}

fn start_daemon(layout: &Layout, name: &EntityName) -> anyhow::Result<()> {
    let up = running(&up_pid_file(layout))?;
    start::spawn(layout, name, up.map(|held| held.pid.unsigned_abs()))?.wait_until_known(layout)
}

async fn join(
    session: &Session,
    layout: &Layout,
    name: &EntityName,
    addr: EntityAddr,
    map: &MonMap,
) -> anyhow::Result<()> {
    let command = MonCommand::Add { name: name.id().to_owned(), addrs: vec![addr] };
    let reply = match session.mon.change(Request::Mon(command)).await {
        Ok(reply) => reply,
        Err(refused @ CallError::Refused { .. }) => {
            remove(layout, name)?;
            return Err(refused.into());
        }
        // It may be one of them already, and a quorum without it impossible.
        Err(error) => {
            let why = format!(
                "{name} runs, but it is not known whether it was added: `cairn mon ls` tells; if it is not listed, \
                 stop it and remove {}",
                layout.entity_dir(name).display()
            );
            return Err(anyhow::Error::from(error).context(why));
        }
    };
    let Reply::Mon { mon } = reply else { return Err(unexpected(&reply)) };
    if map.mons.get(name.id()).is_none_or(|known| known.id != mon) {
        // Another monitor was added in this moment and has the number this one was made for.
        session.mon.change(Request::Mon(MonCommand::Remove { name: name.id().to_owned() })).await?;
        remove(layout, name)?;
        bail!("another monitor was added at the same time: try again");
    }
    Ok(())
}

/// Ends a monitor that is not one of the cluster's, and removes its directory.
pub fn remove(layout: &Layout, name: &EntityName) -> anyhow::Result<()> {
    if let Some(held) = running(&layout.pid_file(name))? {
        stop::stop(vec![(name.clone(), held)])?;
    }
    let dir = layout.entity_dir(name);
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

async fn wait_for_quorum(session: &Session, name: &EntityName) -> anyhow::Result<()> {
    let until = Instant::now() + JOIN_TIMEOUT;
    loop {
        if session.status().await?.mon.quorum.iter().any(|member| member == name.id()) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("{name} is added but does not agree with the others yet: `cairn health` tells more");
        }
        sleep(JOIN_INTERVAL).await;
    }
}
