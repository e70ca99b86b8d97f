use crate::support::{Cluster, create, host};
use cairn_mon::service::crush::{Topology, tree};
use cairn_mon::service::{OsdCommand, Refusal, Request};
use cairn_types::{OsdId, Weight};

fn place(n: i32, weight: Option<Weight>, class: Option<&str>, at: &str) -> Request {
    let (osd, class, location) = (OsdId(n), class.map(str::to_owned), host(at));
    Request::Osd(OsdCommand::CrushPlace { osd, weight, class, location })
}

#[test]
fn an_osd_is_put_elsewhere_with_another_weight_and_class() {
    let mut cluster = Cluster::with_osds(&["n1", "n2"]);
    let version = cluster.state.osd_map().crush.version;
    cluster.ok(place(0, Some(Weight(0x2_0000)), Some("ssd"), "n2"));
    let map = cluster.state.osd_map();
    assert_eq!(map.crush.version, version + 1);
    assert_eq!(Topology::of(&map.crush).host(OsdId(0)), "n2");
    let nodes = tree(map).expect("a tree");
    let node = nodes.iter().find(|node| node.id == 0).expect("the OSD");
    assert_eq!((node.weight, node.class.as_deref()), (Weight(0x2_0000), Some("ssd")));
    let root = nodes.iter().find(|node| node.name == "default").expect("the root");
    assert_eq!(root.weight, Weight(0x3_0000), "weights add up");
    let epoch = cluster.epoch();
    cluster.ok(place(0, Some(Weight(0x2_0000)), Some("ssd"), "n2"));
    assert_eq!(cluster.epoch(), epoch, "no change, no epoch");
}

#[test]
fn what_has_no_place_is_refused() {
    let mut cluster = Cluster::with_osds(&["n1"]);
    assert_eq!(cluster.refused(place(5, None, None, "n1")), Refusal::NoOsd { osd: OsdId(5) });
    let nowhere = OsdCommand::CrushPlace { osd: OsdId(0), weight: None, class: None, location: vec![] };
    assert_eq!(cluster.refused(Request::Osd(nowhere)), Refusal::BadLocation);
    assert!(matches!(cluster.refused(place(0, None, None, "default")), Refusal::NotThatType { .. }));
    assert!(matches!(cluster.refused(place(0, None, None, "a b")), Refusal::Crush(_)));
    assert!(matches!(cluster.refused(create(1, "osd.0")), Refusal::NotThatType { .. }));
}

#[test]
fn a_whole_map_is_taken_if_it_can_be_used() {
    let mut cluster = Cluster::usual();
    let bytes = cluster.state.osd_map().crush.bytes().to_vec();
    let epoch = cluster.epoch();
    let give = |bytes: Vec<u8>| Request::Osd(OsdCommand::CrushSet { bytes });
    cluster.ok(give(bytes.clone()));
    assert_eq!(cluster.epoch(), epoch, "it is the same");
    assert!(matches!(cluster.refused(give(bytes[..40].to_vec())), Refusal::BadCrush { .. }));
    let mut map = cairn_crush::binary::decode(&bytes).expect("a map");
    map.rules.clear();
    map.rule_names.clear();
    let no_rule = cairn_crush::binary::encode(&map).expect("bytes");
    let refusal = cluster.refused(give(no_rule));
    assert!(refusal.to_string().contains("pool 'vms' uses"), "{refusal}");
    let mut map = cairn_crush::binary::decode(&bytes).expect("a map");
    map.rule_names.insert(0, "other".to_owned());
    cluster.ok(give(cairn_crush::binary::encode(&map).expect("bytes")));
    assert_eq!(cluster.epoch(), epoch.next());
}
