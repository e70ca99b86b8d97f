//! `cairn pool create`.

use crate::cmd::session::{Session, block_on, unexpected};
use crate::cmd::{Context, print_line};
use cairn_mon::service::{PoolCommand, Reply, Request};
use serde_json::json;

/// Make a pool
#[derive(clap::Args)]
pub struct Args {
    /// Its name
    name: String,
    /// Copies of each object [default: 3]
    #[arg(long, value_name = "N")]
    size: Option<u8>,
    /// Copies that must be there for I/O to go on [default: more than half of --size]
    #[arg(long, value_name = "N")]
    min_size: Option<u8>,
    /// Placement groups [default: by the number of OSDs]
    #[arg(long, value_name = "N")]
    pg_num: Option<u32>,
    /// CRUSH rule [default: the first one]
    #[arg(long)]
    rule: Option<String>,
    /// What uses it
    #[arg(long, value_name = "NAME", default_value = "rbd")]
    application: String,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let command = PoolCommand::Create {
        name: args.name.clone(),
        size: args.size,
        min_size: args.min_size,
        pg_num: args.pg_num,
        rule: args.rule.clone(),
        application: args.application.clone(),
    };
    let reply = block_on(async {
        anyhow::Ok(Session::open(context).await?.mon.change(Request::Pool(command)).await?)
    })?;
    let Reply::Pool { pool, pg_num } = reply else { return Err(unexpected(&reply)) };
    let line = format!("Pool '{}' is made, with number {pool} and {pg_num} placement groups.", args.name);
    print_line(context.format, &line, &json!({"name": args.name, "id": pool, "pg_num": pg_num}))
}
