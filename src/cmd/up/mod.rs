//! `cairn up`: a cluster of real processes on this machine.
//!
//! | behaviour | module |
//! |---|---|
//! | making the directory the first time | `create` |
//! | starting the daemons, and what is done once in a cluster's life | `bring_up` |
//! | waiting for HEALTH_OK, with a line that tells how far it is | `progress` |
//! | looking after the daemons until Ctrl-C | `attend` |

mod attend;
mod bring_up;
mod create;
mod progress;

use super::session::{Session, block_on};
use super::{Context, Format, print, print_json, text};
use crate::local::{self, DEFAULT_DIR, all_running, stop::stop_all};
use anyhow::bail;
use bring_up::Daemons;
use cairn_conf::{ClientConf, Layout, PidFile};
use cairn_types::EntityKind;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Start a cluster on this machine, on loopback, and wait until it is well
///
/// The first time it is made in --dir: monitors, mgrs and OSDs, each on a host n1, n2, … of its own, and a pool `vms`.
/// Later the same directory goes on where it was. In the foreground Ctrl-C stops it in good order.
#[derive(clap::Args)]
pub struct Args {
    /// Directory of the cluster
    #[arg(long, default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// Monitors of a new cluster, and as many mgrs [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    mons: Option<u8>,
    /// OSDs of a new cluster [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=256))]
    osds: Option<u32>,
    /// Size of each OSD of a new cluster; its file grows as it is filled [default: 10GiB]
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    osd_size: Option<u64>,
    /// Leave the daemons running and return
    #[arg(long)]
    detach: bool,
    /// How long to wait for HEALTH_OK
    #[arg(long, value_name = "TIME", value_parser = text::parse_duration, default_value = "60s")]
    timeout: Duration,
}

/// Starts.
pub fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    let layout = Layout::new(&args.dir);
    match layout.exists() {
        true => create::check_same(&layout, args)?,
        false => create::create(&layout, args)?,
    }
    // Two at once would start everything twice.
    let own = PidFile::take(&local::up_pid_file(&layout), "`cairn up` of this directory")?;
    let running = all_running(&layout)?;
    let all = layout.daemons()?;
    if !running.is_empty() && !args.detach {
        let names = running.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ");
        match running.len() == all.len() {
            true => bail!(
                "the cluster in {} is running already: `cairn status` tells how it is, `cairn down` stops it",
                args.dir.display()
            ),
            false => bail!(
                "{names} of {} run already: `cairn up --detach` starts the others, `cairn down` stops these",
                args.dir.display()
            ),
        }
    }
    let outcome = block_on(up(context, args, &layout));
    drop(own);
    outcome
}

async fn up(context: &Context, args: &Args, layout: &Layout) -> anyhow::Result<ExitCode> {
    let mut asked_to_stop = Box::pin(super::daemon::stopping::asked_to()?);
    let mut daemons = Daemons::new(layout.clone(), !args.detach);
    let brought_up = tokio::select! {
        outcome = bring_up_and_wait(args, layout, &mut daemons) => outcome,
        () = &mut asked_to_stop => Err(anyhow::anyhow!("stopped before the cluster was up")),
    };
    let up = match brought_up {
        Ok(up) => up,
        Err(error) => {
            // What was started for nothing does not stay.
            daemons.stop_started()?;
            return Err(error);
        }
    };
    say(context, args, layout, &up)?;
    if args.detach {
        return Ok(if up.is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    attend::attend(layout, daemons, asked_to_stop).await?;
    eprintln!("Stopping.");
    stop_all(layout)?;
    Ok(ExitCode::SUCCESS)
}

/// A cluster that is up.
struct Up {
    conf: ClientConf,
    status: cairn_mon::service::status::Status,
    is_well: bool,
    took: Duration,
}

async fn bring_up_and_wait(args: &Args, layout: &Layout, daemons: &mut Daemons) -> anyhow::Result<Up> {
    let begun = Instant::now();
    let progress = progress::Progress::new();
    let conf = ClientConf::load(&layout.client_conf())?;
    daemons.start(EntityKind::Mon)?;
    let session = Session::start(&conf).await?;
    progress::wait_for_quorum(&session, daemons, &progress, args.timeout).await?;
    bring_up::osds_and_mgrs(&session, daemons).await?;
    let until = begun + args.timeout;
    let status = progress::wait_until_well(&session, daemons, &progress, until).await?;
    progress.clear();
    let is_well = progress::is_settled(&status.health);
    Ok(Up { conf, status, is_well, took: begun.elapsed() })
}

/// Tells that it is up, and what to do next.
fn say(context: &Context, args: &Args, layout: &Layout, up: &Up) -> anyhow::Result<()> {
    let status = &up.status;
    if context.format == Format::Json {
        let daemons: Vec<_> = all_running(layout)?
            .iter()
            .map(|(name, held)| json!({"name": name.to_string(), "pid": held.pid}))
            .collect();
        return print_json(&json!({
            "dir": args.dir,
            "conf": up.conf.path,
            "fsid": up.conf.fsid,
            "health": status.health.status,
            "seconds": up.took.as_secs_f64(),
            "daemons": daemons,
        }));
    }
    let (mon, osd) = (&status.mon, &status.osd);
    let mut out = format!(
        "Cluster {} is up after {:.1} s: {} monitors, {} of {} OSDs up, {} placement groups. {}\n",
        status.fsid,
        up.took.as_secs_f64(),
        mon.quorum.len(),
        osd.up,
        osd.total,
        status.pg.total,
        status.health.status,
    );
    for check in status.health.checks.values() {
        out += &format!("  {}\n    next: {}\n", check.summary, check.next_step);
    }
    let conf = match args.dir == Path::new(DEFAULT_DIR) {
        true => String::new(),
        false => format!("  export CAIRN_CONF={}\n", std::path::absolute(&up.conf.path)?.display()),
    };
    let stop = match (args.detach, args.dir == Path::new(DEFAULT_DIR)) {
        (false, _) => "Ctrl-C stops it.".to_owned(),
        (true, true) => "`cairn down` stops it.".to_owned(),
        (true, false) => format!("`cairn down --dir {}` stops it.", args.dir.display()),
    };
    out += &format!(
        "Next:\n{conf}  cairn status\n  cairn image create vms/disk1 --size 10GiB\n  \
         cairn nbd serve vms/disk1 --socket disk1.sock\n{stop}\n"
    );
    print(&out)
}
