//! `cairn osd create`.

use super::parse_osd;
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, print_line, text};
use crate::local::store::{self, Found};
use crate::local::{self, DEFAULT_DIR, start, up_pid_file};
use anyhow::bail;
use cairn_conf::{
    ClientConf, CreateError, DaemonConf, DaemonPlan, Layout, create_daemon, free_ports, running,
};
use cairn_mon::service::{OsdCommand, Request};
use cairn_types::{EntityKind, EntityName, OsdId, OsdMap};
use serde_json::json;
use std::path::PathBuf;
use std::time::SystemTime;

const SIZE_DEFAULT: &str = "10GiB";

/// Make an OSD of a cluster on this machine, and start it
///
/// With --id one takes the place of an OSD that was destroyed: it is filled with what that one had.
#[derive(clap::Args)]
pub struct Args {
    /// Number of a destroyed OSD [default: a free number]
    #[arg(long, value_name = "OSD", value_parser = parse_osd)]
    id: Option<OsdId>,
    /// Size of a new one; its file grows as it is filled
    #[arg(long, value_parser = text::parse_size, default_value = SIZE_DEFAULT)]
    size: u64,
    /// Host it stands on, for CRUSH [default: n1 for osd.0, and so on]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Directory of the cluster
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let layout = local::open(&args.dir)?;
    let osd = block_on(create(&layout, args))?;
    print_line(context.format, &format!("{osd} is made, and running."), &json!({"osd": osd}))
}

async fn create(layout: &Layout, args: &Args) -> anyhow::Result<OsdId> {
    let admin = ClientConf::load(&layout.client_conf())?;
    let session = Session::start(&admin).await?;
    let map = session.osd_map().await?;
    let osd = args.id.unwrap_or_else(|| free_number(layout, &map));
    let name = EntityName::from(osd);
    if let Some(info) = map.osds.get(&osd)
        && !info.is_destroyed()
        && info.up_from.0 > 0
    {
        bail!(
            "{osd} exists already: `cairn osd destroy {} --yes` gives up its data and frees its number",
            osd.0
        );
    }
    if !layout.daemons()?.contains(&name) {
        let plan = DaemonPlan {
            name: name.clone(),
            monitors: admin.monitors.clone(),
            listen: free_ports(DaemonPlan::ports(EntityKind::Osd), seed())?,
            host: args.host.clone().unwrap_or_else(|| format!("n{}", osd.0 + 1)),
            store_bytes: args.size,
        };
        create_daemon(layout, &plan, SystemTime::now(), |_| Ok::<_, CreateError>(()))?;
    }
    let conf = DaemonConf::load(&layout.daemon_conf(&name))?;
    match store::look(&conf, osd, &map)? {
        Found::Store => bail!(
            "{} is there still: remove it if the data of {osd} is given up, and try again",
            store::path_of(&conf)?.display()
        ),
        Found::HalfMade => {
            session.mon.change(Request::Osd(OsdCommand::Destroy { osd, confirmed: true })).await?;
        }
        // Checked above: it was destroyed.
        Found::Nothing | Found::Gone => {}
    }
    store::make(layout, &conf, osd).await?;
    let up = running(&up_pid_file(layout))?;
    start::spawn(layout, &name, up.map(|held| held.pid.unsigned_abs()))?.wait_until_known(layout)?;
    Ok(osd)
}

/// The first number that neither the map nor the directory knows.
fn free_number(layout: &Layout, map: &OsdMap) -> OsdId {
    let is_free =
        |osd: &OsdId| !map.osds.contains_key(osd) && !layout.entity_dir(&EntityName::from(*osd)).exists();
    (0..i32::MAX).map(OsdId).find(is_free).unwrap_or(OsdId(i32::MAX))
}

/// Chooses where to look for ports.
fn seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
