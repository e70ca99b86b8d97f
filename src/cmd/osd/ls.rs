//! `cairn osd ls`.

use crate::cmd::output::columns;
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, Format, print, print_json};
use cairn_types::{EntityAddr, OsdId, OsdInfo, OsdMap};
use serde_json::{Value, json};

pub fn run(context: &Context) -> anyhow::Result<()> {
    let map = block_on(async { Session::open(context).await?.osd_map().await })?;
    match context.format {
        Format::Json => {
            let osds: Vec<_> = map.osds.iter().map(|(osd, info)| document(*osd, info)).collect();
            print_json(&json!({"epoch": map.epoch, "osds": osds}))
        }
        Format::Text => print(&text(&map)),
    }
}

fn text(map: &OsdMap) -> String {
    let rows = map.osds.iter().map(|(osd, info)| {
        [
            osd.to_string(),
            state(info).to_owned(),
            if info.is_in() { "in" } else { "out" }.to_owned(),
            info.weight.to_string(),
            info.up_from.to_string(),
            addr(info.public),
            addr(info.cluster),
        ]
    });
    columns(["OSD", "STATE", "", ">REWEIGHT", "UP SINCE", "CLIENTS", "OSDS"], rows)
}

/// `up`, `down` or `destroyed`.
pub fn state(info: &OsdInfo) -> &'static str {
    match (info.is_destroyed(), info.up) {
        (true, _) => "destroyed",
        (false, true) => "up",
        (false, false) => "down",
    }
}

fn addr(addr: Option<EntityAddr>) -> String {
    addr.map_or_else(|| "-".to_owned(), |addr| addr.socket.to_string())
}

fn document(osd: OsdId, info: &OsdInfo) -> Value {
    json!({
        "id": osd,
        "uuid": info.uuid,
        "state": state(info),
        "up": info.up,
        "in": info.is_in(),
        "reweight": info.weight.as_f64(),
        "primary_affinity": info.primary_affinity.as_f64(),
        "up_from": info.up_from,
        "up_thru": info.up_thru,
        "down_at": info.down_at,
        "public_addr": info.public,
        "cluster_addr": info.cluster,
    })
}
