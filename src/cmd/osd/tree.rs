//! `cairn osd tree`.

use super::ls::state;
use crate::cmd::session::{Session, block_on, unexpected};
use crate::cmd::{Context, Format, print, print_json};
use cairn_mon::monitor::{Query, Reading};
use cairn_mon::service::crush::TreeNode;
use cairn_mon::service::render;
use cairn_types::{OsdId, OsdMap};
use serde_json::{Value, json};

pub fn run(context: &Context) -> anyhow::Result<()> {
    let (nodes, map) = block_on(async {
        let session = Session::open(context).await?;
        match session.mon.read(Query::OsdTree).await? {
            Reading::OsdTree(nodes) => Ok((nodes, session.osd_map().await?)),
            other => Err(unexpected(&other)),
        }
    })?;
    match context.format {
        Format::Json => print_json(&nodes.iter().map(|node| document(node, &map)).collect::<Vec<_>>()),
        Format::Text => print(&render::osd_tree(&nodes, &map)),
    }
}

fn document(node: &TreeNode, map: &OsdMap) -> Value {
    let mut document = json!({
        "id": node.id,
        "depth": node.depth,
        "type": node.kind,
        "name": node.name,
        "class": node.class,
        "crush_weight": node.weight.as_f64(),
    });
    if let Some(info) = map.osds.get(&OsdId(node.id)) {
        document["state"] = state(info).into();
        document["in"] = info.is_in().into();
        document["reweight"] = info.weight.as_f64().into();
        document["primary_affinity"] = info.primary_affinity.as_f64().into();
    }
    document
}
