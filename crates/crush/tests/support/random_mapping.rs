//! Random jobs for `crushtool --test`: a random map with rules, reweights and numbers of replicas.

use crate::random_text::{Random, random_text};
use cairn_crush::tester::{self, Options};

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
    let text = random_text(seed);
    // Another stream than the map's.
    let mut random = Random(!seed);
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
    /// For `crushtool`.
    pub fn arguments(&self, map: &str) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["-i", map, "--test", "--show-mappings", "--show-statistics"].map(str::to_owned).into();
        for (name, value) in [
            ("--min-x", self.inputs.0),
            ("--max-x", self.inputs.1),
            ("--num-rep", self.num_rep),
        ] {
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
