//! Maps that make no sense are refused with the reason, and over any map that is not refused every mapping ends.

#[path = "support/random_text.rs"]
#[allow(dead_code)]
mod random_text;

use cairn_crush::{
    Algorithm, BucketData, ChooseArg, CrushMap, MapError, NO_ITEM, Placer, Rule, Scratch, Step, Tunables,
    binary, text,
};
use cairn_types::Weight;
use random_text::{Random, random_text};

/// A root of two hosts of two devices each.
fn sound() -> CrushMap {
    let mut map = CrushMap::new(Tunables::default());
    let root = map.add_bucket("default", "root", Algorithm::Straw2).unwrap();
    for host in 0..2 {
        let id = map.add_bucket(&format!("host{host}"), "host", Algorithm::Straw2).unwrap();
        map.link(id, root).unwrap();
        for device in 2 * host..2 * host + 2 {
            map.add_device(device, &format!("osd.{device}"), Weight::ONE, None, id).unwrap();
        }
    }
    map
}

fn refused(change: impl FnOnce(&mut CrushMap)) -> MapError {
    let mut map = sound();
    assert_eq!(map.validate(), Ok(()));
    change(&mut map);
    map.validate().unwrap_err()
}

fn items(map: &mut CrushMap, place: usize) -> &mut Vec<i32> {
    &mut map.buckets[place].as_mut().unwrap().items
}

fn rule(steps: Vec<Step>) -> Option<Rule> {
    Some(Rule { ruleset: 0, kind: 1, min_size: 1, max_size: 10, steps })
}

#[test]
fn senseless_maps_are_refused_with_the_reason() {
    assert_eq!(refused(|map| map.max_devices = -1), MapError::MaxDevices(-1));
    assert_eq!(refused(|map| map.max_devices = 3), MapError::MissingItem { bucket: -3, item: 3 });
    assert_eq!(refused(|map| map.buckets[1] = None), MapError::MissingItem { bucket: -1, item: -2 });
    assert_eq!(refused(|map| items(map, 0)[1] = -77), MapError::MissingItem { bucket: -1, item: -77 });
    assert_eq!(
        refused(|map| items(map, 0)[1] = i32::MIN),
        MapError::MissingItem { bucket: -1, item: i32::MIN }
    );
    assert_eq!(refused(|map| items(map, 1)[0] = -1), MapError::Cycle(-1));
    assert_eq!(refused(|map| items(map, 1)[0] = -2), MapError::Cycle(-2));
    assert_eq!(refused(|map| map.buckets.swap(1, 2)), MapError::BucketPlace { id: -3, place: 1 });
    assert_eq!(refused(|map| map.buckets[0].as_mut().unwrap().kind = 0), MapError::DeviceTypeBucket(-1));
    assert_eq!(
        refused(|map| map.buckets[0].as_mut().unwrap().hash = 1),
        MapError::UnknownHash { id: -1, hash: 1 }
    );
    assert!(matches!(refused(|map| items(map, 0).truncate(1)), MapError::BucketShape { id: -1, .. }));
    let uniform = BucketData::Uniform { item_weight: 1 };
    assert!(matches!(
        refused(|map| map.buckets[0].as_mut().unwrap().data = uniform),
        MapError::BucketShape { id: -1, .. }
    ));
    assert_eq!(
        refused(|map| map.rules.push(rule(vec![Step::Noop, Step::Take(-9)]))),
        MapError::MissingTake { rule: 0, step: 1, item: -9 }
    );
    let arg = |ids: Vec<i32>, weights: Vec<Vec<Weight>>| ChooseArg { ids, weight_sets: weights };
    let with = |bucket: i32, arg: ChooseArg| {
        move |map: &mut CrushMap| drop(map.choose_args.entry(5).or_default().insert(bucket, arg))
    };
    assert_eq!(refused(with(-40, arg(vec![], vec![]))), MapError::ChooseArgBucket { set: 5, bucket: -40 });
    assert!(matches!(refused(with(-1, arg(vec![1], vec![]))), MapError::ChooseArgShape { what: "ids", .. }));
    assert!(matches!(
        refused(with(-1, arg(vec![], vec![vec![Weight::ONE]]))),
        MapError::ChooseArgShape { what: "weights", .. }
    ));
}

/// Deeper than any stack.
#[test]
fn a_deep_map_is_checked_and_mapped() {
    const DEPTH: i32 = 100_000;
    let mut map = sound();
    map.buckets.clear();
    for place in 0..DEPTH {
        let below = if place + 1 < DEPTH { -2 - place } else { 0 };
        let bucket =
            cairn_crush::build::make_bucket(-1 - place, 1, Algorithm::Straw2, &[below], &[0x1_0000], 1)
                .unwrap();
        map.buckets.push(Some(bucket));
    }
    map.rules.push(rule(vec![Step::Take(-1), Step::ChooseFirstn { num: 0, kind: 0 }, Step::Emit]));
    let placer = Placer::new(&map).unwrap();
    assert_eq!(placer.place(0, 1, 3, &[Weight::ONE], None, &mut Scratch::new()), [0]);
}

/// Each empty set is twelve bytes of a file, and must not cost a table of all buckets.
#[test]
fn many_sets_of_choose_args_over_many_places_take_little_memory() {
    let mut map = sound();
    map.buckets.resize(1 << 18, None);
    let replaced = ChooseArg { ids: vec![], weight_sets: vec![vec![Weight::ONE, Weight::ZERO]] };
    for set in 0..100_000 {
        let args = map.choose_args.entry(set).or_default();
        if set % 1000 == 7 {
            args.insert(-1, replaced.clone());
        }
    }
    map.rules.push(rule(vec![Step::Take(-1), Step::ChooseFirstn { num: 1, kind: 1 }, Step::Emit]));
    let map = binary::decode(&binary::encode(&map).unwrap()).unwrap();
    let placer = Placer::new(&map).unwrap();
    let mut scratch = Scratch::new();
    let mut hosts = |set: i64| {
        let mut place = |x| placer.place(0, x, 1, &[], placer.choose_args(set), &mut scratch)[0];
        (0..100).map(&mut place).collect::<std::collections::BTreeSet<i32>>()
    };
    assert_eq!(hosts(5007), [-2].into());
    assert_eq!(hosts(5008), [-3, -2].into());
}

/// Weights of a tree that do not add up lead beyond its last item, where Ceph reads beyond the bucket.
#[test]
fn a_tree_whose_weights_mislead_gives_an_item_of_its_own() {
    for items in 1..=5_usize {
        let ids: Vec<i32> = (0..items as i32).collect();
        let no_weights = vec![0; items];
        let mut tree = cairn_crush::build::make_bucket(-1, 1, Algorithm::Tree, &ids, &no_weights, 1).unwrap();
        let BucketData::Tree { node_weights } = &tree.data else { unreachable!() };
        let nodes = node_weights.len();
        // Nothing weighs anything; all weight is right of the middle; every node weighs the most.
        let right = (0..nodes).map(|node| if node >= nodes / 2 { 0x1_0000 } else { 0 }).collect();
        for node_weights in [vec![0; nodes], right, vec![u32::MAX; nodes]] {
            tree.data = BucketData::Tree { node_weights };
            let mut map = sound();
            map.max_devices = items as i32;
            map.buckets = vec![Some(tree.clone())];
            for num in [1, -1] {
                map.rules.push(rule(vec![Step::Take(-1), Step::ChooseFirstn { num, kind: 0 }, Step::Emit]));
                map.rules.push(rule(vec![Step::Take(-1), Step::ChooseIndep { num, kind: 0 }, Step::Emit]));
            }
            let placer = Placer::new(&binary::decode(&binary::encode(&map).unwrap()).unwrap()).unwrap();
            let weights = vec![Weight::ONE; items];
            let mut scratch = Scratch::new();
            for rule in 0..map.rules.len() {
                for x in 0..100 {
                    let result = placer.place(rule, x, 3, &weights, None, &mut scratch);
                    assert!(result.iter().all(|&item| ids.contains(&item) || item == NO_ITEM), "{result:?}");
                }
            }
        }
    }
}

/// A rule may ask for more tries than there is time for.
#[test]
fn a_rule_that_tries_for_ever_ends() {
    let mut map = sound();
    for indep in [false, true] {
        let num = 4;
        let choose = match indep {
            false => Step::ChooseleafFirstn { num, kind: 1 },
            true => Step::ChooseleafIndep { num, kind: 1 },
        };
        let tries = i32::MAX;
        map.rules.push(rule(vec![
            Step::SetChooseTries(tries),
            Step::SetChooseleafTries(tries),
            Step::SetChooseLocalTries(tries),
            Step::SetChooseLocalFallbackTries(if indep { 0 } else { tries }),
            Step::Take(-1),
            choose,
            Step::Emit,
        ]));
    }
    let placer = Placer::new(&map).unwrap();
    let mut scratch = Scratch::new();
    for rule in 0..2 {
        let result = placer.place(rule, 1, 4, &[Weight::ONE; 4], None, &mut scratch);
        assert!(result.len() <= 4);
    }
}

/// Random maps with bytes changed: what is not refused is mapped.
#[test]
fn damaged_maps_are_refused_or_mapped() {
    let mut mapped = 0;
    let mut scratch = Scratch::new();
    for seed in 0..40 {
        let bytes = binary::encode(&text::compile(&random_text(seed)).unwrap()).unwrap();
        let mut random = Random(seed);
        for _ in 0..50 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next() as u8;
            }
            let Ok(map) = binary::decode(&bytes) else { continue };
            let Ok(placer) = Placer::new(&map) else { continue };
            let weights = vec![Weight::ONE; map.max_devices as usize];
            for rule in 0..map.rules.len() {
                for x in 0..3 {
                    for choose_args in [None, placer.choose_args(0)] {
                        assert!(placer.place(rule, x, 4, &weights, choose_args, &mut scratch).len() <= 4);
                        mapped += 1;
                    }
                }
            }
        }
    }
    assert!(mapped > 1000, "{mapped}");
}
