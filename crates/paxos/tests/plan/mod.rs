//! The random schedule: what clients, operators and misfortune do in one seed.

use std::time::Duration;

use cairn_paxos::{Canary, Change, Event, MonId, Outcome, Params, ProposalId, Slot, Timing};

use crate::harness::rng::Rng;
use crate::harness::world::{MS, Setup, Weather, World};

/// Virtual time after the last fault within which everything must be whole again: a few elections,
/// a catch-up by full state and a proposal's deadline.
const LIVENESS_MS: u64 = 15_000;

struct Plan {
    rng: Rng,
    world: World,
    writes: Vec<ProposalId>,
    highest: u32,
}

impl Plan {
    fn new(seed: u64, canary: Option<Canary>) -> Self {
        let mut rng = Rng(seed ^ 0x5eed_0000_0000_0000);
        let founders = [1, 1, 2, 3, 3, 3, 3, 4, 5, 5][rng.below(10) as usize];
        let drift_ppm = [10_000, 90_000, 90_000][rng.below(3) as usize];
        // Impatient monitors change leaders all the time, and messages of old ones are still under way.
        let beat = Duration::from_millis([100, 100, 20, 10][rng.below(4) as usize]);
        // With an election timeout just above the lease nothing but the lease keeps leaders apart.
        let election = beat * 5 + if rng.permille(500) { Duration::from_millis(1) } else { beat };
        let timing = Timing {
            heartbeat: beat,
            lease: beat * 5,
            election,
            rank_step: beat / 2,
            jitter: beat * 3 / 2,
            drift_ppm,
            learn_retry: beat * 2,
            forward_retry: beat * 3,
            proposal: Duration::from_secs(3),
            ..Timing::default()
        };
        let setup = Setup {
            seed,
            founders,
            params: Params {
                alpha: [1, 2, 4, 16][rng.below(4) as usize],
                window: [12, 40, 200][rng.below(3) as usize],
            },
            timing,
            canary,
            drift: rng.permille(700),
            group_commit: rng.permille(300),
            app_lags: rng.permille(300),
            padding: if rng.permille(30) { 300 << 10 } else { 0 },
        };
        Plan { rng, world: World::new(setup), writes: Vec::new(), highest: founders }
    }

    fn some_host(&mut self) -> MonId {
        let all: Vec<MonId> = self.world.hosts.keys().copied().collect();
        self.rng.pick(&all).expect("a host")
    }

    fn leader_or_some(&mut self) -> MonId {
        if self.rng.permille(500) {
            let leaders: Vec<MonId> = self
                .world
                .hosts
                .values()
                .filter(|host| host.node.as_ref().is_some_and(|node| node.leading().is_some()))
                .map(|host| host.id)
                .collect();
            if let Some(leader) = self.rng.pick(&leaders) {
                return leader;
            }
        }
        self.some_host()
    }

    fn weather(&mut self) {
        let harsh = self.rng.permille(500);
        self.world.weather = Weather {
            loss_permille: if harsh { self.rng.below(250) } else { self.rng.below(20) },
            dup_permille: self.rng.below(200),
            slow_permille: if harsh { self.rng.below(400) } else { self.rng.below(30) },
            slow_us: [5 * MS, 50 * MS, 700 * MS, 2000 * MS][self.rng.below(4) as usize],
            flush_us: [1, 10, 150][self.rng.below(3) as usize] * MS,
        };
    }

    fn clients(&mut self) {
        for _ in 0..self.rng.below(4) {
            let at = self.some_host();
            if self.writes.len() > 3 && self.rng.permille(100) {
                // Somebody who does not know the outcome asks again, perhaps at another monitor.
                let again = self.writes[self.rng.below(self.writes.len() as u64) as usize];
                if let Some((_, _, born, request)) = self.world.proposals.get(&again).cloned()
                    && !self.world.owed(again)
                    && !matches!(self.world.check.outcome_of(again), Some(Outcome::Lost))
                {
                    self.world.propose_as(at, again, born, request);
                }
                continue;
            }
            let id = self.world.write(at);
            self.writes.push(id);
        }
    }

    fn fault(&mut self) {
        match self.rng.below(29) {
            0..=2 => {
                let mon = self.leader_or_some();
                self.world.crash(mon);
            }
            3..=5 => {
                let mon = self.some_host();
                self.world.start(mon);
            }
            6 => {
                let mon = self.leader_or_some();
                self.world.pause(mon);
            }
            7 | 8 => {
                let mon = self.some_host();
                self.world.resume(mon);
            }
            9 => {
                let (a, b) = (self.leader_or_some(), self.some_host());
                self.world.cut_one_way(a, b);
            }
            10 => {
                let (a, b) = (self.leader_or_some(), self.some_host());
                self.world.cut_both(a, b);
            }
            11 => {
                let mon = self.leader_or_some();
                self.world.isolate(mon);
            }
            12 => {
                // Everyone hears only one.
                let hub = self.some_host();
                let all: Vec<MonId> = self.world.hosts.keys().copied().filter(|mon| *mon != hub).collect();
                for a in &all {
                    for b in &all {
                        if a < b {
                            self.world.cut_both(*a, *b);
                        }
                    }
                }
            }
            13..=15 => self.world.heal(),
            16 => self.weather(),
            17 | 18 => self.trim(),
            19 => self.membership(),
            20 => {
                // A blink: down and up again, at once, with what was on disk.
                let mon = self.some_host();
                self.world.crash(mon);
                self.world.start(mon);
            }
            21 => {
                // The leader is cut off and everyone else blinks.
                let leader = self.leader_or_some();
                self.world.isolate(leader);
                for mon in self.world.hosts.keys().copied().filter(|mon| *mon != leader).collect::<Vec<_>>() {
                    self.world.crash(mon);
                    self.world.start(mon);
                }
            }
            22 => {
                // The leader can speak and not hear, or hear and not speak.
                let leader = self.leader_or_some();
                let speaks = self.rng.permille(500);
                for mon in self.world.hosts.keys().copied().filter(|mon| *mon != leader).collect::<Vec<_>>() {
                    let (from, to) = if speaks { (mon, leader) } else { (leader, mon) };
                    self.world.cut_one_way(from, to);
                }
            }
            23 | 24 => self.deserted_leader(),
            25 | 26 => self.unheard_leader(),
            27 => {
                let mon = self.leader_or_some();
                self.world.handle(mon, Event::Resign);
            }
            _ => {
                let mon = self.some_host();
                if self.rng.permille(200) {
                    self.world.handle(mon, Event::StorageFailed);
                    self.world.crash(mon);
                }
            }
        }
    }

    fn others(&mut self, than: MonId) -> Vec<MonId> {
        let mut others: Vec<MonId> = self.world.hosts.keys().copied().filter(|mon| *mon != than).collect();
        for at in (1..others.len()).rev() {
            others.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        others
    }

    /// Some lose the leader and want another; a little later the rest lose it, too, perhaps with a
    /// blink, while the leader still reads by its lease.
    fn deserted_leader(&mut self) {
        let leader = self.leader_or_some();
        let others = self.others(leader);
        let (early, late) = others.split_at(others.len() / 2);
        let election_us = self.world.setup.timing.election.as_micros() as u64;
        for mon in early {
            self.world.cut_both(leader, *mon);
        }
        let wait = self.rng.below(2 * election_us) + election_us / 2;
        self.world.run_until(self.world.now_us + wait);
        let blink = self.rng.permille(500);
        for mon in late {
            self.world.cut_both(leader, *mon);
            if blink {
                self.world.crash(*mon);
                self.world.start(*mon);
            }
        }
        for mon in &others {
            let id = self.world.write(*mon);
            self.writes.push(id);
        }
        self.world.run_until(self.world.now_us + election_us);
    }

    /// The leader accepts commands that few or none of the others hear of, and then is lost or comes back.
    fn unheard_leader(&mut self) {
        let leader = self.leader_or_some();
        let mut others = self.others(leader);
        if self.rng.permille(500) {
            others.pop();
        }
        for mon in &others {
            self.world.cut_one_way(leader, *mon);
        }
        for _ in 0..self.rng.range(1, 4) {
            let id = self.world.write(leader);
            self.writes.push(id);
        }
        let soon = self.rng.below(5);
        self.world.run_ms(soon);
        if self.rng.permille(300) {
            self.world.crash(leader);
        }
        let election_us = self.world.setup.timing.election.as_micros() as u64;
        let wait = self.rng.below(3 * election_us);
        self.world.run_until(self.world.now_us + wait);
        if self.rng.permille(700) {
            self.world.heal();
        }
    }

    fn trim(&mut self) {
        let mon = self.some_host();
        let durable = self.world.hosts[&mon].disk_app.slot;
        let keep = self.rng.below(12);
        self.world.handle(mon, Event::Trim { upto: Slot(durable.0.saturating_sub(keep)) });
    }

    fn membership(&mut self) {
        let at = self.leader_or_some();
        let members = self.world.check.newest().members.clone();
        if (self.rng.permille(500) && members.len() < 5 && self.highest < 9) || members.len() == 1 {
            if self.highest >= 9 {
                return;
            }
            self.highest += 1;
            let new = MonId(self.highest);
            self.world.add_joining(new);
            self.world.change(at, Change::Add(new));
        } else {
            let members: Vec<MonId> = members.into_iter().collect();
            let gone = self.rng.pick(&members).expect("a member");
            self.world.change(at, Change::Remove(gone));
        }
    }

    /// Ends all faults and demands that the cluster becomes whole.
    fn mend(&mut self) {
        self.world.heal();
        self.world.weather = Weather::default();
        for mon in self.world.hosts.keys().copied().collect::<Vec<_>>() {
            self.world.resume(mon);
            self.world.start(mon);
        }
        let whole = |world: &World| world.settled() && !world.proposals.keys().any(|id| world.owed(*id));
        // Twice: a change of membership proposed during the faults may still come through after the
        // first time.
        let settled = self.world.run_until_true(LIVENESS_MS, whole) && {
            self.world.run_ms(2_000);
            self.world.run_until_true(LIVENESS_MS, whole)
        };
        if !settled {
            let standing: Vec<String> = self
                .world
                .hosts
                .values()
                .map(|host| match &host.node {
                    Some(node) => format!(
                        "{} {:?} {:?} decided {} promised {} leader {:?}",
                        host.id,
                        node.standing(),
                        node.role(),
                        node.decided(),
                        node.promised(),
                        node.leader()
                    ),
                    None => format!("{} stopped", host.id),
                })
                .collect();
            self.world.must(Err(format!("not settled {LIVENESS_MS} ms after the last fault: {standing:#?}")));
        }
        let members = self.world.check.newest().members.clone();
        let mut done = true;
        for mon in members {
            // In a short window a write can be lost to the backlog; then, as its caller would, again.
            done &= (0..5).any(|_| {
                let id = self.world.write(mon);
                self.world.run_until_true(2_000, |world| world.check.outcome_of(id).is_some());
                self.world.decided(id)
            });
        }
        if !done {
            self.world.must(Err("a write after the last fault is not decided".into()));
        }
    }

    fn run(mut self) -> World {
        self.weather();
        let faults = self.rng.range(20, 80);
        self.world.run_ms(1500);
        for _ in 0..faults {
            if self.world.failure.is_some() {
                return self.world;
            }
            self.clients();
            let step = if self.rng.permille(300) { self.rng.below(600) } else { self.rng.below(60) };
            self.world.run_ms(step);
            if self.rng.permille(600) {
                self.fault();
            }
        }
        if self.world.failure.is_none() {
            self.mend();
        }
        self.world
    }
}

/// One seed, from start to verdict.
pub fn run(seed: u64, canary: Option<Canary>, trace: bool) -> World {
    let mut plan = Plan::new(seed, canary);
    if trace {
        plan.world.trace = Some(Vec::new());
    }
    plan.run()
}
