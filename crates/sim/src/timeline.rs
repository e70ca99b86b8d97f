//! Virtual time: what happens next.

use std::collections::BTreeMap;

/// Microseconds since the start of the run, by nobody's clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// `us` microseconds later.
    pub fn plus_us(self, us: u64) -> Instant {
        Instant(self.0.saturating_add(us))
    }

    /// `ms` milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Instant {
        self.plus_us(ms.saturating_mul(1_000))
    }

    /// Microseconds since `earlier`, 0 when it is later.
    pub fn since_us(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>4}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Names something that is to happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(Instant, u64);

/// What is to happen, by time; at one time in the order it was put in.
#[derive(Debug)]
pub struct Timeline<E> {
    now: Instant,
    events: BTreeMap<Ticket, E>,
    sequence: u64,
}

impl<E> Default for Timeline<E> {
    fn default() -> Self {
        Timeline { now: Instant(0), events: BTreeMap::new(), sequence: 0 }
    }
}

impl<E> Timeline<E> {
    /// The time of the event that was taken last.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Lets `event` happen at `at`, or now if that has passed.
    pub fn at(&mut self, at: Instant, event: E) -> Ticket {
        self.sequence += 1;
        let ticket = Ticket(at.max(self.now), self.sequence);
        self.events.insert(ticket, event);
        ticket
    }

    /// Lets `event` happen in `us` microseconds.
    pub fn after_us(&mut self, us: u64, event: E) -> Ticket {
        self.at(self.now.plus_us(us), event)
    }

    /// Lets it not happen; `None` when it has happened.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<E> {
        self.events.remove(&ticket)
    }

    /// Goes on to the next event; `None` when nothing is to happen any more.
    #[allow(clippy::should_implement_trait, reason = "it moves time, which an iterator does not suggest")]
    pub fn next(&mut self) -> Option<E> {
        let (Ticket(at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Instant> {
        self.events.first_key_value().map(|(Ticket(at, _), _)| *at)
    }

    /// How many are to happen.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether nothing is to happen.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_in_order() {
        let mut line = Timeline::default();
        line.at(Instant(20), "c");
        line.at(Instant(10), "a");
        let gone = line.at(Instant(15), "never");
        line.at(Instant(10), "b");
        assert_eq!(line.cancel(gone), Some("never"));
        assert_eq!((line.next(), line.next()), (Some("a"), Some("b")));
        line.at(Instant(5), "late");
        assert_eq!((line.next(), line.now()), (Some("late"), Instant(10)));
        assert_eq!((line.next(), line.next()), (Some("c"), None));
    }
}
