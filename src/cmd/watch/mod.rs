//! `cairn watch`: a live stream of events.

mod event;

use super::session::{Session, block_on, conf};
use super::{Context, Format, print};
use anyhow::bail;
use cairn_mon::service::subscription::{MapBatch, Need};
use cairn_mon::session::{Update, Wants};
use cairn_types::{Health, MgrMap, MonMap, OsdMap, Timestamp};
use event::Event;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How often health is asked for: it is worked out when somebody asks, so nobody can be told of a change.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Tells what changes in the cluster, as it changes, until it is stopped
pub fn run(context: &Context) -> anyhow::Result<()> {
    block_on(watch(context))
}

async fn watch(context: &Context) -> anyhow::Result<()> {
    let mut session = Session::start(&conf(context)?).await?;
    let osd_map = session.osd_map().await?;
    let from = osd_map.epoch;
    let health = Some(session.health().await?);
    let mut known = Known { osd_map: Some(osd_map), health, ..Known::default() };
    let now = Timestamp(super::session::now_ms());
    show(
        context.format,
        &event::of_health(now, &Health::default(), known.health.as_ref().unwrap_or(&Health::default())),
    )?;
    let osd_map = Some((from, Need::EveryEpoch));
    session.mon.subscribe(Wants { osd_map, mon_map: true, mgr_map: true, config: false });
    let mut health = tokio::time::interval(HEALTH_INTERVAL);
    health.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let events = tokio::select! {
            update = session.updates.recv() => match update {
                Some(update) => known.update(update)?,
                None => bail!("the session with the monitors has ended"),
            },
            _ = health.tick() => match session.health().await {
                Ok(next) => known.health(next),
                Err(error) => vec![Event::unreachable(Timestamp(super::session::now_ms()), &error.to_string())],
            },
        };
        show(context.format, &events)?;
    }
}

/// What was shown so far.
#[derive(Default)]
struct Known {
    osd_map: Option<OsdMap>,
    mon_map: Option<MonMap>,
    mgr_map: Option<MgrMap>,
    health: Option<Health>,
}

impl Known {
    fn update(&mut self, update: Update) -> anyhow::Result<Vec<Event>> {
        let now = Timestamp(super::session::now_ms());
        Ok(match update {
            Update::OsdMaps(batch) => self.osd_maps(batch)?,
            Update::MonMap(next) => {
                let last = self.mon_map.replace(next.clone());
                last.map_or_else(Vec::new, |last| event::of_mon_map(&last, &next))
            }
            Update::MgrMap(next) => {
                let last = self.mgr_map.replace(next.clone());
                last.map_or_else(Vec::new, |last| event::of_mgr_map(now, &last, &next))
            }
            Update::Config { .. } => Vec::new(),
        })
    }

    /// A full map comes where the increments to the last one are not kept any more.
    fn osd_maps(&mut self, batch: MapBatch) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        if let Some(next) = batch.full {
            if let Some(last) = &self.osd_map {
                events.extend(event::of_osd_map(last, &next));
            }
            self.osd_map = Some(next);
        }
        for change in &batch.increments {
            let Some(last) = &self.osd_map else { break };
            let next = last.apply(change)?;
            events.extend(event::of_osd_map(last, &next));
            self.osd_map = Some(next);
        }
        Ok(events)
    }

    fn health(&mut self, next: Health) -> Vec<Event> {
        let last = self.health.replace(next.clone()).unwrap_or_default();
        event::of_health(Timestamp(super::session::now_ms()), &last, &next)
    }
}

/// One line for each event: text, or a JSON document.
fn show(format: Format, events: &[Event]) -> anyhow::Result<()> {
    for event in events {
        match format {
            Format::Text => print(&format!("{event}\n"))?,
            Format::Json => print(&format!("{}\n", serde_json::to_string(event)?))?,
        }
    }
    Ok(())
}
