//! What happens to a group, told one story at a time.

use crate::checker::Action;
use crate::world::{MS, Setup, Violation, World, sim_config};
use bytes::Bytes;
use cairn_pg::{Canary, Config, Position, State};
use cairn_types::OsdId;

const SECOND: u64 = 1_000 * MS;

/// A clean group of three copies on `osds` OSDs.
fn cluster(osds: usize, config: Config) -> World {
    cluster_of(osds, 3, config)
}

fn cluster_of(osds: usize, size: usize, config: Config) -> World {
    cluster_from(7, osds, size, config)
}

fn cluster_from(seed: u64, osds: usize, size: usize, config: Config) -> World {
    let setup = Setup { osds, size, min_size: 2, objects: 8, clients: 2, config };
    let mut world = World::new(seed, setup);
    assert!(world.run_while(5 * SECOND, World::is_clean), "{}", world.state());
    world
}

fn primary(world: &World) -> OsdId {
    world.authority.latest().primary.expect("a primary")
}

fn replicas(world: &World) -> Vec<OsdId> {
    world.authority.latest().acting[1..].to_vec()
}

/// Client 1 (whose maps are fresh) does it and is answered.
fn done(world: &mut World, object: usize, action: Action) -> Vec<u64> {
    let request = world.request(1, object, action);
    assert!(
        world.run_while(5 * SECOND, |world| world.answer(request).is_some()),
        "{action:?}: {}",
        world.state()
    );
    let answer = world.answer(request).expect("answered");
    answer.chunks_exact(8).map(|v| u64::from_be_bytes(v.try_into().expect("eight bytes"))).collect()
}

fn becomes_clean(world: &mut World) {
    if let Err(violation) = world.settle() {
        panic!("{violation:?}");
    }
    world.check_copies().expect("copies alike");
}

#[test]
fn a_primary_that_is_cut_off_stops_answering_before_another_writes() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    let old = primary(&world);
    world.isolate(old);
    // Client 0 has not heard of the new map: it goes on asking the old primary.
    for _ in 0..40 {
        world.request(0, 0, Action::Read);
        world.run_until(world.now + 10 * MS);
    }
    done(&mut world, 0, Action::Set(2));
    assert_ne!(primary(&world), old);
    let late = world.request(0, 0, Action::Read);
    world.run_until(world.now + SECOND);
    world.heal(old);
    becomes_clean(&mut world);
    assert_eq!(world.answer(late).as_deref(), Some(&2u64.to_be_bytes()[..]));
}

#[test]
fn what_is_called_clean_is_durable() {
    let mut world = cluster(3, sim_config());
    let old = primary(&world);
    world.crash(old, 50);
    for object in 0..8 {
        done(&mut world, object, Action::Set(1));
    }
    // It comes back, leads again and fetches what it has missed.
    world.restart(old);
    assert!(world.run_while(5 * SECOND, |world| primary(world) == old), "{}", world.state());
    let end = world.now + 5 * SECOND;
    while !world.is_called_clean() {
        assert!(world.now < end, "{}", world.state());
        world.run_until(world.now + MS / 50);
    }
    let acting = &world.authority.latest().acting;
    let stored = |osd: &OsdId| &world.nodes[osd].store.durable.objects;
    assert!(acting.iter().all(|osd| stored(osd) == stored(&old)), "clean, and not yet in every store");
}

#[test]
fn a_paused_primary_wakes_up_to_no_lease() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    done(&mut world, 0, Action::Read);
    let old = primary(&world);
    let asked = world.request(0, 0, Action::Read);
    world.pause(old, 2_500);
    done(&mut world, 0, Action::Set(2));
    becomes_clean(&mut world);
    assert!(world.answer(asked).is_some());
}

#[test]
fn an_interrupted_backfill_goes_on_where_it_was() {
    let mut world = cluster(3, Config { log_min_entries: 4, log_max_entries: 6, ..sim_config() });
    for value in 0..30 {
        done(&mut world, value as usize % 8, Action::Set(value));
    }
    let target = replicas(&world)[1];
    world.wipe(target);
    for value in 30..50 {
        done(&mut world, value as usize % 8, Action::Set(value));
    }
    world.restart(target);
    let halfway = |world: &World| {
        let meta = world.nodes[&target].store.durable.meta.as_ref();
        meta.is_some_and(|meta| matches!(meta.info.last_backfill, Position::At(_)))
    };
    // Looked at closely: a backfill of eight objects is soon over.
    while !halfway(&world) {
        assert!(world.now < 60 * SECOND, "no backfill began: {}", world.state());
        world.run_until(world.now + MS / 2);
    }
    world.crash(target, 50);
    let reached =
        world.nodes[&target].store.durable.meta.as_ref().expect("a copy").info.last_backfill.clone();
    world.run_until(world.now + SECOND);
    world.restart(target);
    let resumed = |world: &World| {
        let pg = world.nodes[&target].pg.as_ref();
        pg.is_some_and(|pg| pg.state() == State::ReplicaActive)
    };
    while !resumed(&world) {
        assert!(world.now < 90 * SECOND, "{}", world.state());
        world.run_until(world.now + MS / 2);
    }
    let begins = world.nodes[&target].pg.as_ref().expect("a copy").info().last_backfill.clone();
    assert!(begins >= reached, "began again from {begins:?}, was at {reached:?}");
    becomes_clean(&mut world);
}

#[test]
fn a_replica_that_comes_back_with_divergent_writes_forgets_them() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    let old = primary(&world);
    for replica in replicas(&world) {
        world.isolate(replica);
    }
    // Logged and stored by the primary alone: not acknowledged.
    let alone = world.request(1, 0, Action::Append(2));
    let made = world.request(1, 5, Action::Set(3));
    world.run_until(world.now + 60 * MS);
    assert!(world.answer(alone).is_none() && world.answer(made).is_none());
    let divergent = world.nodes[&old].pg.as_ref().expect("a copy").log().head();
    world.isolate(old);
    let others: Vec<OsdId> = world.nodes.keys().copied().filter(|osd| *osd != old).collect();
    for osd in others {
        world.heal(osd);
    }
    // The requests are sent again to the new primary and happen there, once.
    assert!(
        world.run_while(10 * SECOND, |world| world.answer(alone).is_some() && world.answer(made).is_some())
    );
    world.heal(old);
    becomes_clean(&mut world);
    let log = world.nodes[&old].pg.as_ref().expect("a copy").log();
    assert!(log.get(divergent).is_none(), "{divergent} is still there");
    assert_eq!(done(&mut world, 0, Action::Read), [1, 2]);
}

/// Everyone loses power, and what was on its way is lost; cuts are healed. Ends in the moment in which they agree.
fn power_fails_until_they_agree(world: &mut World) {
    for osd in world.nodes.keys().copied().collect::<Vec<_>>() {
        world.crash(osd, 10);
        world.heal(osd);
        world.restart(osd);
    }
    while !world.state().starts_with("active") {
        assert!(world.now < 60 * SECOND, "{}", world.state());
        world.run_until(world.now + MS / 5);
    }
}

#[test]
fn a_change_that_reached_one_store_alone_dies_with_it() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    let old = primary(&world);
    for replica in replicas(&world) {
        world.isolate(replica);
    }
    let stored = |world: &World| world.nodes[&old].store.durable.meta.as_ref().map(|meta| meta.log.head());
    let before = stored(&world);
    world.request(1, 0, Action::Append(2));
    while stored(&world) == before {
        world.run_until(world.now + MS / 5);
    }
    power_fails_until_they_agree(&mut world);
    // That moment the one store is lost.
    world.wipe(old);
    // What was acknowledged has survivors and is served, without the lost store.
    let value = done(&mut world, 0, Action::Read);
    assert!(value == [1] || value == [1, 2], "{value:?}");
    becomes_clean(&mut world);
}

#[test]
fn a_change_that_two_of_three_stores_have_outlives_the_third() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    let third = replicas(&world)[1];
    world.isolate(third);
    let stored =
        |world: &World, osd: OsdId| world.nodes[&osd].store.durable.meta.as_ref().map(|meta| meta.log.head());
    let before = stored(&world, third);
    let others: Vec<OsdId> = world.nodes.keys().copied().filter(|osd| *osd != third).collect();
    world.request(1, 0, Action::Append(2));
    while others.iter().any(|osd| stored(&world, *osd) == before) {
        world.run_until(world.now + MS / 5);
    }
    power_fails_until_they_agree(&mut world);
    // That moment the store that has it not is lost.
    world.wipe(third);
    assert_eq!(done(&mut world, 0, Action::Read), [1, 2]);
    becomes_clean(&mut world);
}

/// One of `size` stores comes back as it was some changes ago, after the power was off everywhere.
fn a_store_forgets(size: usize, canary: Option<Canary>) -> Result<(), Violation> {
    let mut world = cluster_of(size, size, Config { canary, ..sim_config() });
    done(&mut world, 0, Action::Set(1));
    world.run_until(world.now + SECOND);
    let all: Vec<OsdId> = world.nodes.keys().copied().collect();
    let liar = primary(&world);
    let then = world.nodes[&liar].store.durable.clone();
    for value in 2..6 {
        done(&mut world, value as usize % 2, Action::Set(value));
    }
    for osd in &all {
        world.crash(*osd, 10);
    }
    let store = &mut world.nodes.get_mut(&liar).expect("a node").store;
    (store.durable, store.view) = (then.clone(), then);
    for osd in &all {
        world.restart(*osd);
    }
    world.settle()
}

#[test]
fn a_store_that_forgets_what_it_acknowledged_is_not_followed() {
    for size in [3, 2] {
        assert_eq!(a_store_forgets(size, None), Ok(()), "{size} copies");
        assert!(a_store_forgets(size, Some(Canary::TakeOldestLog)).is_err(), "{size} copies");
    }
    // Of two copies, what each has been told of the group's commits decides; of three, the other two.
    assert!(a_store_forgets(2, Some(Canary::IgnoreCommittedTo)).is_err());
    assert_eq!(a_store_forgets(3, Some(Canary::IgnoreCommittedTo)), Ok(()));
}

/// What becomes of the only other copy of an object of which one copy has taken back a change.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Rots,
    IsReplaced,
}

/// Objects that a copy misses and could make from changes it has taken back.
fn undone(world: &World, osd: OsdId) -> usize {
    let pg = world.nodes[&osd].pg.as_ref();
    pg.map_or(0, |pg| pg.missing().iter().filter(|(_, item)| !item.undone.is_empty()).count())
}

/// Of two copies, one has carried out changes of `count` objects (`change(object)`, acknowledged to nobody) when the power fails, and has
/// taken them back when the two agree: in that moment it ends. The world, who that is, who the other is, and the requests. `None` if with
/// this seed the copy wanted is not ahead.
fn taken_back(
    seed: u64,
    by_primary: bool,
    count: usize,
    config: Config,
    change: impl Fn(u64) -> Action,
) -> Option<(World, OsdId, OsdId, Vec<u64>)> {
    let mut world = cluster_from(seed, 2, 2, config);
    for object in 0..count {
        done(&mut world, object, Action::Set(object as u64 + 1));
    }
    world.run_until(world.now + SECOND);
    let head =
        |world: &World, osd: OsdId| world.nodes[&osd].store.durable.meta.as_ref().map(|meta| meta.log.head());
    let (first, second) = (primary(&world), replicas(&world)[0]);
    let (ahead, behind) = if by_primary { (first, second) } else { (second, first) };
    let before = head(&world, first);
    if by_primary {
        world.isolate(second);
    } else {
        world.nodes.get_mut(&first).expect("a node").store.is_stuck = true;
    }
    let requests = (0..count).map(|object| world.request(1, object, change(object as u64 + 1))).collect();
    let all = |world: &World| {
        let meta = world.nodes[&ahead].store.durable.meta.as_ref();
        meta.is_some_and(|meta| meta.log.head().version == before.unwrap_or_default().version + count as u64)
    };
    while !all(&world) {
        world.run_until(world.now + MS / 5);
        if world.authority.epoch() != world.nodes[&first].pg.as_ref()?.stats()?.epoch {
            return None;
        }
    }
    world.nodes.get_mut(&first).expect("a node").store.is_stuck = false;
    world.nodes.get_mut(&behind).expect("a node").store.pending.clear();
    power_fails_until_they_agree(&mut world);
    (undone(&world, ahead) == count).then_some((world, ahead, behind, requests))
}

fn made_again(by_primary: bool, fate: Fate, canary: Option<Canary>) -> Result<Vec<u64>, Violation> {
    let config = Config { canary, ..sim_config() };
    let mut tries = (0..40).filter_map(|seed| taken_back(seed, by_primary, 1, config, |_| Action::Append(9)));
    let (mut world, _, behind, requests) = tries.next().expect("a seed");
    match fate {
        Fate::Rots => world.rot(behind, 0),
        Fate::IsReplaced => world.wipe(behind),
    }
    world.settle()?;
    assert!(world.answer(requests[0]).is_some());
    Ok(done(&mut world, 0, Action::Read))
}

#[test]
fn what_was_taken_back_is_made_again_when_nothing_else_is_left() {
    for by_primary in [true, false] {
        for fate in [Fate::Rots, Fate::IsReplaced] {
            assert_eq!(made_again(by_primary, fate, None), Ok(vec![1, 9]), "{by_primary} {fate:?}");
            // The client sends it again: it must be known.
            let forgotten = made_again(by_primary, fate, Some(Canary::ForgetRedoneRequests));
            assert!(forgotten.is_err(), "{by_primary} {fate:?} {forgotten:?}");
        }
    }
}

#[test]
fn a_removal_that_was_taken_back_is_made_again() {
    for by_primary in [true, false] {
        let mut tries =
            (0..40).filter_map(|seed| taken_back(seed, by_primary, 1, sim_config(), |_| Action::Delete));
        let (mut world, _, behind, requests) = tries.next().expect("a seed");
        world.wipe(behind);
        becomes_clean(&mut world);
        assert_eq!(world.answer(requests[0]).as_deref(), Some(&b"ok"[..]));
        assert_eq!(done(&mut world, 0, Action::Append(5)), [5]);
    }
}

#[test]
fn what_was_taken_back_is_known_after_another_power_cut_and_made_again_after_two() {
    for seed in 0..12 {
        let tried = taken_back(seed, true, 3, sim_config(), Action::Append);
        let Some((mut world, ahead, behind, requests)) = tried else { continue };
        for object in 0..3 {
            world.rot(behind, object);
        }
        // In every moment of it.
        world.run_until(world.now + seed * 3 * MS);
        power_fails_until_they_agree(&mut world);
        world.run_until(world.now + seed * MS);
        power_fails_until_they_agree(&mut world);
        becomes_clean(&mut world);
        for (object, request) in requests.into_iter().enumerate() {
            assert!(world.answer(request).is_some());
            assert_eq!(done(&mut world, object, Action::Read), [object as u64 + 1; 2], "{seed} {ahead}");
        }
    }
}

/// The client gives up, as one does that was shut out; somebody reads; then nothing is left but what was taken back. What the read gave, and
/// what is there in the end.
fn seen_and_made_again(canary: Option<Canary>) -> (Vec<u64>, Vec<u64>) {
    let config = Config { canary, ..sim_config() };
    let mut tries = (0..40).filter_map(|seed| taken_back(seed, false, 1, config, |_| Action::Append(9)));
    let (mut world, ahead, behind, requests) = tries.next().expect("a seed");
    // It is not fetched for now.
    world.nodes.get_mut(&ahead).expect("a node").store.is_stuck = true;
    world.give_up(requests[0]);
    let read = world.request(1, 0, Action::Read);
    world.run_until(world.now + 2 * SECOND);
    let store = &mut world.nodes.get_mut(&ahead).expect("a node").store;
    store.is_stuck = false;
    store.pending.clear();
    world.rot(behind, 0);
    power_fails_until_they_agree(&mut world);
    becomes_clean(&mut world);
    let values = |bytes: Bytes| {
        bytes.chunks_exact(8).map(|v| u64::from_be_bytes(v.try_into().expect("eight"))).collect()
    };
    (world.answer(read).map(values).expect("answered"), done(&mut world, 0, Action::Read))
}

#[test]
fn what_was_seen_without_a_change_is_not_seen_with_it_later() {
    assert_eq!(seen_and_made_again(None), (vec![1, 9], vec![1, 9]));
    assert_eq!(seen_and_made_again(Some(Canary::ReadWhatMayBeRedone)), (vec![1], vec![1, 9]));
}

#[test]
fn what_cannot_be_read_is_fetched_from_another_copy() {
    let mut world = cluster(3, sim_config());
    for object in 0..3 {
        done(&mut world, object, Action::Set(object as u64 + 1));
    }
    let first = primary(&world);
    // The one that is asked first.
    let second = replicas(&world).into_iter().min().expect("a replica");
    world.rot(first, 0);
    assert_eq!(done(&mut world, 0, Action::Read), [1]);
    world.rot(first, 1);
    world.rot(second, 1);
    assert_eq!(done(&mut world, 1, Action::Read), [2]);
    world.rot(first, 2);
    assert_eq!(done(&mut world, 2, Action::Append(9)), [3, 9]);
    becomes_clean(&mut world);
    assert!(world.nodes.values().all(|node| node.store.rotten.is_empty()));
}

#[test]
fn what_cannot_be_read_while_a_change_is_under_way_is_fetched_after_it() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    let first = primary(&world);
    world.pause(replicas(&world)[0], 60);
    let before = world.request(1, 0, Action::Set(2));
    world.run_until(world.now + 10 * MS);
    world.rot(first, 0);
    // It does not look at the object, so it does not wait for the one before.
    let after = world.request(1, 0, Action::Set(3));
    world.run_until(world.now + 10 * MS);
    assert!(world.answer(before).is_none() && world.answer(after).is_none());
    becomes_clean(&mut world);
    let answers = [before, after].map(|request| world.answer(request).expect("answered"));
    assert_eq!(answers, ["ok", "ok"]);
    assert_eq!(done(&mut world, 0, Action::Read), [3]);
    assert!(world.nodes[&first].store.rotten.is_empty());
}

#[test]
fn a_copy_that_cannot_read_what_another_asks_for_knows_it_after_a_restart() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    let others = replicas(&world);
    world.crash(others[1], 50);
    done(&mut world, 0, Action::Set(2));
    let first = primary(&world);
    // Both that have it cannot read it: it is not made up from the older one.
    world.rot(first, 0);
    let waits = world.request(1, 0, Action::Read);
    world.rot(others[0], 0);
    world.run_until(world.now + 2 * SECOND);
    assert!(world.answer(waits).is_none());
    assert!(world.state().contains("recovery_unfound"), "{}", world.state());
    let lacks = |world: &World, osd: OsdId| {
        let meta = world.nodes[&osd].store.durable.meta.as_ref();
        meta.is_some_and(|meta| !meta.missing.is_empty())
    };
    assert!(lacks(&world, first) && lacks(&world, others[0]));
    world.crash(others[0], 50);
    world.restart(others[0]);
    world.run_until(world.now + 2 * SECOND);
    assert!(lacks(&world, others[0]) && world.answer(waits).is_none(), "{}", world.state());
}

#[test]
fn below_min_size_nothing_is_acknowledged_and_above_it_everything_goes_on() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    let gone = replicas(&world);
    for osd in &gone {
        world.crash(*osd, 50);
    }
    world.run_until(world.now + SECOND);
    assert_eq!(world.state(), "undersized+degraded+peered");
    let waits = world.request(1, 0, Action::Append(2));
    world.run_until(world.now + 5 * SECOND);
    assert!(world.answer(waits).is_none());
    world.restart(gone[0]);
    assert!(world.run_while(5 * SECOND, |world| world.answer(waits).is_some()), "{}", world.state());
    assert_eq!(world.state(), "active+undersized+degraded");
    becomes_clean(&mut world);
}

#[test]
fn an_acting_set_that_changes_under_a_write_applies_it_once() {
    let mut world = cluster(5, sim_config());
    let mut expected = Vec::new();
    for value in 0..12 {
        let request = world.request(1, 0, Action::Append(value));
        world.run_until(world.now + value * MS / 2);
        let leaving = world.authority.latest().up[value as usize % 3];
        world.authority.all_in();
        world.authority.set_out(leaving, true);
        world.publish_maps();
        assert!(world.run_while(10 * SECOND, |world| world.answer(request).is_some()), "{}", world.state());
        expected.push(value);
    }
    becomes_clean(&mut world);
    assert_eq!(done(&mut world, 0, Action::Read), expected);
}

#[test]
fn after_a_total_power_loss_everything_acknowledged_is_there() {
    let mut world = cluster(3, sim_config());
    world.start_clients();
    world.run_until(world.now + 3 * SECOND);
    let osds: Vec<OsdId> = world.nodes.keys().copied().collect();
    for osd in &osds {
        world.crash(*osd, 100);
    }
    world.run_until(world.now + SECOND);
    for osd in &osds {
        world.restart(*osd);
    }
    world.run_until(world.now + 2 * SECOND);
    becomes_clean(&mut world);
}

#[test]
fn an_interval_without_a_survivor_is_down_until_one_comes_back() {
    let mut world = cluster(4, sim_config());
    done(&mut world, 0, Action::Set(1));
    let members = world.authority.latest().acting.clone();
    for osd in &members {
        world.crash(*osd, 50);
    }
    world.run_until(world.now + SECOND);
    // A new member that knows nothing may not begin with an empty group.
    world.authority.set_out(members[0], true);
    world.publish_maps();
    world.run_until(world.now + 2 * SECOND);
    assert_eq!(world.state(), "down");
    world.restart(members[1]);
    assert!(world.run_while(10 * SECOND, |world| world.state().starts_with("active")), "{}", world.state());
    assert_eq!(done(&mut world, 0, Action::Read), [1]);
    becomes_clean(&mut world);
}

#[test]
fn min_size_raised_and_lowered_again_loses_nothing() {
    let mut world = cluster(3, sim_config());
    world.crash(replicas(&world)[0], 50);
    done(&mut world, 0, Action::Set(1));
    world.authority.set_min_size(3);
    world.publish_maps();
    world.run_until(world.now + SECOND);
    let waits = world.request(1, 0, Action::Append(2));
    world.run_until(world.now + 2 * SECOND);
    assert!(world.answer(waits).is_none());
    world.authority.set_min_size(2);
    world.publish_maps();
    assert!(world.run_while(5 * SECOND, |world| world.answer(waits).is_some()), "{}", world.state());
    becomes_clean(&mut world);
}

#[test]
fn an_up_set_that_is_too_small_keeps_who_is_needed_and_comes_to_rest() {
    let mut world = cluster(3, sim_config());
    done(&mut world, 0, Action::Set(1));
    world.authority.set_out(replicas(&world)[1], true);
    world.publish_maps();
    world.run_until(world.now + 2 * SECOND);
    let (map, rests_at) = (world.authority.latest().clone(), world.authority.epoch());
    assert_eq!((map.up.len(), map.acting.len()), (2, 3));
    assert_eq!(world.state(), "active+clean+remapped");
    // Nobody asks the monitors for anything any more.
    world.run_until(world.now + 5 * SECOND);
    assert_eq!(world.authority.epoch(), rests_at);
    world.authority.all_in();
    becomes_clean(&mut world);
    assert_eq!(world.authority.latest().acting, world.authority.latest().up);
}
