//! Random text maps that both `crushtool` 16.2 and cairn accept, of every algorithm and profile, with classes and
//! choose-args. The same seed gives the same text for ever.

use std::fmt::Write;

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Tunables of the profiles argonaut, bobtail, firefly, hammer and jewel, where they differ from argonaut's.
const PROFILES: [&[(&str, u32)]; 5] = [
    &[],
    &[
        ("choose_local_tries", 0),
        ("choose_local_fallback_tries", 0),
        ("choose_total_tries", 50),
        ("chooseleaf_descend_once", 1),
    ],
    &[
        ("choose_local_tries", 0),
        ("choose_local_fallback_tries", 0),
        ("choose_total_tries", 50),
        ("chooseleaf_descend_once", 1),
        ("chooseleaf_vary_r", 1),
    ],
    &[
        ("choose_local_tries", 0),
        ("choose_local_fallback_tries", 0),
        ("choose_total_tries", 50),
        ("chooseleaf_descend_once", 1),
        ("chooseleaf_vary_r", 1),
        ("allowed_bucket_algs", 54),
    ],
    &[
        ("choose_local_tries", 0),
        ("choose_local_fallback_tries", 0),
        ("choose_total_tries", 50),
        ("chooseleaf_descend_once", 1),
        ("chooseleaf_vary_r", 1),
        ("chooseleaf_stable", 1),
        ("allowed_bucket_algs", 54),
    ],
];

struct Made {
    id: i32,
    algorithm: &'static str,
    items: usize,
}

struct Maker {
    random: Random,
    out: String,
    /// Shadow trees of uniform and tree buckets are broken in crushtool 16.2: it refuses the first and
    /// leaves memory unset in the second.
    has_classes: bool,
    made: Vec<Made>,
    next_id: i32,
}

/// The text of random map number `seed`.
pub fn random_text(seed: u64) -> String {
    let mut random = Random(seed);
    let has_classes = random.chance(50);
    Maker { random, out: String::new(), has_classes, made: Vec::new(), next_id: -1 }.run()
}

macro_rules! put {
    ($self:ident, $($format:tt)*) => { write!($self.out, $($format)*).unwrap() };
}

impl Maker {
    fn run(mut self) -> String {
        let profile = PROFILES[self.random.below(5) as usize];
        for (name, value) in profile {
            put!(self, "tunable {name} {value}\n");
        }
        if self.random.chance(60) {
            put!(self, "tunable straw_calc_version 1\n");
        }
        let racks = self.random.below(4) as usize;
        let hosts = 1 + self.random.below(7) as usize;
        let mut hosted: Vec<Vec<(String, String)>> = Vec::new();
        let mut device = self.random.below(3) as usize;
        let mut used_classes = Vec::new();
        for _ in 0..hosts {
            let mut devices = Vec::new();
            for _ in 0..1 + self.random.below(8) {
                put!(self, "device {device} osd.{device}");
                if self.has_classes && self.random.chance(80) {
                    let class = self.random.pick(&["hdd", "ssd", "nvme"]);
                    used_classes.push(class);
                    put!(self, " class {class}");
                }
                put!(self, "{}", if self.random.chance(10) { " # a comment\n" } else { "\n" });
                let weight = self.weight();
                devices.push((format!("osd.{device}"), weight));
                device += 1 + usize::from(self.random.chance(10));
            }
            hosted.push(devices);
        }
        put!(self, "# types\ntype 0 osd\ntype 1 host\ntype 3 rack\ntype 10 root\n\n");
        let mut below_root = Vec::new();
        for (number, devices) in hosted.iter().enumerate() {
            let name = format!("host{number}");
            self.bucket("host", &name, devices);
            below_root.push((name, String::new()));
        }
        if racks > 0 {
            let mut parts = vec![Vec::new(); racks];
            for (number, host) in below_root.drain(..).enumerate() {
                parts[number % racks].push(host);
            }
            for (number, part) in parts.iter().enumerate() {
                let name = format!("rack-{number}");
                let weighed: Vec<_> = part.iter().map(|(host, _)| (host.clone(), self.weight())).collect();
                let is_weighed = self.random.chance(50);
                self.bucket("rack", &name, if is_weighed { &weighed } else { part });
                below_root.push((name, String::new()));
            }
        }
        self.bucket("root", "default", &below_root);
        if self.random.chance(30) {
            // A second root over some of the same devices.
            let devices = hosted[0].clone();
            self.bucket("root", "other_root", &devices);
        }
        self.rules(racks > 0, hosts, &used_classes);
        self.choose_args();
        self.out
    }

    fn weight(&mut self) -> String {
        let random = &mut self.random;
        match random.below(8) {
            0 => "0".to_owned(),
            1 => format!("{}", random.below(100)),
            2 => format!("{}.{:05}", random.below(20), random.below(100_000)),
            3 => format!("{}e-2", random.below(3000)),
            4 => format!(".{:03}", random.below(1000)),
            5 => "1.0".to_owned(),
            6 => format!("{}.{:03}", random.below(99), random.below(1000)),
            _ => format!("0.{:06}", random.below(1_000_000)),
        }
    }

    /// `items` are names with weights; an empty weight is left out.
    fn bucket(&mut self, kind: &str, name: &str, items: &[(String, String)]) {
        let algorithm: &'static str = match self.has_classes {
            true => ["list", "straw", "straw2", "straw2"][self.random.below(4) as usize],
            false => ["uniform", "list", "tree", "straw", "straw2"][self.random.below(5) as usize],
        };
        put!(self, "{kind} {name} {{\n");
        let id = self.next_id;
        self.next_id -= 1 + i32::from(self.random.chance(5));
        put!(self, "\tid {id}\t\t# do not change unnecessarily\n");
        if self.has_classes && self.random.chance(20) {
            let shadow = id - 1000;
            put!(self, "\tid {shadow} class ssd\n");
        }
        put!(self, "\talg {algorithm}\n");
        if self.random.chance(80) {
            put!(self, "\thash {}\n", self.random.pick(&["0", "rjenkins1"]));
        }
        // A uniform bucket wants one weight, which must then be given; crushtool aborts on one of 0.
        let uniform_weight = format!("{}.{:03}1", self.random.below(3), self.random.below(1000));
        let mut positions: Vec<usize> = (0..items.len()).collect();
        for index in (1..positions.len()).rev() {
            positions.swap(index, self.random.below(index as u64 + 1) as usize);
        }
        let has_positions = self.random.chance(20);
        for ((item, weight), position) in items.iter().zip(positions) {
            put!(self, "\titem {item}");
            match (algorithm, weight.as_str()) {
                ("uniform", _) => put!(self, " weight {uniform_weight}"),
                (_, "") => {}
                (_, weight) => put!(self, " weight {weight}"),
            }
            if has_positions {
                put!(self, " pos {position}");
            }
            put!(self, "\n");
        }
        put!(self, "}}\n");
        self.made.push(Made { id, algorithm, items: items.len() });
    }

    fn rules(&mut self, has_racks: bool, hosts: usize, classes: &[&str]) {
        let mut number = 0;
        for _ in 0..1 + self.random.below(4) {
            let kind = self.random.pick(&["replicated", "erasure"]);
            put!(
                self,
                "rule rule_{number} {{\n\t{} {number}\n\ttype {kind}\n",
                self.random.pick(&["id", "ruleset"])
            );
            put!(self, "\tmin_size {}\n\tmax_size {}\n", 1 + self.random.below(3), 3 + self.random.below(8));
            for step in ["set_chooseleaf_tries 5", "set_choose_tries 100", "set_chooseleaf_vary_r 1"] {
                if self.random.chance(20) {
                    put!(self, "\tstep {step}\n");
                }
            }
            for _ in 0..1 + self.random.below(2) {
                put!(self, "\tstep take default");
                let class =
                    (!classes.is_empty() && self.random.chance(40)).then(|| self.random.pick(classes));
                if let Some(class) = class {
                    put!(self, " class {class}");
                }
                let mode = self.random.pick(&["firstn", "indep"]);
                let num = ["0", "-1", "2", "3"][self.random.below(4) as usize];
                match self.random.below(4) {
                    0 => put!(self, "\n\tstep choose {mode} {num} type osd\n"),
                    1 if has_racks => {
                        put!(
                            self,
                            "\n\tstep choose {mode} 2 type rack\n\tstep chooseleaf {mode} 2 type host\n"
                        );
                    }
                    2 if hosts > 1 => {
                        put!(
                            self,
                            "\n\tstep choose {mode} {num} type host\n\tstep choose {mode} 1 type osd\n"
                        );
                    }
                    _ => put!(self, "\n\tstep chooseleaf {mode} {num} type host\n"),
                }
                put!(self, "\tstep emit\n");
            }
            put!(self, "}}\n");
            number += 1 + self.random.below(2);
        }
    }

    fn choose_args(&mut self) {
        if self.random.chance(60) {
            return;
        }
        for id in ["18446744073709551615", "0", "7"] {
            if self.random.chance(50) {
                continue;
            }
            put!(self, "choose_args {id} {{\n");
            let positions = 1 + self.random.below(3);
            for index in 0..self.made.len() {
                let Made { id, algorithm, items } = self.made[index];
                if algorithm != "straw2" || self.random.chance(40) {
                    continue;
                }
                put!(self, "  {{\n    bucket_id {id}\n    weight_set [\n");
                for _ in 0..positions {
                    put!(self, "      [ ");
                    for _ in 0..items {
                        let weight = self.weight();
                        put!(self, "{weight} ");
                    }
                    put!(self, "]\n");
                }
                put!(self, "    ]\n");
                if items > 0 && self.random.chance(40) {
                    put!(self, "    ids [ ");
                    for _ in 0..items {
                        let id = self.random.below(10_000) as i64 - 5000;
                        put!(self, "{id} ");
                    }
                    put!(self, "]\n");
                }
                put!(self, "  }}\n");
            }
            put!(self, "}}\n");
        }
    }
}
