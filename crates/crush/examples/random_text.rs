//! Prints a random text map: `random_text SEED`. `tests/data/make-text.sh` records crushtool's answers to some.

#[path = "../tests/support/random_text.rs"]
mod random_text;

fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok());
    match seed {
        Some(seed) => print!("{}", random_text::random_text(seed)),
        None => eprintln!("usage: random_text SEED"),
    }
}
