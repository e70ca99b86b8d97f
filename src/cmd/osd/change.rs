//! `cairn osd out`, `in`, `down`, `destroy` and `reweight`.

use super::{parse_osd, parse_share};
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, print_line};
use cairn_mon::service::{OsdCommand, Request};
use cairn_types::{OsdId, Weight};
use serde_json::json;

/// Some OSDs.
#[derive(clap::Args)]
pub struct Several {
    /// Their numbers, as 3 or osd.3
    #[arg(required = true, value_name = "OSD", value_parser = parse_osd)]
    osds: Vec<OsdId>,
}

/// Give up an OSD's store for good, and keep its number and place for a new one
///
/// The OSD must be stopped. What only it has is lost.
#[derive(clap::Args)]
pub struct Destroy {
    /// Its number, as 3 or osd.3
    #[arg(value_name = "OSD", value_parser = parse_osd)]
    osd: OsdId,
    /// It is understood that the data on it is gone for good
    #[arg(long)]
    yes: bool,
}

/// Give an OSD a share of the data that its CRUSH weight stands for
#[derive(clap::Args)]
pub struct Reweight {
    /// Its number, as 3 or osd.3
    #[arg(value_name = "OSD", value_parser = parse_osd)]
    osd: OsdId,
    /// From 0 (nothing, which is out) to 1 (all)
    #[arg(value_parser = parse_share)]
    share: Weight,
}

pub fn out(context: &Context, args: &Several) -> anyhow::Result<()> {
    several(context, args, "out", |osds| OsdCommand::Out { osds })
}

pub fn take_in(context: &Context, args: &Several) -> anyhow::Result<()> {
    several(context, args, "in", |osds| OsdCommand::In { osds })
}

pub fn down(context: &Context, args: &Several) -> anyhow::Result<()> {
    several(context, args, "marked down", |osds| OsdCommand::Down { osds })
}

pub fn destroy(context: &Context, args: &Destroy) -> anyhow::Result<()> {
    let osd = args.osd;
    if !args.yes {
        anyhow::bail!("destroying {osd} gives up its data for good: say --yes if that is meant");
    }
    change(context, OsdCommand::Destroy { osd, confirmed: true })?;
    let line = format!("{osd} is destroyed; its number waits for a new store.");
    print_line(context.format, &line, &json!({"osds": [osd], "state": "destroyed"}))
}

pub fn reweight(context: &Context, args: &Reweight) -> anyhow::Result<()> {
    let (osd, weight) = (args.osd, args.share);
    change(context, OsdCommand::Reweight { osd, weight })?;
    let line = format!("{osd} has reweight {weight}.");
    print_line(context.format, &line, &json!({"osds": [osd], "reweight": weight.as_f64()}))
}

fn several(
    context: &Context,
    args: &Several,
    state: &str,
    command: impl FnOnce(Vec<OsdId>) -> OsdCommand,
) -> anyhow::Result<()> {
    change(context, command(args.osds.clone()))?;
    let names = args.osds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let verb = if args.osds.len() == 1 { "is" } else { "are" };
    print_line(
        context.format,
        &format!("{names} {verb} {state}."),
        &json!({"osds": args.osds, "state": state}),
    )
}

fn change(context: &Context, command: OsdCommand) -> anyhow::Result<()> {
    block_on(async {
        Session::open(context).await?.mon.change(Request::Osd(command)).await?;
        Ok(())
    })
}
