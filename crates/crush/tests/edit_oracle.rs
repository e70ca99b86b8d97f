//! Changes to maps against `crushtool`'s own, byte for byte.

#[path = "support/crushtool.rs"]
mod crushtool;

use cairn_crush::build::{ReplicaMode, SimpleRule};
use cairn_crush::{Algorithm, ChooseArg, CrushMap, Tunables, binary};
use cairn_types::Weight;
use crushtool::CrushTool;

/// Three racks of two hosts of three devices; two classes.
fn cluster(algorithm: Algorithm) -> CrushMap {
    let mut map = CrushMap::new(Tunables::default());
    let root = map.add_bucket("default", "root", algorithm).unwrap();
    let mut device = 0;
    for rack in 0..3 {
        let rack_id = map.add_bucket(&format!("rack{rack}"), "rack", algorithm).unwrap();
        map.link(rack_id, root).unwrap();
        for host in 0..2 {
            let host_id = map.add_bucket(&format!("host{rack}{host}"), "host", algorithm).unwrap();
            map.link(host_id, rack_id).unwrap();
            for _ in 0..3 {
                let class = ["hdd", "ssd"][device as usize % 2];
                let weight = Weight(0x8000 + 0x3000 * (device as u32 % 4));
                map.add_device(device, &format!("osd.{device}"), weight, Some(class), host_id).unwrap();
                device += 1;
            }
        }
    }
    for (name, class, mode) in [
        ("all", None, ReplicaMode::Firstn),
        ("fast", Some("ssd"), ReplicaMode::Firstn),
        ("ec", None, ReplicaMode::Indep),
    ] {
        map.add_simple_rule(&SimpleRule {
            name,
            root: "default",
            failure_domain: "host",
            class,
            mode,
            is_erasure: false,
        })
        .unwrap();
    }
    map
}

const ALGORITHMS: [Algorithm; 3] = [Algorithm::List, Algorithm::Straw, Algorithm::Straw2];

/// Both change the same map; the results must be the same file.
#[track_caller]
fn compare(tool: &CrushTool, before: &CrushMap, arguments: &[&str], change: impl FnOnce(&mut CrushMap)) {
    tool.write("before.bin", &binary::encode(before).unwrap());
    let mut command = vec!["-i", "before.bin", "-o", "after.bin"];
    command.extend(arguments);
    let output = tool.run(&command);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let theirs = tool.read("after.bin").unwrap();
    let mut ours = before.clone();
    change(&mut ours);
    let theirs_map = binary::decode(&theirs).unwrap();
    assert_eq!(ours, theirs_map, "{arguments:?}");
    assert!(binary::encode(&ours).unwrap() == theirs, "{arguments:?}");
}

#[test]
fn devices_are_added_as_by_crushtool() {
    let Some(tool) = CrushTool::find() else { return };
    for algorithm in ALGORITHMS {
        let map = cluster(algorithm);
        let host = map.item_by_name("host10").unwrap();
        compare(&tool, &map, &["--add-item", "18", "1.5", "osd.18", "--loc", "host", "host10"], |map| {
            map.add_device(18, "osd.18", Weight(0x1_8000), None, host).unwrap();
        });
    }
}

#[test]
fn items_are_weighed_as_by_crushtool() {
    let Some(tool) = CrushTool::find() else { return };
    for algorithm in ALGORITHMS {
        let map = cluster(algorithm);
        compare(&tool, &map, &["--reweight-item", "osd.7", "3.25"], |map| {
            map.reweight_item(7, Weight(0x3_4000)).unwrap();
        });
    }
}

#[test]
fn devices_are_removed_as_by_crushtool() {
    let Some(tool) = CrushTool::find() else { return };
    // crushtool 16.2 frees twice, and aborts, when it removes from a list.
    for algorithm in [Algorithm::Straw, Algorithm::Straw2] {
        let map = cluster(algorithm);
        compare(&tool, &map, &["--remove-item", "osd.7"], |map| map.remove_item(7).unwrap());
    }
}

#[test]
fn simple_rules_are_crushtools() {
    let Some(tool) = CrushTool::find() else { return };
    let map = cluster(Algorithm::Straw2);
    for (mode_name, mode) in [("firstn", ReplicaMode::Firstn), ("indep", ReplicaMode::Indep)] {
        for failure_domain in ["rack", "host", "osd"] {
            let arguments = ["--create-simple-rule", "new", "default", failure_domain, mode_name];
            compare(&tool, &map, &arguments, |map| {
                let rule = SimpleRule {
                    name: "new",
                    root: "default",
                    failure_domain,
                    class: None,
                    mode,
                    is_erasure: false,
                };
                map.add_simple_rule(&rule).unwrap();
            });
        }
    }
}

/// A weight set for every bucket, as the balancer of Ceph keeps one in the default choose-args.
fn with_weight_set(mut map: CrushMap) -> CrushMap {
    let mut args = std::collections::BTreeMap::new();
    for bucket in map.buckets.iter().flatten().filter(|bucket| !map.is_shadow(bucket.id)) {
        let weights = bucket.item_weights().into_iter().map(Weight).collect();
        args.insert(bucket.id, ChooseArg { weight_sets: vec![weights], ids: Vec::new() });
    }
    map.choose_args.insert(-1, args);
    map.rebuild_shadows().unwrap();
    map
}

#[test]
fn weight_sets_follow_as_by_crushtool() {
    let Some(tool) = CrushTool::find() else { return };
    let map = with_weight_set(cluster(Algorithm::Straw2));
    let host = map.item_by_name("host10").unwrap();
    compare(&tool, &map, &["--reweight-item", "osd.7", "3.25"], |map| {
        map.reweight_item(7, Weight(0x3_4000)).unwrap();
    });
    compare(&tool, &map, &["--add-item", "18", "1.5", "osd.18", "--loc", "host", "host10"], |map| {
        map.add_device(18, "osd.18", Weight(0x1_8000), None, host).unwrap();
    });
    compare(&tool, &map, &["--remove-item", "osd.7"], |map| map.remove_item(7).unwrap());
}

#[test]
fn items_are_moved_as_by_crushtool() {
    let Some(tool) = CrushTool::find() else { return };
    let map = cluster(Algorithm::Straw2);
    let rack = map.item_by_name("rack2").unwrap();
    let bucket = map.item_by_name("host10").unwrap();
    compare(
        &tool,
        &map,
        &["--move", "host10", "--loc", "rack", "rack2", "--loc", "root", "default"],
        |map| {
            map.move_item(bucket, rack).unwrap();
        },
    );
}
