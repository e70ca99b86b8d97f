//! `cairn mon ls`.

use crate::cmd::output::columns;
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, Format, print, print_json};
use cairn_mon::service::status::MonStatus;
use cairn_types::{MonInfo, MonMap, MonStep};
use serde_json::{Value, json};

pub fn run(context: &Context) -> anyhow::Result<()> {
    let (map, status) = block_on(async {
        let session = Session::open(context).await?;
        anyhow::Ok((session.mon_map().await?, session.status().await?.mon))
    })?;
    match context.format {
        Format::Json => print_json(&document(&map, &status)),
        Format::Text => print(&columns(
            ["NAME", ">NUMBER", "ADDRESSES", "STATE"],
            map.peers().map(|(name, mon)| {
                [
                    format!("mon.{name}"),
                    mon.id.0.to_string(),
                    addrs(mon).join(" "),
                    state(&map, name, &status).to_owned(),
                ]
            }),
        )),
    }
}

fn addrs(mon: &MonInfo) -> Vec<String> {
    mon.addrs.iter().map(|addr| addr.socket.to_string()).collect()
}

fn state(map: &MonMap, name: &str, status: &MonStatus) -> &'static str {
    if !map.mons.contains_key(name) {
        return step(map).unwrap_or_default();
    }
    if status.leader.as_deref() == Some(name) {
        "leader"
    } else if status.quorum.iter().any(|member| member == name) {
        "in quorum"
    } else {
        "out of quorum"
    }
}

/// What the one does that joins or leaves.
fn step(map: &MonMap) -> Option<&'static str> {
    map.change.as_ref().map(|change| match change.step {
        MonStep::Joins => "joins",
        MonStep::Leaves => "leaves",
    })
}

fn document(map: &MonMap, status: &MonStatus) -> Value {
    let mon = |(name, mon): (&String, &MonInfo)| json!({"name": name, "id": mon.id, "addrs": addrs(mon), "in_quorum": status.quorum.contains(name)});
    json!({
        "epoch": map.epoch,
        "fsid": map.fsid,
        "leader": status.leader,
        "quorum": status.quorum,
        "mons": map.mons.iter().map(mon).collect::<Vec<_>>(),
        "change": map.change.as_ref().map(|change| {
            json!({"name": change.name, "id": change.mon.id, "addrs": addrs(&change.mon), "step": step(map)})
        }),
    })
}
