//! `cairn daemon`: runs one daemon in this process. `cairn up` and service managers call it.

mod log;
mod mgr;
mod mon;
mod osd;
pub mod stopping;

use crate::local::follow::follow;
use anyhow::{Context, bail};
use cairn_conf::{DaemonConf, PidFile, Role};
use cairn_mon::session::Monitors;
use std::path::PathBuf;

/// Run one daemon in this process until it is stopped
#[derive(clap::Args)]
pub struct Args {
    /// What it is
    kind: Kind,
    /// Its directory, which has its daemon.toml
    #[arg(long)]
    dir: PathBuf,
    /// Stop when this process ends
    #[arg(long, value_name = "PID")]
    follow: Option<i32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kind {
    /// A monitor
    Mon,
    /// An OSD
    Osd,
    /// A mgr
    Mgr,
}

/// Where monitors are, also when its configuration has been written anew.
fn monitors(conf: &DaemonConf) -> Monitors {
    let path = conf.path.clone();
    Monitors::new(conf.monitors.clone(), move || Some(DaemonConf::load(&path).ok()?.monitors))
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    log::start();
    if let Some(pid) = args.follow {
        follow(pid)?;
    }
    let conf = DaemonConf::load(&args.dir.join("daemon.toml"))?;
    let identity = conf.load_identity()?;
    // Held until the process ends.
    let _pid_file =
        conf.pid_file.as_ref().map(|path| PidFile::take(path, &conf.name.to_string())).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = stopping::asked_to()?;
        tracing::info!(name = %conf.name, listen = %conf.listen, version = env!("CARGO_PKG_VERSION"), "starting");
        match (args.kind, &conf.role) {
            (Kind::Mon, Role::Mon(own)) => mon::run(&conf, own, identity, stop).await?,
            (Kind::Osd, Role::Osd(own)) => osd::run(&conf, own, identity, stop).await?,
            (Kind::Mgr, Role::Mgr(own)) => mgr::run(&conf, own, identity, stop).await?,
            _ => bail!("{} is the configuration of {}", conf.path.display(), conf.name),
        }
        tracing::info!("stopped");
        Ok(())
    })
}
