//! `cairn osd`: the OSDs.

mod change;
mod create;
mod df;
mod ls;
mod tree;

use super::Context;
use cairn_types::{EntityKind, EntityName, OsdId, Weight};
use std::process::ExitCode;

/// Subcommands of `cairn osd`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// List the OSDs with their state and addresses
    Ls,
    /// Show where the OSDs stand and what they weigh
    Tree,
    /// Show how full each OSD is
    Df,
    /// Make an OSD of a cluster on this machine, and start it
    Create(create::Args),
    /// Take OSDs out: their data is copied to others, then they can go
    Out(change::Several),
    /// Take OSDs in again: they are given data
    In(change::Several),
    /// Mark OSDs down; one that runs says so and is up again
    Down(change::Several),
    /// Give up an OSD's store for good, and keep its number and place for a new one
    Destroy(change::Destroy),
    /// Give an OSD a share of the data that its CRUSH weight stands for
    Reweight(change::Reweight),
}

/// Runs one.
pub fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Ls => ls::run(context)?,
        Command::Tree => tree::run(context)?,
        Command::Df => df::run(context)?,
        Command::Create(args) => create::run(context, &args)?,
        Command::Out(args) => change::out(context, &args)?,
        Command::In(args) => change::take_in(context, &args)?,
        Command::Down(args) => change::down(context, &args)?,
        Command::Destroy(args) => change::destroy(context, &args)?,
        Command::Reweight(args) => change::reweight(context, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `3` or `osd.3`.
pub fn parse_osd(text: &str) -> Result<OsdId, String> {
    let id = text.strip_prefix("osd.").unwrap_or(text);
    let name = EntityName::new(EntityKind::Osd, id).ok();
    name.and_then(|name| name.osd_id())
        .ok_or_else(|| format!("'{text}' is no OSD: write its number, as 3 or osd.3"))
}

/// A share from 0 to 1.
fn parse_share(text: &str) -> Result<Weight, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    let share =
        share.ok_or_else(|| format!("'{text}' is no share: write a number from 0 to 1, such as 0.8"))?;
    Ok(Weight((share * f64::from(Weight::ONE.0)).round() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_osd_is_named_by_its_number() {
        assert_eq!(parse_osd("3"), Ok(OsdId(3)));
        assert_eq!(parse_osd("osd.0"), Ok(OsdId(0)));
        for bad in ["", "osd.", "-1", "03", "mon.a", "2147483648", "osd.osd.1"] {
            assert!(parse_osd(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_share_is_from_zero_to_one() {
        assert_eq!(parse_share("0"), Ok(Weight::ZERO));
        assert_eq!(parse_share("0.5"), Ok(Weight(0x8000)));
        assert_eq!(parse_share("1"), Ok(Weight::ONE));
        for bad in ["", "-0.1", "1.1", "NaN", "inf", "half"] {
            assert!(parse_share(bad).is_err(), "{bad:?}");
        }
    }
}
