//! The daemons of a cluster's directory as processes of this machine.
//!
//! | behaviour | module |
//! |---|---|
//! | starting one; why it did not | `start` |
//! | the store of an OSD | `store` |
//! | stopping one, or all in order | `stop` |
//! | a daemon that ends with the process it belongs to | `follow` |

pub mod follow;
pub mod start;
pub mod stop;
pub mod store;

use anyhow::bail;
use cairn_conf::{Held, Layout, running};
use cairn_types::EntityName;
use std::path::{Path, PathBuf};

/// Where a cluster is unless --dir says otherwise.
pub const DEFAULT_DIR: &str = ".cairn";

/// The cluster in a directory that has one.
pub fn open(dir: &Path) -> anyhow::Result<Layout> {
    let layout = Layout::new(dir);
    if !layout.exists() {
        bail!(
            "{} holds no cluster: start one with `cairn up`, or name its directory with --dir",
            dir.display()
        );
    }
    Ok(layout)
}

/// The daemons that run now.
pub fn all_running(layout: &Layout) -> anyhow::Result<Vec<(EntityName, Held)>> {
    let mut found = Vec::new();
    for name in layout.daemons()? {
        if let Some(held) = running(&layout.pid_file(&name))? {
            found.push((name, held));
        }
    }
    Ok(found)
}

/// The pid file of a `cairn up` that looks after the directory.
pub fn up_pid_file(layout: &Layout) -> PathBuf {
    layout.run_dir().join("up.pid")
}

/// A daemon of the directory.
pub fn check_known(layout: &Layout, name: &EntityName) -> anyhow::Result<()> {
    let all = layout.daemons()?;
    if !all.contains(name) {
        let all = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        bail!("there is no {name} in {}: there are {all}", layout.dir().display());
    }
    Ok(())
}
