//! Everything at once, many times.

use super::world::World;

const SEEDS: u64 = 150;
const STEPS: u32 = 2_500;

fn run(seed: u64, may_be_busy: bool) -> World {
    let mut world = World::new(seed, may_be_busy);
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.check();
    world
}

#[test]
fn each_vector_is_answered_once_and_carried_out_once_in_order() {
    let (mut answered, mut resends, mut lost_links) = (0, 0, 0);
    for seed in 0..SEEDS {
        let world = run(seed, false);
        answered += world.done.len();
        resends += world.resends;
        lost_links += world.lost_links;
    }
    // The world has done what it is for.
    let seeds = SEEDS as usize;
    assert!(answered > 50 * seeds, "{answered}");
    assert!(resends > 2 * SEEDS && lost_links > 2 * SEEDS, "{resends} {lost_links}");
}

#[test]
fn each_vector_is_answered_once_and_carried_out_once_by_busy_osds() {
    for seed in 1_000..1_000 + SEEDS {
        run(seed, true);
    }
}
