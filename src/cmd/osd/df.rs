//! `cairn osd df`.

use super::ls::state;
use crate::cmd::output::columns;
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, Format, print, print_json};
use anyhow::Context as _;
use cairn_mon::service::render::bytes;
use cairn_types::{Digest, OsdId, OsdInfo, OsdMap, OsdStat};
use serde_json::{Value, json};

pub fn run(context: &Context) -> anyhow::Result<()> {
    let (map, digest) = block_on(async {
        let session = Session::open(context).await?;
        anyhow::Ok((session.osd_map().await?, session.digest().await?))
    })?;
    let digest =
        digest.context("there are no statistics: no mgr is active; start one, `cairn health` tells more")?;
    match context.format {
        Format::Json => print_json(&document(&map, &digest)),
        Format::Text => print(&text(&map, &digest)),
    }
}

fn share(stat: &OsdStat) -> f64 {
    stat.used_bytes as f64 / stat.total_bytes.max(1) as f64
}

/// All OSDs that have reported, as one.
fn total(map: &OsdMap, digest: &Digest) -> OsdStat {
    let known = digest.osds.iter().filter(|(osd, _)| map.osds.contains_key(osd));
    known.fold(OsdStat::default(), |sum, (_, stat)| OsdStat {
        total_bytes: sum.total_bytes + stat.total_bytes,
        used_bytes: sum.used_bytes + stat.used_bytes,
        pgs: sum.pgs + stat.pgs,
        slow_ops: sum.slow_ops + stat.slow_ops,
    })
}

fn text(map: &OsdMap, digest: &Digest) -> String {
    let all = total(map, digest);
    let row = |name: String, reweight: String, stat: Option<&OsdStat>, state: &str| {
        let figure = |figure: fn(&OsdStat) -> String| stat.map_or_else(|| "-".to_owned(), figure);
        [
            name,
            reweight,
            figure(|stat| bytes(stat.total_bytes)),
            figure(|stat| bytes(stat.used_bytes)),
            figure(|stat| bytes(stat.total_bytes.saturating_sub(stat.used_bytes))),
            figure(|stat| format!("{:.2}", 100.0 * share(stat))),
            // How full beside the average: 1.00 is as full as all together.
            stat.map_or_else(
                || "-".to_owned(),
                |stat| format!("{:.2}", share(stat) / share(&all).max(f64::EPSILON)),
            ),
            figure(|stat| stat.pgs.to_string()),
            state.to_owned(),
        ]
    };
    let osds = map
        .osds
        .iter()
        .map(|(osd, info)| row(osd.to_string(), info.weight.to_string(), digest.osds.get(osd), state(info)));
    let sum = row("TOTAL".to_owned(), String::new(), Some(&all), "");
    columns(
        ["OSD", ">REWEIGHT", ">SIZE", ">USED", ">AVAIL", ">%USE", ">VAR", ">PGS", "STATE"],
        osds.chain([sum]),
    )
}

fn document(map: &OsdMap, digest: &Digest) -> Value {
    let figures = |stat: &OsdStat| {
        json!({
            "total_bytes": stat.total_bytes,
            "used_bytes": stat.used_bytes,
            "avail_bytes": stat.total_bytes.saturating_sub(stat.used_bytes),
            "pgs": stat.pgs,
            "slow_ops": stat.slow_ops,
        })
    };
    let osd = |(osd, info): (&OsdId, &OsdInfo)| {
        let mut document = digest.osds.get(osd).map_or_else(|| json!({}), figures);
        document["id"] = osd.0.into();
        document["state"] = state(info).into();
        document["reweight"] = info.weight.as_f64().into();
        document
    };
    json!({"osds": map.osds.iter().map(osd).collect::<Vec<_>>(), "total": figures(&total(map, digest))})
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_types::{CrushBlob, Fsid, OsdUuid, Timestamp};

    #[test]
    fn one_that_has_not_reported_is_shown_without_figures() {
        let mut map = OsdMap::new(Fsid([1; 16]), Timestamp(0), CrushBlob::new(1, Vec::new()));
        map.osds.insert(OsdId(0), OsdInfo::new(OsdUuid([0; 16])));
        map.osds.insert(OsdId(1), OsdInfo::new(OsdUuid([1; 16])));
        let stat = OsdStat { total_bytes: 8 << 30, used_bytes: 2 << 30, pgs: 32, slow_ops: 0 };
        let mut digest = Digest::default();
        digest.osds.insert(OsdId(0), stat);
        let text = text(&map, &digest);
        let fields: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            fields[1],
            ["osd.0", "1.00000", "8", "GiB", "2", "GiB", "6", "GiB", "25.00", "1.00", "32", "down"]
        );
        assert_eq!(fields[2], ["osd.1", "1.00000", "-", "-", "-", "-", "-", "-", "down"]);
        assert_eq!(fields[3], ["TOTAL", "8", "GiB", "2", "GiB", "6", "GiB", "25.00", "1.00", "32"]);
        let document = document(&map, &digest);
        assert_eq!(document["osds"][0]["avail_bytes"], 6_u64 << 30);
        assert_eq!(document["osds"][1].get("total_bytes"), None);
    }
}
