//! `cairn pg ls`.

use super::placed::{Places, set, state};
use crate::cmd::output::columns;
use crate::cmd::session::{Session, block_on};
use crate::cmd::{Context, Format, pool, print, print_json};
use cairn_types::{OsdId, PgState};

/// List placement groups with their OSDs
#[derive(clap::Args)]
pub struct Args {
    /// Those of this pool alone
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Those that have a copy on this OSD alone
    #[arg(long, value_name = "OSD", value_parser = crate::cmd::osd::parse_osd)]
    osd: Option<OsdId>,
    /// Those in a state with all these words alone, such as active+clean
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    state: Option<PgState>,
}

fn parse_state(text: &str) -> Result<PgState, String> {
    text.parse::<PgState>().map_err(|error| format!("'{text}': {error}"))
}

pub fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (map, digest) = block_on(async {
        let session = Session::open(context).await?;
        anyhow::Ok((session.osd_map().await?, session.digest().await?))
    })?;
    let places = Places::new(&map, digest.as_ref())?;
    let mut groups = Vec::new();
    match &args.pool {
        Some(name) => {
            let (id, pool) = pool::find(&map, name)?;
            groups.extend(places.of_pool(id, pool));
        }
        None => map.pools.iter().for_each(|(id, pool)| groups.extend(places.of_pool(*id, pool))),
    }
    groups.retain(|group| {
        args.osd.is_none_or(|osd| group.acting.contains(&osd) || group.up.contains(&osd))
            && args.state.is_none_or(|wanted| match wanted {
                PgState::UNKNOWN => group.state.is_none_or(|state| state == PgState::UNKNOWN),
                wanted => group.state.is_some_and(|state| state.has(wanted)),
            })
    });
    match context.format {
        Format::Json => print_json(&groups),
        Format::Text => print(&columns(
            ["PG", "STATE", "UP", "ACTING"],
            groups.iter().map(|group| {
                let (up, acting) =
                    (set(&group.up, group.up_primary), set(&group.acting, group.acting_primary));
                [group.pg.to_string(), state(group), up, acting]
            }),
        )),
    }
}
