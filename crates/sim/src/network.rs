//! The network between hosts: delay, loss, duplication, reordering, cuts, slow links, clogging.
//!
//! Two kinds of traffic, as real processes have it. A **datagram** may be lost, doubled or overtaken: what monitors say
//! to each other need not arrive. A **stream** is a connection: bytes arrive in order and once, or the connection breaks
//! and both ends hear of it; a cut link holds it up until the side that waits gives up.

use crate::rng::Rng;
use crate::timeline::Instant;
use std::collections::BTreeMap;

/// A machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostId(pub u16);

/// One direction of a connection. Numbers are never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// How a link behaves, in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weather {
    /// Least delay.
    pub delay_min_us: u64,
    /// Largest usual delay.
    pub delay_max_us: u64,
    /// Datagrams that are lost, of 1,000. A stream's share of these is delayed by a retransmission instead.
    pub loss_permille: u64,
    /// Datagrams that arrive twice, of 1,000.
    pub duplication_permille: u64,
    /// Datagrams that are overtaken, of 1,000.
    pub reordering_permille: u64,
}

impl Weather {
    /// A switch between hosts of one rack.
    pub const CALM: Weather = Weather {
        delay_min_us: 40,
        delay_max_us: 250,
        loss_permille: 0,
        duplication_permille: 0,
        reordering_permille: 0,
    };
}

/// How long a lost segment of a stream takes to be sent again.
const RETRANSMISSION_US: u64 = 200_000;
/// How long an overtaken datagram is late.
const OVERTAKEN_US: u64 = 20_000;

/// What becomes of something that is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives, at each of these times.
    Arrives(Vec<Instant>),
    /// It is gone.
    Lost,
    /// The link is cut: it arrives when the link is whole again, if its stream lives so long.
    Held,
}

/// The state of all links.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    calm: Weather,
    weather: BTreeMap<(HostId, HostId), Weather>,
    /// Cuts lie over each other; a link is whole when the last is gone.
    cuts: BTreeMap<(HostId, HostId), u32>,
    /// Nothing arrives on a clogged link before then; then all at once.
    clogged: BTreeMap<(HostId, HostId), Instant>,
    /// Streams keep their order.
    last_arrival: BTreeMap<StreamId, Instant>,
    sent: u64,
    lost: u64,
}

impl Network {
    /// All links calm.
    pub fn new(rng: Rng, calm: Weather) -> Self {
        Network {
            rng,
            calm,
            weather: BTreeMap::new(),
            cuts: BTreeMap::new(),
            clogged: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            sent: 0,
            lost: 0,
        }
    }

    /// Sets the weather of one direction; `None` makes it calm again.
    pub fn set_weather(&mut self, from: HostId, to: HostId, weather: Option<Weather>) {
        match weather {
            Some(weather) => self.weather.insert((from, to), weather),
            None => self.weather.remove(&(from, to)),
        };
    }

    /// Cuts one direction, or takes one cut away.
    pub fn cut(&mut self, from: HostId, to: HostId, cut: bool) {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts = if cut { *cuts + 1 } else { cuts.saturating_sub(1) };
        if *cuts == 0 {
            self.cuts.remove(&(from, to));
        }
    }

    /// Whether one direction is cut.
    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        from != to && self.cuts.contains_key(&(from, to))
    }

    /// Lets nothing arrive on one direction before `until`.
    pub fn clog(&mut self, from: HostId, to: HostId, until: Instant) {
        let entry = self.clogged.entry((from, to)).or_default();
        *entry = until.max(*entry);
    }

    /// Makes every link whole and calm.
    pub fn heal(&mut self) {
        self.weather.clear();
        self.cuts.clear();
        self.clogged.clear();
    }

    /// Sends a datagram.
    pub fn datagram(&mut self, now: Instant, from: HostId, to: HostId) -> Fate {
        self.sent += 1;
        let weather = self.weather_of(from, to);
        if self.is_cut(from, to) || self.rng.permille(weather.loss_permille) {
            self.lost += 1;
            return Fate::Lost;
        }
        let mut times = vec![self.arrival(now, from, to, weather)];
        if self.rng.permille(weather.reordering_permille) {
            times[0] = times[0].plus_us(self.rng.below(OVERTAKEN_US));
        }
        if self.rng.permille(weather.duplication_permille) {
            let again = self.arrival(now, from, to, weather).plus_us(self.rng.below(OVERTAKEN_US));
            times.push(again);
        }
        Fate::Arrives(times)
    }

    /// Sends a piece of a stream: once and in order, or held while the link is cut.
    pub fn stream(&mut self, now: Instant, from: HostId, to: HostId, stream: StreamId) -> Fate {
        self.sent += 1;
        if self.is_cut(from, to) {
            return Fate::Held;
        }
        let weather = self.weather_of(from, to);
        let mut at = self.arrival(now, from, to, weather);
        if self.rng.permille(weather.loss_permille) {
            at = at.plus_us(RETRANSMISSION_US);
        }
        let last = self.last_arrival.entry(stream).or_default();
        *last = at.max(last.plus_us(1));
        Fate::Arrives(vec![*last])
    }

    /// A stream is over.
    pub fn forget(&mut self, stream: StreamId) {
        self.last_arrival.remove(&stream);
    }

    /// Messages sent and datagrams lost so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.lost)
    }

    fn weather_of(&self, from: HostId, to: HostId) -> Weather {
        self.weather.get(&(from, to)).copied().unwrap_or(self.calm)
    }

    fn arrival(&mut self, now: Instant, from: HostId, to: HostId, weather: Weather) -> Instant {
        if from == to {
            return now.plus_us(self.rng.between(5, 20)); // loopback
        }
        let at = now.plus_us(self.rng.between(weather.delay_min_us, weather.delay_max_us));
        match self.clogged.get(&(from, to)) {
            Some(&until) if at < until => until.plus_us(self.rng.below(100)),
            _ => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    fn network(weather: Weather) -> Network {
        let mut network = Network::new(Rng::new(3), Weather::CALM);
        network.set_weather(A, B, Some(weather));
        network
    }

    #[test]
    fn a_stream_keeps_its_order_whatever_the_weather() {
        let rough = Weather { delay_min_us: 1, delay_max_us: 50_000, loss_permille: 300, ..Weather::CALM };
        let mut network = network(rough);
        let mut last = Instant(0);
        for n in 0..1_000 {
            match network.stream(Instant(n), A, B, StreamId(1)) {
                Fate::Arrives(times) => {
                    assert!(times.len() == 1 && times[0] > last);
                    last = times[0];
                }
                fate => panic!("{fate:?}"),
            }
        }
    }

    #[test]
    fn datagrams_are_lost_doubled_and_overtaken() {
        let rough = Weather {
            loss_permille: 200,
            duplication_permille: 200,
            reordering_permille: 200,
            ..Weather::CALM
        };
        let mut network = network(rough);
        let fates: Vec<_> = (0..1_000).map(|n| network.datagram(Instant(n), A, B)).collect();
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        let times = |fate: &Fate| match fate {
            Fate::Arrives(times) => times.clone(),
            _ => Vec::new(),
        };
        let doubled = fates.iter().filter(|fate| times(fate).len() == 2).count();
        let arrivals: Vec<_> = fates.iter().flat_map(times).collect();
        assert!((100..300).contains(&lost) && (80..250).contains(&doubled), "{lost} lost, {doubled} doubled");
        assert!(!arrivals.is_sorted());
    }

    #[test]
    fn a_cut_has_one_direction_and_cuts_lie_over_each_other() {
        let mut network = network(Weather::CALM);
        network.cut(A, B, true);
        network.cut(A, B, true);
        network.cut(A, B, false);
        assert_eq!(network.datagram(Instant(0), A, B), Fate::Lost);
        assert_eq!(network.stream(Instant(0), A, B, StreamId(1)), Fate::Held);
        assert!(matches!(network.stream(Instant(0), B, A, StreamId(2)), Fate::Arrives(_)));
        network.heal();
        assert!(matches!(network.stream(Instant(0), A, B, StreamId(1)), Fate::Arrives(_)));
    }

    #[test]
    fn a_clogged_link_lets_all_through_at_once() {
        let mut network = network(Weather::CALM);
        network.clog(A, B, Instant(1_000_000));
        for n in 0..10 {
            let Fate::Arrives(times) = network.datagram(Instant(n * 1_000), A, B) else { panic!() };
            assert!((1_000_000..1_000_100).contains(&times[0].0));
        }
    }
}
