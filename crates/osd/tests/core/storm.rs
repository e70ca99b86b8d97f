//! Faults at random while clients append; every append that was acknowledged is there, once.

use crate::world::{MS, SECOND, World};
use bytes::Bytes;
use cairn_types::OsdId;
use cairn_wire::op::OpKind;
use cairn_wire::{ErrorCode, Payload};
use std::collections::BTreeMap;

const OBJECTS: u64 = 6;

/// Appends under faults, then the judgement.
pub fn run(world: &mut World, appends: u32) {
    let osds: Vec<OsdId> = world.nodes.keys().copied().collect();
    let mut appended: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
    for n in 0..appends {
        let object = world.rng.below(OBJECTS);
        let data = Payload::of(0, Bytes::copy_from_slice(&n.to_be_bytes()));
        let client = world.rng.range(1, 3);
        let op = if world.rng.one_in(4) {
            vec![OpKind::Create { exclusive: false }, OpKind::Append { len: 4 }, OpKind::Stat]
        } else {
            vec![OpKind::Append { len: 4 }]
        };
        let tid = world.call(client, &format!("s{object}"), op, data);
        appended.insert(tid, (object, n));
        let pause = world.rng.range(1, 60) * MS;
        world.run(pause);
        match world.rng.below(24) {
            0 | 1 => {
                let down = world.nodes.values().filter(|node| node.osd.is_none()).count();
                let osd = world.rng.pick(&osds).expect("an OSD");
                let survive = world.rng.below(5) as usize;
                if down == 0 {
                    world.kill(osd, survive);
                }
            }
            2..=5 => {
                let down = world.nodes.iter().find(|(_, node)| node.osd.is_none()).map(|(osd, _)| *osd);
                if let Some(osd) = down {
                    world.start(osd);
                }
            }
            6..=8 => world.break_some_conn(),
            9 => {
                let osd = world.rng.pick(&osds).expect("an OSD");
                let node = world.nodes.get_mut(&osd).expect("a node");
                node.isolated = !node.isolated;
                heal_others(world, osd);
            }
            10 => {
                let osd = world.rng.pick(&osds).expect("an OSD");
                world.mark_down(osd);
            }
            11 => {
                for osd in &osds {
                    let survive = world.rng.below(5) as usize;
                    world.kill(*osd, survive);
                }
                for osd in &osds {
                    world.start(*osd);
                }
            }
            _ => {}
        }
    }
    for osd in osds {
        world.nodes.get_mut(&osd).expect("a node").isolated = false;
        if world.nodes[&osd].osd.is_none() {
            world.start(osd);
        }
    }
    world.change(|_| {});
    let done = world.run_until(60, |world| world.calls.values().all(|call| call.answer.is_some()));
    assert!(done, "not all is answered: {}", world.state());
    world.check_copies();
    judge(world, &appended);
}

/// At most one is cut off at a time.
fn heal_others(world: &mut World, but: OsdId) {
    for (osd, node) in &mut world.nodes {
        node.isolated &= *osd == but;
    }
    world.change(|_| {});
    world.run(SECOND / 100);
}

fn judge(world: &mut World, appended: &BTreeMap<u64, (u64, u32)>) {
    for object in 0..OBJECTS {
        let mut expected: Vec<u32> =
            appended.values().filter(|(at, _)| *at == object).map(|(_, n)| *n).collect();
        let (code, bytes) = world.read(1, &format!("s{object}"));
        assert!(code == ErrorCode::OK || expected.is_empty(), "{code}");
        let mut found: Vec<u32> =
            bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "s{object}: each append once");
    }
}

fn seed(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn storms() {
    for n in 0..seed("CAIRN_OSD_SEEDS").unwrap_or(12) {
        let mut world = World::started(1_000 + n, 3 + (n % 2) as i32);
        println!("seed {}", 1_000 + n);
        run(&mut world, 120);
    }
}

#[test]
fn one_storm() {
    let n = seed("CAIRN_OSD_SEED").unwrap_or(1_000);
    let mut world = World::started(n, 3 + (n % 2) as i32);
    run(&mut world, 120);
}
