//! Settings of the cluster: known options with bounds, for all, a kind, or one daemon.

use super::draft::clip;
use super::limits::{CONFIG_VALUE_LEN_MAX, MAX_SETTINGS};
use super::{Draft, Refusal, Reply, timing};
use cairn_types::{EntityKind, EntityName, Ratio};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// For whom a setting holds. A narrower one wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum ConfigSection {
    /// All.
    Global,
    /// All of a kind.
    Kind(EntityKind),
    /// One.
    Entity(EntityName),
}

impl fmt::Display for ConfigSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigSection::Global => f.write_str("global"),
            ConfigSection::Kind(kind) => kind.fmt(f),
            ConfigSection::Entity(name) => name.fmt(f),
        }
    }
}

/// What the values of an option are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OptionKind {
    /// A whole number within bounds.
    Integer {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A share from 0 to 1, kept in millionths.
    Share,
}

/// One option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionSpec {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub kind: OptionKind,
    /// Its value where none is set.
    pub default: u64,
    /// What it does.
    pub about: &'static str,
}

const DAY_MS: u64 = 86_400_000;

/// Every option of the monitors. Shares are in millionths.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "mon_mgr_beacon_grace_ms",
        kind: OptionKind::Integer { min: 1_000, max: DAY_MS },
        default: timing::MGR_BEACON_GRACE_MS,
        about: "a mgr that is silent for this long is replaced by a standby",
    },
    OptionSpec {
        name: "mon_osd_down_out_interval_ms",
        kind: OptionKind::Integer { min: 0, max: 365 * DAY_MS },
        default: timing::DOWN_OUT_INTERVAL_MS,
        about: "an OSD that is down for this long is marked out; 0 for never",
    },
    OptionSpec {
        name: "mon_osd_min_in_ratio",
        kind: OptionKind::Share,
        default: timing::MIN_IN_SHARE.0 as u64,
        about: "no OSD is marked out automatically while fewer than this share are in",
    },
    OptionSpec {
        name: "mon_osd_min_up_ratio",
        kind: OptionKind::Share,
        default: timing::MIN_UP_SHARE.0 as u64,
        about: "no OSD is marked down by reports while fewer than this share are up",
    },
    OptionSpec {
        name: "osd_heartbeat_grace_ms",
        kind: OptionKind::Integer { min: 500, max: 600_000 },
        default: timing::HEARTBEAT_GRACE_MS,
        about: "a peer that is silent for this long is reported as failed",
    },
];

/// All settings.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// Grows with every change.
    pub version: u64,
    /// The settings, by whom they are for and the option's name.
    pub values: BTreeMap<(ConfigSection, String), String>,
}

impl Config {
    /// The value of an option for a daemon, or the default; a share in millionths. `None` for an option
    /// that does not exist.
    pub fn get(&self, who: &EntityName, option: &str) -> Option<u64> {
        let spec = spec(option)?;
        let sections =
            [ConfigSection::Entity(who.clone()), ConfigSection::Kind(who.kind()), ConfigSection::Global];
        let set = sections.into_iter().find_map(|section| self.values.get(&(section, option.to_owned())));
        Some(set.and_then(|value| parse(spec, value)).unwrap_or(spec.default))
    }

    /// What is set for a daemon, by option; what is not set has its default.
    pub fn effective(&self, who: &EntityName) -> BTreeMap<String, String> {
        let sections =
            [ConfigSection::Global, ConfigSection::Kind(who.kind()), ConfigSection::Entity(who.clone())];
        let mut values = BTreeMap::new();
        for section in sections {
            let of = self.values.iter().filter(|((known, _), _)| *known == section);
            values.extend(of.map(|((_, option), value)| (option.clone(), value.clone())));
        }
        values
    }

    /// An option of the monitors that is a share.
    pub(super) fn share(&self, option: &'static str) -> Ratio {
        // Bounded by the option's own limits.
        Ratio(u32::try_from(self.of_monitors(option)).unwrap_or(Ratio::ONE.0))
    }

    /// The value of an option of the monitors, whichever of them leads.
    pub(super) fn of_monitors(&self, option: &'static str) -> u64 {
        let set = [ConfigSection::Kind(EntityKind::Mon), ConfigSection::Global]
            .into_iter()
            .find_map(|section| self.values.get(&(section, option.to_owned())));
        spec(option).map_or(0, |spec| set.and_then(|value| parse(spec, value)).unwrap_or(spec.default))
    }
}

fn spec(option: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.name == option)
}

fn parse(spec: &OptionSpec, value: &str) -> Option<u64> {
    match spec.kind {
        OptionKind::Integer { min, max } => value.parse().ok().filter(|value| (min..=max).contains(value)),
        OptionKind::Share => parse_share(value),
    }
}

/// A decimal fraction from 0 to 1 with at most six digits behind the point, in millionths.
fn parse_share(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() != 1 || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let millionths: u64 = format!("{whole}{fraction:0<6}").parse().ok()?;
    (millionths <= 1_000_000).then_some(millionths)
}

/// What can be asked about settings.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ConfigCommand {
    /// Sets an option.
    Set {
        /// For whom.
        section: ConfigSection,
        /// Which.
        option: String,
        /// To what.
        value: String,
    },
    /// Takes a setting back.
    Remove {
        /// For whom.
        section: ConfigSection,
        /// Which.
        option: String,
    },
}

pub(super) fn run(draft: &mut Draft<'_>, command: &ConfigCommand) -> Result<Reply, Refusal> {
    let values = &mut draft.next.config.values;
    match command {
        ConfigCommand::Set { section, option, value } => {
            let Some(spec) = spec(option) else {
                let known = OPTIONS.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
                return Err(Refusal::NoOption { option: clip(option), known });
            };
            if value.len() > CONFIG_VALUE_LEN_MAX || parse(spec, value).is_none() {
                let wanted = match spec.kind {
                    OptionKind::Integer { min, max } => format!("a whole number from {min} to {max}"),
                    OptionKind::Share => "a share from 0 to 1 such as 0.75".to_owned(),
                };
                return Err(Refusal::BadValue { option: spec.name, value: clip(value), wanted });
            }
            let key = (section.clone(), option.clone());
            if values.len() >= MAX_SETTINGS && !values.contains_key(&key) {
                return Err(Refusal::TooMany { what: "settings", limit: MAX_SETTINGS });
            }
            values.insert(key, value.clone());
        }
        ConfigCommand::Remove { section, option } => {
            let removed = values.remove(&(section.clone(), option.clone()));
            removed.ok_or_else(|| Refusal::NotSet { option: clip(option), section: section.clone() })?;
        }
    }
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_option() {
        for spec in OPTIONS {
            match spec.kind {
                OptionKind::Integer { min, max } => {
                    assert!((min..=max).contains(&spec.default), "{}", spec.name)
                }
                OptionKind::Share => assert!(spec.default <= 1_000_000, "{}", spec.name),
            }
        }
        assert!(OPTIONS.is_sorted_by_key(|spec| spec.name));
    }

    #[test]
    fn shares_are_exact() {
        assert_eq!(parse_share("0.75"), Some(750_000));
        assert_eq!(parse_share("1"), Some(1_000_000));
        assert_eq!(parse_share("0.000001"), Some(1));
        for bad in ["", ".5", "1.1", "2", "-0", "0.0000001", "0.5x", "1e0"] {
            assert_eq!(parse_share(bad), None, "{bad:?}");
        }
    }
}
