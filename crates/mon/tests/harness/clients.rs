//! Clients that take snapshot numbers: a command that must count once, one after the other, sent again to
//! another monitor when no answer comes.

use super::Checker;
use cairn_mon::monitor::{Answer, Call, Query, Reading};
use cairn_mon::service::{Once, PoolCommand, Reply, Request};
use cairn_types::SnapId;
use cairn_wire::RequestId;

/// How a client sends again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// Under the same id, as it should.
    SameId,
    /// Under a new id: the mistake that the checker must notice.
    NewId,
}

pub const POOL: &str = "vms";

pub struct Client {
    pub number: u64,
    habit: Habit,
    tid: u64,
    /// A version of the state it knows.
    version: u64,
    pub waiting: Option<Waiting>,
    /// Commands begun.
    pub begun: u64,
    pub wanted: u64,
    /// The numbers it was given.
    pub snaps: Vec<SnapId>,
    pub reads: u64,
}

pub struct Waiting {
    pub call: Call,
    /// The latest attempt; answers to earlier ones are gone with their connection.
    pub tag: u64,
    pub give_up_at_us: u64,
    /// What had been acknowledged to anyone when it was first sent.
    acknowledged: u64,
}

impl Client {
    pub fn new(number: u64, wanted: u64, habit: Habit) -> Self {
        let snaps = Vec::new();
        Client { number, habit, tid: 0, version: 0, waiting: None, begun: 0, wanted, snaps, reads: 0 }
    }

    pub fn done(&self) -> bool {
        self.waiting.is_none() && self.begun == self.wanted
    }

    fn once(&mut self) -> Option<Once> {
        self.tid += 1;
        let id = RequestId { client: self.number, incarnation: 0, tid: self.tid };
        Some(Once { id, born: self.version })
    }

    /// The next thing to ask; a read now and then.
    pub fn begin(&mut self, read: bool, acknowledged: u64) -> Option<()> {
        let call = if read {
            Call::Read(Query::Version)
        } else if self.begun < self.wanted {
            self.begun += 1;
            let request = Request::Pool(PoolCommand::NextSnap { name: POOL.to_owned() });
            Call::Change { once: self.once(), request }
        } else {
            return None;
        };
        self.waiting = Some(Waiting { call, tag: 0, give_up_at_us: 0, acknowledged });
        Some(())
    }

    /// The call as it is sent again.
    pub fn again(&mut self) -> Option<Call> {
        let habit = self.habit;
        let once = if habit == Habit::NewId { self.once() } else { None };
        let waiting = self.waiting.as_mut()?;
        if let (Some(new), Call::Change { once, .. }) = (once, &mut waiting.call)
            && waiting.tag > 0
        {
            *once = Some(new);
        }
        Some(waiting.call.clone())
    }

    /// Takes an answer; `false` if it has to ask again.
    pub fn take(&mut self, answer: Answer, check: &mut Checker) -> bool {
        let Some(waiting) = &self.waiting else { return true };
        let floor = waiting.acknowledged;
        match answer {
            Answer::TimedOut | Answer::Busy => return false,
            Answer::Done { reply: Reply::Snap { snap }, version } => {
                self.version = self.version.max(version);
                check.acknowledge(version);
                self.snaps.push(snap);
            }
            Answer::Read(reading) => {
                let Reading::Version(version) = *reading else { panic!("asked for the version") };
                check.must(version >= floor, || {
                    format!("read version {version} after {floor} was acknowledged")
                });
                check.acknowledge(version);
                self.version = self.version.max(version);
                self.reads += 1;
            }
            // The pool is made in the first moments.
            Answer::Refused { code: cairn_wire::ErrorCode::NOENT, .. } => return false,
            other => check.failures.push(format!("client {} got {other:?}", self.number)),
        }
        self.waiting = None;
        true
    }
}
