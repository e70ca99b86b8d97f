//! Random jobs for `crushtool --test`: a random map with rules, reweights and numbers of replicas.

use crate::random_text::{Random, random_text};
use cairn_crush::tester::{self, Options};
use std::fmt::Write;

/// One run of `crushtool --test`.
pub struct Job {
    /// The map.
    pub text: String,
    weights: Vec<(i32, String)>,
    num_rep: i32,
    inputs: (i32, i32),
}

/// Job number `seed`, with at most `inputs` inputs.
pub fn random_job(seed: u64, inputs: i32) -> Job {
    // Another stream than the map's.
    let mut random = Random(!seed);
    let text = match random.below(3) {
        0 => wide_text(&mut random),
        _ => random_text(seed),
    };
    let text = with_steps(&text, &mut random);
    let mut weights = Vec::new();
    while random.chance(70) {
        let weight = match random.below(4) {
            0 => "0".to_owned(),
            1 => "1".to_owned(),
            _ => format!("0.{:03}", random.below(1000)),
        };
        weights.push((random.below(24) as i32, weight));
    }
    let first = random.below(1 << 30) as i32;
    let num_rep = 1 + random.below(6) as i32;
    Job { text, weights, num_rep, inputs: (first, first + random.below(inputs as u64) as i32) }
}

impl Job {
    /// A job as it was written down.
    pub fn from_arguments(text: &str, arguments: &str) -> Self {
        let mut job = Job { text: text.to_owned(), weights: Vec::new(), num_rep: 0, inputs: (0, 0) };
        let mut words = arguments.split(' ');
        while let Some(word) = words.next() {
            let mut number = || words.next().unwrap().parse().unwrap();
            match word {
                "--min-x" => job.inputs.0 = number(),
                "--max-x" => job.inputs.1 = number(),
                "--num-rep" => job.num_rep = number(),
                "--weight" => {
                    let device = number();
                    job.weights.push((device, words.next().unwrap().to_owned()));
                }
                _ => {}
            }
        }
        job
    }

    /// For `crushtool`.
    pub fn arguments(&self, map: &str) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["-i", map, "--test", "--show-mappings", "--show-statistics"].map(str::to_owned).into();
        for (name, value) in
            [("--min-x", self.inputs.0), ("--max-x", self.inputs.1), ("--num-rep", self.num_rep)]
        {
            arguments.extend([name.to_owned(), value.to_string()]);
        }
        for (device, weight) in &self.weights {
            arguments.extend(["--weight".to_owned(), device.to_string(), weight.clone()]);
        }
        arguments
    }

    /// For ours.
    pub fn options(&self) -> Options {
        let weights =
            self.weights.iter().map(|(device, weight)| (*device, tester::reweight(weight.parse().unwrap())));
        Options {
            num_rep: Some((self.num_rep, self.num_rep)),
            inputs: Some(self.inputs),
            weights: weights.collect(),
            show_mappings: true,
            show_statistics: true,
            ..Options::default()
        }
    }
}

/// A map of few, wide buckets: more items than are hashed at once, weights all equal or all different, and
/// weights at the edges of what Ceph takes in.
fn wide_text(random: &mut Random) -> String {
    let algorithms = ["uniform", "list", "straw", "straw2", "straw2", "straw2"];
    let mut text = String::new();
    let profile = random.below(2);
    if profile == 1 {
        text += "tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n";
        text +=
            "tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\n";
    }
    let hosts = 1 + random.below(40);
    let mut sizes = Vec::new();
    for _ in 0..hosts {
        let most = [3, 9, 40][random.below(3) as usize];
        sizes.push(random.below(most) + 1);
    }
    for device in 0..sizes.iter().sum() {
        writeln!(text, "device {device} osd.{device}").unwrap();
    }
    text += "type 0 osd\ntype 1 host\ntype 2 root\n";
    let mut device = 0;
    for (host, &size) in sizes.iter().enumerate() {
        let algorithm = algorithms[random.below(6) as usize];
        write!(text, "host h{host} {{\n id -{}\n alg {algorithm}\n hash 0\n", host + 2).unwrap();
        let is_equal = algorithm == "uniform" || random.chance(50);
        let equal = device_weight(random);
        for _ in 0..size {
            let weight = if is_equal { equal.clone() } else { device_weight(random) };
            writeln!(text, " item osd.{device} weight {weight}").unwrap();
            device += 1;
        }
        text += "}\n";
    }
    let algorithm = ["list", "straw", "straw2", "straw2", "straw2", "straw2"][random.below(6) as usize];
    write!(text, "root default {{\n id -1\n alg {algorithm}\n hash 0\n").unwrap();
    let kind = random.below(4);
    let most = 65535 / hosts;
    for host in 0..hosts {
        let weight = match kind {
            0 => "1.0".to_owned(),
            1 => format!("{most}.0"),
            2 => format!("{}.{:04}", random.below(most), random.below(10_000)),
            // Most maps cannot hold two weights that are negative to Ceph; one is enough.
            _ if host == 0 && hosts > 1 => "33000.0".to_owned(),
            _ => format!("{}.5", random.below((32000 / hosts).max(1))),
        };
        writeln!(text, " item h{host} weight {weight}").unwrap();
    }
    text += "}\n";
    for (rule, steps) in [
        "choose firstn 0 type osd",
        "choose indep 0 type osd",
        "chooseleaf firstn 0 type host",
        "chooseleaf indep 0 type host",
    ]
    .iter()
    .enumerate()
    {
        write!(text, "rule r{rule} {{\n id {rule}\n type replicated\n min_size 1\n max_size 10\n").unwrap();
        write!(text, " step take default\n step {steps}\n step emit\n}}\n").unwrap();
    }
    text
}

fn device_weight(random: &mut Random) -> String {
    match random.below(6) {
        0 => "100.0".to_owned(),
        1 => "0.00001526".to_owned(),
        2 => "0.0001".to_owned(),
        3 => "1.0".to_owned(),
        _ => format!("{}.{:03}1", random.below(20), random.below(1000)),
    }
}

/// The map with set steps in front of its rules' others, now and then.
fn with_steps(text: &str, random: &mut Random) -> String {
    let mut changed = String::new();
    for line in text.lines() {
        changed.push_str(line);
        changed.push('\n');
        if !line.trim_start().starts_with("max_size") {
            continue;
        }
        for (step, most) in [
            ("set_choose_tries", 60),
            ("set_chooseleaf_tries", 10),
            ("set_choose_local_tries", 4),
            ("set_choose_local_fallback_tries", 6),
            ("set_chooseleaf_vary_r", 5),
            ("set_chooseleaf_stable", 2),
        ] {
            if random.chance(15) {
                writeln!(changed, "\tstep {step} {}", random.below(most)).unwrap();
            }
        }
    }
    changed
}
