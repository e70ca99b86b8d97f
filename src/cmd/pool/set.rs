//! `cairn pool set`.

use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, print_line, text};
use anyhow::anyhow;
use cairn_mon::service::{PoolCommand, PoolSetting, Request};
use cairn_types::PoolFlag;
use serde_json::json;

/// Change a setting of a pool
///
/// size and min_size (copies), pg_num, rule, application, quota_bytes and quota_objects (0 for none), autoscale,
/// nodelete, nopgchange and nosizechange (true or false), name.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the pool
    name: String,
    /// Which setting
    key: String,
    /// To what
    value: String,
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let setting = parse(&args.key, &args.value)?;
    block_on(async {
        let command = PoolCommand::Set { name: args.name.clone(), setting };
        anyhow::Ok(Session::open(context).await?.mon.change(Request::Pool(command)).await?)
    })?;
    let line = format!("Pool '{}' has {} {}.", args.name, args.key, args.value);
    print_line(context.format, &line, &json!({"name": args.name, "key": args.key, "value": args.value}))
}

fn parse(key: &str, value: &str) -> anyhow::Result<PoolSetting> {
    let wanted = |what: &str| anyhow!("{key} cannot be '{value}': give {what}");
    let copies = || value.parse::<u8>().map_err(|_| wanted("a number of copies, such as 3"));
    let switch = || value.parse::<bool>().map_err(|_| wanted("true or false"));
    Ok(match key {
        "size" => PoolSetting::Size(copies()?),
        "min_size" => PoolSetting::MinSize(copies()?),
        "pg_num" => PoolSetting::PgNum(value.parse().map_err(|_| wanted("a number, such as 32"))?),
        "rule" | "crush_rule" => PoolSetting::Rule(value.to_owned()),
        "application" => PoolSetting::Application(value.to_owned()),
        "quota_bytes" => PoolSetting::QuotaBytes(
            text::parse_size(value).map_err(|_| wanted("a size, such as 10GiB, or 0"))?,
        ),
        "quota_objects" => PoolSetting::QuotaObjects(value.parse().map_err(|_| wanted("a number, or 0"))?),
        "autoscale" => PoolSetting::Autoscale(switch()?),
        "name" => PoolSetting::Name(value.to_owned()),
        flag => match flag.parse::<PoolFlag>() {
            Ok(flag) => PoolSetting::Flag(flag, switch()?),
            Err(_) => anyhow::bail!("a pool has no setting '{key}': `cairn pool set --help` lists them"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_in_its_own_form() {
        for (key, value, setting) in [
            ("size", "3", PoolSetting::Size(3)),
            ("min_size", "2", PoolSetting::MinSize(2)),
            ("pg_num", "64", PoolSetting::PgNum(64)),
            ("quota_bytes", "1GiB", PoolSetting::QuotaBytes(1 << 30)),
            ("autoscale", "false", PoolSetting::Autoscale(false)),
            ("nodelete", "true", PoolSetting::Flag(PoolFlag::NoDelete, true)),
        ] {
            assert_eq!(parse(key, value).unwrap(), setting);
        }
        for (key, value, says) in [
            ("size", "-1", "size cannot be '-1': give a number of copies, such as 3"),
            ("quota_bytes", "much", "give a size, such as 10GiB, or 0"),
            ("nodelete", "yes", "give true or false"),
            ("colour", "red", "no setting 'colour'"),
        ] {
            let error = parse(key, value).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
