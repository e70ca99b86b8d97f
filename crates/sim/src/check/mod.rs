//! What must hold, and what is said when it does not.

pub mod image;
pub mod journal;
pub mod register;

use crate::timeline::Instant;
use cairn_mon::service::ClusterState;
use cairn_paxos::{Ballot, Command, Slot};
use cairn_types::{EntityAddr, Epoch, MonMap, OsdMap};
use image::Images;
use journal::Journal;
use register::{Register, Value};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A 4 KiB block of an object that clients write to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockId {
    /// Number of the object.
    pub object: u32,
    /// Number of the block in it.
    pub block: u32,
}

/// Everything that is checked while a cluster runs.
#[derive(Debug, Default)]
pub struct Checks {
    registers: BTreeMap<BlockId, Register>,
    journals: BTreeMap<u32, Journal>,
    /// Images under the exclusive lock.
    pub images: Images,
    /// Writes without an answer, and who sent them.
    open: BTreeMap<BlockId, BTreeMap<Value, EntityAddr>>,
    /// Since when somebody is in the blocklist.
    blocked: BTreeMap<EntityAddr, Epoch>,
    /// Until when at least.
    shut_out: BTreeMap<EntityAddr, Instant>,
    /// What leaders have proposed: one value for each slot of a ballot.
    proposed: BTreeMap<(Ballot, Slot), u64>,
    leaders: BTreeMap<Ballot, u16>,
    last_value: u64,
    /// Of the monitors' state, by version: its hash. Every version is what one slot of the log made of the one before.
    states: BTreeMap<u64, u64>,
    /// By epoch, as the first monitor to have it had it.
    maps: BTreeMap<Epoch, OsdMap>,
    mon_maps: BTreeMap<Epoch, MonMap>,
}

impl Checks {
    /// A write to a block was sent; the value it writes.
    pub fn write_sent(&mut self, block: BlockId, by: EntityAddr, at: Instant) -> Value {
        let value = Value(self.new_number());
        self.open.entry(block).or_default().insert(value, by);
        self.registers.entry(block).or_default().write_sent(value, at);
        value
    }

    /// A number that nobody has had.
    pub fn new_number(&mut self) -> u64 {
        self.last_value += 1;
        self.last_value
    }

    /// An object that is only appended to.
    pub fn journal(&mut self, number: u32) -> &mut Journal {
        self.journals.entry(number).or_default()
    }

    /// An operation on a block was carried out by an OSD with a map of this epoch: whoever the map shuts out changes
    /// the block no more.
    pub fn fence(&mut self, block: BlockId, epoch: Epoch, at: Instant) {
        if self.blocked.is_empty() {
            return;
        }
        let Some(open) = self.open.get_mut(&block) else { return };
        let register = self.registers.entry(block).or_default();
        open.retain(|value, by| {
            let is_out = self.blocked.get(by).is_some_and(|since| *since <= epoch);
            if is_out {
                register.write_fenced(*value, at);
            }
            !is_out
        });
    }

    /// A monitor leads.
    ///
    /// # Errors
    /// Another one leads by the same ballot.
    pub fn leads(&mut self, mon: u16, ballot: Ballot) -> Result<(), String> {
        match *self.leaders.entry(ballot).or_insert(mon) {
            first if first == mon => Ok(()),
            first => Err(format!("mon.{mon} and mon.{first} both lead by {ballot:?}")),
        }
    }

    /// A leader proposes a value for a slot.
    ///
    /// # Errors
    /// The same ballot has proposed another one.
    pub fn proposes(&mut self, ballot: Ballot, slot: Slot, command: &Command) -> Result<(), String> {
        // With fixed keys: the same in every run.
        let mut hasher = DefaultHasher::new();
        command.hash(&mut hasher);
        let hash = hasher.finish();
        if *self.proposed.entry((ballot, slot)).or_insert(hash) != hash {
            return Err(format!("{ballot:?} proposes two values for {slot:?}"));
        }
        Ok(())
    }

    /// It was answered.
    pub fn write_answered(&mut self, block: BlockId, value: Value, at: Instant) {
        if let Some(open) = self.open.get_mut(&block) {
            open.remove(&value);
        }
        self.registers.entry(block).or_default().write_answered(value, at);
    }

    /// It was refused: nothing was changed.
    pub fn write_refused(&mut self, block: BlockId, value: Value) {
        if let Some(open) = self.open.get_mut(&block) {
            open.remove(&value);
        }
        self.registers.entry(block).or_default().write_refused(value);
    }

    /// A read was answered.
    pub fn read(&mut self, block: BlockId, value: Value, sent: Instant, answered: Instant) {
        self.registers.entry(block).or_default().read(value, sent, answered);
    }

    /// Writes and reads of blocks so far.
    pub fn operations(&self) -> u64 {
        let blocks: u64 = self.registers.values().map(Register::operations).sum();
        blocks + self.images.operations() + self.journals.values().map(Journal::operations).sum::<u64>()
    }

    /// Whether clients saw what one copy of each block, with operations one after the other, could have shown them.
    pub fn check(&self) -> Result<(), String> {
        for (block, register) in &self.registers {
            register.check().map_err(|fault| {
                format!("block {} of object.{} is not linearizable: {fault}", block.block, block.object)
            })?;
        }
        self.images.check()
    }

    /// A monitor has come to a state.
    pub fn monitor_state(&mut self, mon: u16, state: &ClusterState, now: Instant) -> Result<(), String> {
        let (version, hash) = (state.version(), state.hash());
        if *self.states.entry(version).or_insert(hash) != hash {
            return Err(format!("mon.{mon} differs from the others at version {version}"));
        }
        let map = state.osd_map();
        if !self.maps.contains_key(&map.epoch)
            && let Some((addr, _)) =
                self.shut_out.iter().find(|(addr, end)| **end > now && !map.blocklist.contains_key(addr))
        {
            return Err(format!("{addr} is let in early, by the map of {}", map.epoch));
        }
        for addr in map.blocklist.keys() {
            self.blocked.entry(*addr).or_insert(map.epoch);
            // The leader's clock may be a little fast.
            let for_ms = state.block(addr).map_or(0, |block| block.for_ms / 100 * 99);
            self.shut_out.entry(*addr).or_insert(now.plus_ms(for_ms));
        }
        let known = self.maps.entry(map.epoch).or_insert_with(|| map.clone());
        if known != map {
            return Err(format!("mon.{mon} has another OSD map {} than the others", map.epoch));
        }
        let map = state.mon_map();
        let known = self.mon_maps.entry(map.epoch).or_insert_with(|| map.clone());
        if known != map {
            return Err(format!("mon.{mon} has another monitor map {} than the others", map.epoch));
        }
        Ok(())
    }

    /// Somebody uses a map: it must be one that the monitors have made.
    pub fn map(&self, who: &str, map: &OsdMap) -> Result<(), String> {
        match self.maps.get(&map.epoch) {
            Some(known) if known == map => Ok(()),
            Some(_) => Err(format!("{who} has another OSD map {} than the monitors", map.epoch)),
            None => Err(format!("{who} has OSD map {}, which no monitor has made", map.epoch)),
        }
    }

    /// The newest monitor map that any monitor has come to.
    pub fn mon_map(&self) -> Option<&MonMap> {
        self.mon_maps.last_key_value().map(|(_, map)| map)
    }

    /// The newest version that any monitor has come to.
    pub fn newest_version(&self) -> Option<u64> {
        self.states.last_key_value().map(|(version, _)| *version)
    }

    /// The newest epoch that any monitor has come to.
    pub fn newest_epoch(&self) -> Epoch {
        self.maps.last_key_value().map_or(Epoch(0), |(epoch, _)| *epoch)
    }
}
