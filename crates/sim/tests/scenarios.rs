//! Stories of what goes wrong in a cluster, told one by one. Each is run with several seeds: the faults are the story's,
//! what lies between them is chance's.

use cairn_pg::Canary as Group;
use sim::canary::Canary;
use sim::network::{HostId, Weather};
use sim::plan::{Ambush, Deed, DiskFault, Phase, Planned, Proc, Side, Step, WhichMon};
use sim::run::run_story;
use sim::shape::{BALLAST_BYTES, DATA_BYTES, Host, LOG_BYTES, Shape};
use sim::timeline::Instant;
use sim::world::Figures;

/// Seeds of each story.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=6;

/// Three monitors on hosts 0 to 2, four OSDs on hosts 3 to 6, two clients on hosts 7 and 8; one group.
fn cluster() -> Shape {
    cluster_with(3)
}

/// As many monitors, on the first hosts.
fn cluster_with(mons: u16) -> Shape {
    let host = |n: u16| Host {
        id: HostId(n),
        rack: n % 3,
        mon: n < mons,
        osds: if n < 3 { Vec::new() } else { vec![osd(n - 3)] },
    };
    Shape {
        hosts: (0..7).map(host).collect(),
        mons,
        osds: 4,
        size: 3,
        min_size: 2,
        pg_num: 1,
        clients: 2,
        lockers: 0,
        readers: 0,
        objects: 6,
        blocks: 2,
        log_bytes: LOG_BYTES,
        data_bytes: DATA_BYTES,
        uneven_bytes: 0,
        ballast: 0,
        busy_ms: 25_000,
    }
}

fn osd(n: u16) -> cairn_types::OsdId {
    cairn_types::OsdId(n.into())
}

fn hosts(numbers: std::ops::Range<u16>) -> Vec<HostId> {
    numbers.map(HostId).collect()
}

/// What happens, by seconds.
struct Story {
    shape: Shape,
    plan: Vec<Planned>,
}

impl Story {
    fn of(shape: Shape) -> Story {
        Story { shape, plan: Vec::new() }
    }

    fn at(mut self, ms: u64, step: Step) -> Story {
        self.plan.push(Planned { at: Instant(0).plus_ms(ms), step });
        self
    }

    /// Nothing is lost, nothing is answered wrongly, and in the end all is well.
    fn ends_well(self) {
        let monitors = u64::from(self.shape.mons);
        self.ends_well_with(monitors);
    }

    /// And there are so many monitors.
    fn ends_well_with(self, monitors: u64) {
        self.ends_well_after(|figures| assert_eq!(figures.monitors, monitors));
    }

    fn ends_well_after(self, look: impl Fn(&Figures)) {
        self.ends_well_of(SEEDS, look);
    }

    fn ends_well_of(self, seeds: std::ops::RangeInclusive<u64>, look: impl Fn(&Figures)) {
        let steps = self.plan.len() as u64;
        for seed in seeds {
            let outcome = run_story(seed, self.shape.clone(), self.plan.clone(), None, None);
            if let Some(failure) = outcome.failure {
                panic!("seed {seed}: {failure}");
            }
            assert_eq!(outcome.figures.faults.values().sum::<u64>(), steps, "the whole story is told");
            look(&outcome.figures);
            assert!(outcome.figures.operations > 300, "{} operations", outcome.figures.operations);
        }
    }
}

/// Links on which all can happen to a datagram.
const SLOW: Weather = Weather {
    delay_min_us: 500,
    delay_max_us: 60_000,
    loss_permille: 100,
    duplication_permille: 50,
    reordering_permille: 200,
};

fn kill(process: Proc, down_ms: u64) -> Step {
    Step::Kill { process, down_ms }
}

#[test]
fn split_brain() {
    // Two monitors, two OSDs and a client on either side of the cut, but one monitor of three.
    let left = [hosts(0..1), hosts(3..5), hosts(7..8)].concat();
    let right = [hosts(1..3), hosts(5..7), hosts(8..9)].concat();
    let cut = Step::Cut { from: left, to: right, both_ways: true, for_ms: 9_000 };
    Story::of(cluster()).at(5_000, cut).ends_well();
}

#[test]
fn a_primary_that_clients_do_not_reach_and_monitors_do() {
    let cut = Step::CutPrimary { from: Side::Clients, for_ms: 8_000 };
    Story::of(cluster()).at(5_000, cut).ends_well();
}

#[test]
fn a_primary_that_monitors_do_not_reach_and_clients_do() {
    let cut = Step::CutPrimary { from: Side::Monitors, for_ms: 8_000 };
    Story::of(cluster()).at(5_000, cut).ends_well();
}

#[test]
fn a_primary_that_other_osds_do_not_reach_and_clients_do() {
    // It still has its clients, who still have it: only the lease tells it that it is over.
    let cut = Step::CutPrimary { from: Side::Osds, for_ms: 8_000 };
    Story::of(cluster()).at(5_000, cut).ends_well();
}

#[test]
fn an_interrupted_backfill() {
    // An empty disk is filled; who fills it dies, then who is filled.
    Story::of(Shape { objects: 12, blocks: 4, ..cluster() })
        .at(5_000, Step::Operator(Deed::Replace(osd(0))))
        .at(5_060, Step::KillPrimary { down_ms: 1_500 })
        .at(7_500, kill(Proc::Osd(osd(0)), 900))
        .at(9_000, Step::Operator(Deed::Out(osd(1))))
        .at(9_040, kill(Proc::Osd(osd(1)), 2_000))
        .ends_well();
}

#[test]
fn a_replica_that_comes_back_with_divergent_writes() {
    // The primary loses its replicas while writes are under way, then dies; they go on without it.
    Story::of(cluster())
        .at(5_000, Step::CutPrimary { from: Side::Osds, for_ms: 4_000 })
        .at(5_020, Step::KillPrimary { down_ms: 5_000 })
        .at(12_000, Step::CutPrimary { from: Side::Everyone, for_ms: 3_000 })
        .at(12_010, Step::KillPrimary { down_ms: 4_000 })
        .ends_well();
}

#[test]
fn death_of_the_leader_in_each_phase_of_paxos() {
    // An election is called for each time by the death before; changes of the map keep the log busy.
    let mut story = Story::of(cluster());
    let phases = [Phase::Accept, Phase::Prepare, Phase::Promise, Phase::Accepted];
    for (n, phase) in phases.into_iter().enumerate() {
        let ms = 4_000 + 4_000 * n as u64;
        story = story
            .at(ms, Step::KillLeader { phase, down_ms: 1_500 })
            .at(ms + 10, Step::Operator(Deed::Down(osd(n as u16))))
            .at(ms + 400, kill(Proc::Mon(n as u16 % 3), 1_000));
    }
    story.ends_well();
}

#[test]
fn min_size_broken_and_mended() {
    // Two of three copies go; what is left serves nobody until one is back.
    Story::of(Shape { osds: 3, hosts: cluster().hosts[..6].to_vec(), ..cluster() })
        .at(5_000, Step::KillPrimary { down_ms: 7_000 })
        .at(6_500, Step::KillPrimary { down_ms: 7_000 })
        .at(9_000, Step::Operator(Deed::MinSize(1)))
        .at(11_000, Step::Operator(Deed::MinSize(2)))
        .ends_well();
}

#[test]
fn total_power_loss() {
    Story::of(cluster())
        .at(6_000, Step::PowerOff { hosts: hosts(0..7), down_ms: 2_000 })
        .at(12_000, Step::PowerOff { hosts: hosts(0..7), down_ms: 2_000 })
        .ends_well();
}

#[test]
fn a_disk_that_lies_as_long_as_it_has_power() {
    // Its host does not lose power: what it said it has, it has.
    Story::of(cluster())
        .at(4_000, Step::Disk { osd: osd(0), fault: DiskFault::Lie })
        .at(9_000, kill(Proc::Osd(osd(1)), 3_000))
        .ends_well();
}

#[test]
fn disks_that_are_full() {
    // Three copies of everything on three disks, and more to write than they hold. One comes back and has to be filled up,
    // then everything loses power; what clients delete makes room again.
    let data_bytes = 6 << 20;
    let ballast = (2 * data_bytes / BALLAST_BYTES) as u32;
    Story::of(Shape {
        osds: 3,
        hosts: cluster().hosts[..6].to_vec(),
        data_bytes,
        ballast,
        busy_ms: 45_000,
        ..cluster()
    })
    .at(9_000, Step::KillPrimary { down_ms: 4_000 })
    .at(16_000, Step::PowerOff { hosts: hosts(0..6), down_ms: 1_500 })
    .at(20_000, kill(Proc::Osd(osd(1)), 1_500))
    .ends_well_after(|figures| {
        assert!(figures.refused_full > 20, "{} writes found no room", figures.refused_full);
    });
}

#[test]
fn a_primary_that_comes_back_to_copies_that_are_fuller_than_itself() {
    // The others fill up while it is down. It has room for what it has not recovered yet, and what its clients write finds none
    // in the stores of the others, one of which is slow to say so.
    let data_bytes = 6 << 20;
    let ballast = (2 * data_bytes / BALLAST_BYTES) as u32;
    for slow in 0..3 {
        let shape = Shape {
            osds: 3,
            hosts: cluster().hosts[..6].to_vec(),
            clients: 3,
            data_bytes,
            ballast,
            log_bytes: 8 * LOG_BYTES,
            busy_ms: 40_000,
            ..cluster()
        };
        Story::of(shape)
            .at(6_000, Step::KillPrimary { down_ms: 10_000 })
            .at(15_500, Step::Disk { osd: osd(slow), fault: DiskFault::Slow(50_000) })
            .at(19_000, Step::KillPrimary { down_ms: 8_000 })
            .at(29_000, kill(Proc::Osd(osd((slow + 1) % 3)), 6_000))
            .ends_well_of(1..=8, |figures| {
                assert!(figures.refused_full > 20, "{} writes found no room", figures.refused_full);
            });
    }
}

/// One of three copies forgets what it had said it has.
fn a_lie_that_comes_out() -> Story {
    Story::of(cluster())
        .at(4_000, Step::Disk { osd: osd(0), fault: DiskFault::Lie })
        .at(10_000, Step::PowerOff { hosts: hosts(3..4), down_ms: 1_500 })
}

#[test]
fn a_disk_that_lies_across_a_power_cut() {
    a_lie_that_comes_out().ends_well_of(1..=20, |_| {});
}

#[test]
fn a_group_that_follows_the_oldest_log_is_found_by_a_disk_that_lies() {
    let Story { shape, plan } = a_lie_that_comes_out();
    let canary = Some(Canary::Pg(Group::TakeOldestLog));
    let fails = |seed: &u64| run_story(*seed, shape.clone(), plan.clone(), canary, None).failure.is_some();
    assert!((1..=20).any(|seed| fails(&seed)), "what has been lost is not seen");
}

#[test]
fn a_disk_that_rots() {
    let mut story = Story::of(cluster());
    for n in 0..12 {
        story = story.at(5_000 + 1_000 * n, Step::Disk { osd: osd(2), fault: DiskFault::BitRot });
    }
    story.at(18_000, Step::Operator(Deed::Replace(osd(2)))).ends_well();
}

#[test]
fn a_disk_that_fails_is_replaced() {
    Story::of(cluster())
        .at(5_000, Step::Disk { osd: osd(1), fault: DiskFault::WriteError })
        .at(8_000, Step::Operator(Deed::Replace(osd(1))))
        .ends_well();
}

#[test]
fn an_osd_that_flaps() {
    let mut story = Story::of(cluster());
    for n in 0..8 {
        story = story.at(5_000 + 1_500 * n, kill(Proc::Osd(osd(0)), 700));
    }
    story.ends_well();
}

#[test]
fn an_acting_set_that_changes_under_a_write() {
    let mut story = Story::of(cluster());
    for n in 0..10 {
        let deed = if n % 2 == 0 { Deed::Out(osd(n / 2 % 4)) } else { Deed::In(osd(n / 2 % 4)) };
        story = story.at(5_000 + 900 * u64::from(n), Step::Operator(deed));
    }
    story.ends_well();
}

#[test]
fn a_client_that_is_shut_out_while_it_writes() {
    // Its writes crawl through a clogged link and arrive after the next one has taken over.
    Story::of(cluster())
        .at(5_000, Step::Clog { host: HostId(7), for_ms: 2_500 })
        .at(5_500, Step::Operator(Deed::Block(0)))
        .at(9_000, Step::KillPrimary { down_ms: 1_000 })
        .at(12_000, Step::Operator(Deed::Block(1)))
        .ends_well();
}

#[test]
fn clients_that_are_shut_out_while_their_primary_has_no_lease() {
    // It hears of it from the monitors and cannot ask its replicas: writes that wait there are refused once, not for ever.
    Story::of(cluster())
        .at(5_000, Step::CutPrimary { from: Side::Osds, for_ms: 3_000 })
        .at(5_300, Step::Operator(Deed::Block(0)))
        .at(5_350, Step::Operator(Deed::Block(1)))
        .ends_well();
}

#[test]
fn links_that_are_rough_everywhere() {
    let mut story = Story::of(cluster());
    for host in hosts(0..7) {
        story = story.at(4_000, Step::Rough { host, weather: SLOW, for_ms: 12_000 });
    }
    story.ends_well();
}

#[test]
fn a_leader_whose_clock_is_ahead_lets_nobody_in() {
    // A client is shut out for a day, and the next leader's clock says that it is over.
    let mut story = Story::of(cluster()).at(5_000, Step::Operator(Deed::Block(0)));
    for host in hosts(0..3) {
        story = story.at(7_000, Step::ClockJump { host, by_ms: 90_000_000 });
    }
    story.at(8_000, Step::PauseLeader { for_ms: 4_000 }).ends_well();
}

fn add(host: u16) -> Step {
    Step::Operator(Deed::AddMon(HostId(host)))
}

fn remove(which: WhichMon) -> Step {
    Step::Operator(Deed::RemoveMon(which))
}

#[test]
fn one_monitor_becomes_five() {
    // Each new one is needed for a majority before it has the state, and one of them dies while it fetches it.
    Story::of(cluster_with(1))
        .at(5_000, add(1))
        .at(6_500, add(2))
        .at(6_502, Step::KillLeader { phase: Phase::Accepted, down_ms: 800 })
        .at(8_500, add(3))
        .at(8_510, kill(Proc::Mon(3), 1_000))
        .at(11_000, add(4))
        .at(11_005, Step::PowerOff { hosts: hosts(0..7), down_ms: 500 })
        .ends_well_with(5);
}

#[test]
fn five_monitors_become_one_and_the_leader_goes_each_time() {
    let mut story = Story::of(cluster_with(5));
    for n in 0..4 {
        story = story
            .at(5_000 + 3_000 * n, remove(WhichMon::Leader))
            .at(5_001 + 3_000 * n, Step::Operator(Deed::Configure(5)));
    }
    story.ends_well_with(1);
}

#[test]
fn the_second_of_two_monitors_goes() {
    // Both have to agree on it: the one that goes must not be ended before they have.
    Story::of(cluster_with(2))
        .at(5_000, remove(WhichMon::Nth(1)))
        .at(5_001, Step::Rough { host: HostId(1), weather: SLOW, for_ms: 4_000 })
        .ends_well_with(1);
}

#[test]
fn a_monitor_starts_again_while_another_one_is_being_removed() {
    // It was made before the other one was there, and needs its voice to agree that it goes: where it is must not have been
    // forgotten with the map that had it.
    for down_ms in [1, 2, 3, 5, 8, 13] {
        Story::of(cluster_with(1))
            .at(5_000, add(1))
            .at(9_000, remove(WhichMon::Nth(1)))
            .at(9_000 + down_ms, kill(Proc::Mon(0), 400))
            .ends_well_with(1);
    }
}

#[test]
fn a_monitor_comes_back_to_others_that_it_has_never_heard_of() {
    // All that it knew were replaced while it was down, and it counts still.
    Story::of(Shape { busy_ms: 40_000, ..cluster() })
        .at(5_000, kill(Proc::Mon(0), 25_000))
        .at(6_000, add(3))
        .at(9_000, remove(WhichMon::Nth(1)))
        .at(12_000, add(4))
        .at(15_000, remove(WhichMon::Nth(1)))
        .ends_well();
}

#[test]
fn a_monitor_that_joins_is_down_and_another_is_asked_for() {
    // It has its number and no process; the one that is asked for after it has to wait.
    Story::of(cluster_with(1))
        .at(5_000, add(1))
        .at(5_001, Step::PowerOff { hosts: hosts(1..2), down_ms: 6_000 })
        .at(5_010, add(2))
        .ends_well_with(3);
}

#[test]
fn monitors_are_replaced_one_by_one_while_another_is_down() {
    Story::of(cluster())
        .at(5_000, kill(Proc::Mon(0), 9_000))
        .at(5_500, add(3))
        .at(7_000, remove(WhichMon::Nth(0)))
        .at(9_000, add(4))
        .at(10_000, remove(WhichMon::Leader))
        .at(11_000, Step::Operator(Deed::Down(osd(1))))
        .at(13_000, add(0))
        .at(15_000, remove(WhichMon::Nth(0)))
        .ends_well();
}

#[test]
fn a_leader_dies_with_what_it_has_decided() {
    let mut story = Story::of(cluster());
    for n in 0..4 {
        let ambush = Ambush::Untold { followers: n % 2 == 0, down_ms: 2_500 };
        story = story
            .at(5_000 + 4_000 * n, Step::Ambush(ambush))
            .at(5_001 + 4_000 * n, Step::Operator(Deed::Configure(2)));
    }
    story.ends_well();
}

#[test]
fn what_a_leader_proposed_arrives_when_another_has_decided() {
    let mut story = Story::of(cluster_with(5));
    for n in 0..3 {
        let ambush = Ambush::Late { restart: n == 1, down_ms: 3_000 };
        story = story
            .at(5_000 + 6_000 * n, Step::Ambush(ambush))
            .at(5_001 + 6_000 * n, Step::Operator(Deed::Configure(2)));
    }
    story.ends_well();
}

#[test]
fn a_leader_and_one_other_of_five_are_cut_off_and_hear_each_other_twice() {
    let mut story = Story::of(cluster_with(5));
    for n in 0..3 {
        let ambush = Ambush::Minority { for_ms: 3_000 };
        story = story
            .at(5_000 + 6_000 * n, Step::Ambush(ambush))
            .at(5_001 + 6_000 * n, Step::Operator(Deed::Configure(2)));
    }
    story.ends_well();
}
