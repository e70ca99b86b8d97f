//! From objects and groups to OSDs, against `osdmaptool`.

#[path = "support/osdmaptool.rs"]
mod osdmaptool;

use cairn_crush::build::{ReplicaMode, SimpleRule};
use cairn_crush::placement::{OsdState, Osds, Overrides, PgMapping, Placement, Pool, object_hash};
use cairn_crush::{Algorithm, CrushMap, Placer, Scratch, Tunables, binary};
use cairn_types::{OsdId, PoolId, Weight};
use osdmaptool::OsdMapTool;

/// Racks of hosts of five disks, of different sizes.
fn cluster(osds: i32) -> CrushMap {
    let mut map = CrushMap::new(Tunables::default());
    let root = map.add_bucket("default", "root", Algorithm::Straw2).unwrap();
    let (mut rack, mut host) = (root, root);
    for osd in 0..osds {
        if osd % 20 == 0 {
            rack = map.add_bucket(&format!("rack{osd}"), "rack", Algorithm::Straw2).unwrap();
            map.link(rack, root).unwrap();
        }
        if osd % 5 == 0 {
            host = map.add_bucket(&format!("host{osd}"), "host", Algorithm::Straw2).unwrap();
            map.link(host, rack).unwrap();
        }
        map.add_device(osd, &format!("osd.{osd}"), Weight(0x1_0000 + 0x4000 * (osd as u32 % 3)), None, host)
            .unwrap();
    }
    let rule = SimpleRule {
        name: "replicated_rule",
        root: "default",
        failure_domain: "host",
        class: None,
        mode: ReplicaMode::Firstn,
        is_erasure: false,
    };
    map.add_simple_rule(&rule).unwrap();
    map
}

/// Groups as `--test-map-pgs-dump` prints them.
fn dump(placement: &Placement<'_>, pool: &Pool) -> Vec<String> {
    let (mut scratch, mut mapping) = (Scratch::new(), PgMapping::default());
    let line = |seed| {
        placement.map(pool, seed, &mut scratch, &mut mapping);
        let osds: Vec<String> = mapping.acting.iter().map(i32::to_string).collect();
        let primary = mapping.acting_primary.map_or(-1, |osd| osd.0);
        format!("{}\t[{}]\t{primary}", pool.pg_of_hash(seed), osds.join(","))
    };
    (0..pool.pg_num).map(line).collect()
}

#[test]
fn groups_and_objects_are_osdmaptools() {
    const OSDS: i32 = 60;
    let Some(tool) = OsdMapTool::find() else { return };
    let map = cluster(OSDS);
    let placer = Placer::new(&map).unwrap();
    tool.write("crush.bin", &binary::encode(&map).unwrap());
    // Bits for pg_num and pgp_num: OSDs shifted left by them, so that neither is a power of two.
    for (pg_bits, pgp_bits) in [(4, 4), (5, 3)] {
        let (pg, pgp) = (pg_bits.to_string(), pgp_bits.to_string());
        let create = ["--createsimple", "60", "--clobber", "--with-default-pool"];
        tool.run(&[&create[..], &["--pg-bits", &pg, "--pgp-bits", &pgp, "om"]].concat());
        tool.run(&["om", "--import-crush", "crush.bin"]);
        let pool = Pool {
            id: PoolId(1),
            size: 3,
            pg_num: (OSDS as u32) << pg_bits,
            pgp_num: (OSDS as u32) << pgp_bits,
            rule: 0,
            is_positional: false,
            is_seeded: true,
        };
        let mut osds = Osds::new(vec![OsdState::READY; OSDS as usize]);
        let mut arguments = vec!["om", "--mark-up-in", "--test-map-pgs-dump", "--pool", "1"];
        let mut overrides = Overrides::default();
        for round in 0..3 {
            if round == 1 {
                // The tool takes one.
                arguments.extend(["--mark-out", "31"]);
                osds.set(OsdId(31), OsdState { weight: Weight::ZERO, ..OsdState::READY });
            }
            if round == 2 {
                // The balancer of Ceph makes upmap items, which are kept in the map.
                let made = tool.run(&[
                    "om",
                    "--mark-up-in",
                    "--upmap",
                    "-",
                    "--upmap-deviation",
                    "1",
                    "--upmap-max",
                    "100",
                    "--save",
                ]);
                overrides.upmap_items = osdmaptool::upmap_items(&made);
                assert!(overrides.upmap_items.len() > 20, "{made}");
            }
            let theirs = tool.run(&arguments);
            let theirs: Vec<&str> = theirs.lines().filter(|line| line.starts_with("1.")).collect();
            let ours = dump(&Placement { placer: &placer, osds: &osds, overrides: &overrides }, &pool);
            assert_eq!(theirs.len(), pool.pg_num as usize);
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!(ours, theirs, "round {round}");
            }
        }
        overrides = Overrides::default();
        let osds = Osds::new(vec![OsdState::READY; OSDS as usize]);
        tool.run(&[
            "--createsimple",
            "60",
            "--clobber",
            "--with-default-pool",
            "--pg-bits",
            &pg,
            "--pgp-bits",
            &pgp,
            "om",
        ]);
        tool.run(&["om", "--import-crush", "crush.bin"]);
        let (mut scratch, mut mapping) = (Scratch::new(), PgMapping::default());
        for name in
            ["rbd_directory", "x", "a", "rbd_data.10226b8b4567.00000000000000ff", "ünïcode", "twelve bytes"]
        {
            let hash = object_hash("", "", name);
            Placement { placer: &placer, osds: &osds, overrides: &overrides }.map(
                &pool,
                hash,
                &mut scratch,
                &mut mapping,
            );
            let osds: Vec<String> = mapping.acting.iter().map(i32::to_string).collect();
            let ours = format!(" object '{name}' -> {} -> [{}]", pool.pg_of_hash(hash), osds.join(","));
            let theirs = tool.run(&["om", "--mark-up-in", "--test-map-object", name, "--pool", "1"]);
            assert!(theirs.contains(&ours), "{ours}\n{theirs}");
        }
    }
}
