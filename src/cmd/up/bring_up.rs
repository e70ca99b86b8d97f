//! Starting the daemons, and what is done once in the life of a cluster.

use crate::cmd::session::Session;
use crate::local::start::{Started, spawn};
use crate::local::stop::stop;
use crate::local::store::{self, Found};
use cairn_conf::{DaemonConf, Held, Layout, running};
use cairn_mon::service::status::Status;
use cairn_mon::service::{OsdCommand, PoolCommand, Request};
use cairn_types::{EntityKind, EntityName, PoolId};
use std::time::Duration;

/// The pool that a new cluster gets.
const FIRST_POOL: &str = "vms";
const FIRST_POOL_SIZE: u8 = 3;
const FIRST_POOL_MIN_SIZE: u8 = 2;
const FIRST_POOL_PG_NUM: u32 = 32;

/// The daemons that this process has started.
pub struct Daemons {
    layout: Layout,
    is_followed: bool,
    left_out: Vec<EntityName>,
    /// Those that ran already. One may be about to end: a killed process keeps its files until its last write is done.
    found: Vec<(EntityName, Held)>,
    /// Those that have not ended.
    pub started: Vec<Started>,
}

impl Daemons {
    /// None yet. `is_followed`: they are to end with this process.
    pub fn new(layout: Layout, is_followed: bool) -> Self {
        Daemons { layout, is_followed, left_out: Vec::new(), found: Vec::new(), started: Vec::new() }
    }

    /// The cluster's directory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Does not start this one.
    pub fn leave_out(&mut self, name: EntityName) {
        self.left_out.push(name);
    }

    /// Starts those of a kind that do not run.
    pub fn start(&mut self, kind: EntityKind) -> anyhow::Result<()> {
        let follow = self.is_followed.then(std::process::id);
        let first = self.started.len();
        for name in self.layout.daemons()?.into_iter().filter(|name| name.kind() == kind) {
            if self.left_out.contains(&name) {
                continue;
            }
            match running(&self.layout.pid_file(&name))? {
                Some(held) => self.found.push((name, held)),
                None => self.started.push(spawn(&self.layout, &name, follow)?),
            }
        }
        self.started[first..].iter_mut().try_for_each(|started| started.wait_until_known(&self.layout))
    }

    /// Whether all that were started run still; if not, the reason is the error. Those that ran before and have ended
    /// are started.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let follow = self.is_followed.then(std::process::id);
        for (name, held) in std::mem::take(&mut self.found) {
            match held.wait(Duration::ZERO)? {
                true => self.started.push(spawn(&self.layout, &name, follow)?),
                false => self.found.push((name, held)),
            }
        }
        self.started.iter_mut().try_for_each(|started| started.check(&self.layout))
    }

    /// Stops those that were started.
    pub fn stop_started(&mut self) -> anyhow::Result<()> {
        let mut daemons = Vec::new();
        // The monitors last.
        for started in self.started.drain(..).rev() {
            if let Some(held) = running(&self.layout.pid_file(&started.name))? {
                daemons.push((started.name, held));
            }
        }
        stop(daemons)?;
        Ok(())
    }
}

/// Starts mgrs, and OSDs with the stores that are missing made first.
pub async fn osds_and_mgrs(session: &Session, daemons: &mut Daemons) -> anyhow::Result<()> {
    daemons.start(EntityKind::Mgr)?;
    let layout = daemons.layout().clone();
    let mut map = None;
    for name in layout.daemons()? {
        let Some(osd) = name.osd_id() else { continue };
        let conf = DaemonConf::load(&layout.daemon_conf(&name))?;
        if store::path_of(&conf)?.exists() {
            continue;
        }
        let map = match &map {
            Some(map) => map,
            None => map.insert(session.osd_map().await?),
        };
        match store::look(&conf, osd, map)? {
            Found::Store => {}
            Found::Nothing => store::make(&layout, &conf, osd).await?,
            Found::HalfMade => {
                let destroy = OsdCommand::Destroy { osd, confirmed: true };
                session.mon.change(Request::Osd(destroy)).await?;
                store::make(&layout, &conf, osd).await?;
            }
            Found::Gone => {
                eprintln!(
                    "{osd} is not started, for its store {} is gone: if its data is given up, say \
                     `cairn osd destroy {} --yes` and `cairn osd create --id {}`.",
                    store::path_of(&conf)?.display(),
                    osd.0,
                    osd.0,
                );
                daemons.leave_out(name);
            }
        }
    }
    daemons.start(EntityKind::Osd)
}

/// Makes the first pool when all OSDs are up. True if nothing is left to do: also where a pool was made before, which an
/// operator may have removed since.
pub async fn first_pool(session: &Session, status: &Status) -> anyhow::Result<bool> {
    let osd = &status.osd;
    if session.osd_map().await?.pool_max > PoolId(0) || osd.total == 0 {
        return Ok(true);
    }
    if osd.up < osd.total {
        return Ok(false);
    }
    // With fewer OSDs than copies it would never be well.
    let size = FIRST_POOL_SIZE.min(u8::try_from(osd.total).unwrap_or(FIRST_POOL_SIZE));
    let command = PoolCommand::Create {
        name: FIRST_POOL.to_owned(),
        size: Some(size),
        min_size: Some(FIRST_POOL_MIN_SIZE.min(size)),
        pg_num: Some(FIRST_POOL_PG_NUM),
        rule: None,
        application: "rbd".to_owned(),
    };
    session.mon.change(Request::Pool(command)).await?;
    Ok(true)
}
