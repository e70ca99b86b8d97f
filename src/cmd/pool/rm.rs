//! `cairn pool rm`.

use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, print_line};
use cairn_mon::service::{PoolCommand, Request};
use serde_json::json;

/// Remove a pool and all that is in it
#[derive(clap::Args)]
pub struct Args {
    /// Its name
    name: String,
    /// Its name once more: all that is in it is gone for good
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let name = args.name.clone();
    if args.confirm.as_ref() != Some(&name) {
        anyhow::bail!(
            "removing pool '{name}' loses all that is in it for good: say --confirm {name} if that is meant"
        );
    }
    block_on(async {
        let command = PoolCommand::Remove { confirm: name.clone(), name: name.clone() };
        anyhow::Ok(Session::open(context).await?.mon.change(Request::Pool(command)).await?)
    })?;
    print_line(context.format, &format!("Pool '{name}' is removed."), &json!({"removed": name}))
}
