use crate::support::{Cluster, set};
use cairn_mon::service::{ConfigCommand, ConfigSection, Refusal, Request};
use cairn_types::{EntityKind, EntityName};

#[test]
fn the_narrowest_setting_wins() {
    let mut cluster = Cluster::new();
    let who: EntityName = "osd.3".parse().expect("a name");
    let option = "osd_heartbeat_grace_ms";
    let get = |cluster: &Cluster| cluster.state.config().get(&who, option);
    assert_eq!(get(&cluster), Some(2_500), "the default");
    let sections = [
        (ConfigSection::Global, "3000", 3_000),
        (ConfigSection::Kind(EntityKind::Osd), "4000", 4_000),
        (ConfigSection::Entity(who.clone()), "5000", 5_000),
    ];
    for (section, value, wanted) in sections.clone() {
        let set = ConfigCommand::Set { section, option: option.to_owned(), value: value.to_owned() };
        cluster.ok(Request::Config(set));
        assert_eq!(get(&cluster), Some(wanted));
        assert_eq!(cluster.state.config().effective(&who).get(option), Some(&wanted.to_string()));
    }
    for (n, (section, ..)) in sections.into_iter().enumerate().rev() {
        let remove = || ConfigCommand::Remove { section: section.clone(), option: option.to_owned() };
        cluster.ok(Request::Config(remove()));
        assert!(matches!(cluster.refused(Request::Config(remove())), Refusal::NotSet { .. }));
        assert_eq!(get(&cluster), Some([2_500, 3_000, 4_000][n]));
    }
    assert_eq!(cluster.state.config().version, 6);
    assert!(cluster.state.config().effective(&who).is_empty());
}

#[test]
fn what_is_no_option_or_no_value_is_refused_with_what_would_be() {
    let mut cluster = Cluster::new();
    let refusal = cluster.refused(set("osd_hartbeat", "1"));
    assert!(refusal.to_string().contains("osd_heartbeat_grace_ms"), "{refusal}");
    for (option, value, wanted) in [
        ("osd_heartbeat_grace_ms", "100", "from 500 to 600000"),
        ("osd_heartbeat_grace_ms", "x", "whole number"),
        ("mon_osd_min_in_ratio", "1.5", "from 0 to 1"),
    ] {
        let refusal = cluster.refused(set(option, value));
        assert!(refusal.to_string().contains(wanted), "{refusal}");
    }
    cluster.refused(set("mon_osd_min_in_ratio", &"1".repeat(5_000)));
}
