//! Mappings per second over clusters of 1,000 and 10,000 OSDs, and what else is on the way of an object.

// criterion_group! makes a public function without documentation.
#![allow(missing_docs)]

use cairn_crush::placement::object_hash;
use cairn_crush::{CrushMap, Placer, Scratch, text};
use cairn_types::Weight;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::fmt::Write;
use std::hint::black_box;

/// Mappings timed together, so that the inputs differ.
const BATCH: i32 = 1000;

/// Whether the disks of a cluster are all alike.
#[derive(Clone, Copy)]
enum Disks {
    Equal,
    Mixed,
}

/// A cluster of straw2 buckets with today's tunables and one rule for copies on different hosts.
fn cluster(racks: u32, hosts: u32, osds: u32, disks: Disks) -> CrushMap {
    let mut map = String::new();
    for (name, value) in [
        ("choose_local_tries", 0),
        ("choose_local_fallback_tries", 0),
        ("choose_total_tries", 50),
        ("chooseleaf_descend_once", 1),
        ("chooseleaf_vary_r", 1),
        ("chooseleaf_stable", 1),
        ("straw_calc_version", 1),
        ("allowed_bucket_algs", 54),
    ] {
        writeln!(map, "tunable {name} {value}").unwrap();
    }
    for osd in 0..racks * hosts * osds {
        writeln!(map, "device {osd} osd.{osd}").unwrap();
    }
    map += "type 0 osd\ntype 1 host\ntype 3 rack\ntype 11 root\n";
    let bucket = |map: &mut String, kind: &str, name: &str, items: &[String]| {
        writeln!(map, "{kind} {name} {{\nalg straw2\nhash 0").unwrap();
        items.iter().for_each(|item| writeln!(map, "item {item}").unwrap());
        map.push_str("}\n");
    };
    let mut rack_names = Vec::new();
    for rack in 0..racks {
        let mut host_names = Vec::new();
        for host in 0..hosts {
            let first = (rack * hosts + host) * osds;
            let weight = |osd: u32| match disks {
                Disks::Equal => "1.0".to_owned(),
                Disks::Mixed => format!("{}.{:03}", 1 + osd * 7 % 11, osd * 331 % 1000),
            };
            let items: Vec<String> =
                (first..first + osds).map(|osd| format!("osd.{osd} weight {}", weight(osd))).collect();
            host_names.push(format!("host{rack}-{host}"));
            bucket(&mut map, "host", &host_names[host as usize], &items);
        }
        rack_names.push(format!("rack{rack}"));
        bucket(&mut map, "rack", &rack_names[rack as usize], &host_names);
    }
    bucket(&mut map, "root", "default", &rack_names);
    map += "rule replicated_rule {\nid 0\ntype replicated\nmin_size 1\nmax_size 10\n";
    map += "step take default\nstep chooseleaf firstn 0 type host\nstep emit\n}\n";
    map += "rule erasure_rule {\nid 1\ntype erasure\nmin_size 1\nmax_size 20\n";
    map += "step take default\nstep chooseleaf indep 0 type host\nstep emit\n}\n";
    text::compile(&map).expect("the map is sound")
}

fn mappings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mappings");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, shape, disks) in [
        ("1000 OSDs", (25, 8, 5), Disks::Equal),
        ("1000 mixed OSDs", (25, 8, 5), Disks::Mixed),
        ("10000 OSDs", (50, 20, 10), Disks::Equal),
        ("10000 mixed OSDs", (50, 20, 10), Disks::Mixed),
    ] {
        let map = cluster(shape.0, shape.1, shape.2, disks);
        let placer = Placer::new(&map).expect("the map is sound");
        let weights = vec![Weight::ONE; map.max_devices as usize];
        let mut scratch = Scratch::new();
        for (kind, rule, size) in [("3 replicas", 0, 3), ("8+3 chunks", 1, 11)] {
            let mut x = 0_i32;
            group.bench_function(BenchmarkId::new(name, kind), |bencher| {
                bencher.iter(|| {
                    for _ in 0..BATCH {
                        x = x.wrapping_add(1);
                        black_box(placer.place(rule, black_box(x), size, &weights, None, &mut scratch));
                    }
                });
            });
        }
    }
    group.finish();
}

fn making_ready(criterion: &mut Criterion) {
    let map = cluster(25, 8, 5, Disks::Mixed);
    criterion.bench_function("make a map of 1000 OSDs ready", |bencher| {
        bencher.iter(|| Placer::new(black_box(&map)))
    });
}

fn hashes(criterion: &mut Criterion) {
    let name = "rbd_data.10226b8b4567.00000000000000ff";
    criterion.bench_function("hash the name of an image's object", |bencher| {
        bencher.iter(|| object_hash(black_box(""), black_box(""), black_box(name)));
    });
}

criterion_group!(benches, mappings, making_ready, hashes);
criterion_main!(benches);
