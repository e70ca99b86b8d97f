//! An object that clients only append to: every append has a number of its own, so that a request applied twice,
//! one that is lost, and a history that is rewritten all show.

use crate::timeline::Instant;
use std::collections::BTreeMap;

/// One such object.
#[derive(Clone, Default, Debug)]
pub struct Journal {
    appended: BTreeMap<u64, Option<Instant>>,
    /// The longest content read so far, and when that read was answered.
    longest: Vec<u64>,
    /// Lengths that reads have seen, by when they were answered: no later read may see less.
    seen: BTreeMap<Instant, usize>,
    operations: u64,
}

impl Journal {
    /// An append of `number` was sent.
    pub fn append_sent(&mut self, number: u64) {
        self.operations += 1;
        self.appended.insert(number, None);
    }

    /// It was answered.
    pub fn append_answered(&mut self, number: u64, at: Instant) {
        self.appended.insert(number, Some(at));
    }

    /// It was refused: it has not happened, and never will.
    ///
    /// # Errors
    /// It was seen.
    pub fn append_refused(&mut self, number: u64) -> Result<(), String> {
        self.appended.remove(&number);
        match self.longest.contains(&number) {
            true => Err(format!("append {number} was refused and was read before")),
            false => Ok(()),
        }
    }

    /// Appends and reads so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The whole object was read.
    ///
    /// # Errors
    /// What cannot be.
    pub fn read(&mut self, content: &[u64], sent: Instant, answered: Instant) -> Result<(), String> {
        self.operations += 1;
        let common = self.longest.len().min(content.len());
        if let Some(at) = (0..common).find(|at| self.longest[*at] != content[*at]) {
            return Err(format!("entry {at} was {} and is {}", self.longest[at], content[at]));
        }
        if let Some((at, least)) =
            self.seen.range(..sent).next_back().filter(|(_, least)| content.len() < **least)
        {
            return Err(format!("{least} entries were read at {at}, {} later", content.len()));
        }
        if content.len() > self.longest.len() {
            let mut known: BTreeMap<u64, ()> = self.longest.iter().map(|number| (*number, ())).collect();
            for number in &content[self.longest.len()..] {
                if known.insert(*number, ()).is_some() {
                    return Err(format!("append {number} was carried out twice"));
                }
                if !self.appended.contains_key(number) {
                    return Err(format!("{number} was read, which nobody appended"));
                }
            }
            self.longest = content.to_vec();
        }
        let lost = self
            .appended
            .iter()
            .find(|(number, answered)| answered.is_some_and(|at| at < sent) && !content.contains(number));
        if let Some((number, _)) = lost {
            return Err(format!("append {number} was answered and is not there"));
        }
        let most = self.seen.range(..=answered).next_back().map_or(0, |(_, most)| *most);
        self.seen.insert(answered, most.max(content.len()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(appends: &[(u64, Option<u64>)]) -> Journal {
        let mut journal = Journal::default();
        for (number, answered) in appends {
            journal.append_sent(*number);
            if let Some(at) = answered {
                journal.append_answered(*number, Instant(*at));
            }
        }
        journal
    }

    #[test]
    fn what_may_be_read_may_be_read() {
        let mut journal = journal(&[(1, Some(10)), (2, None), (3, Some(12))]);
        assert_eq!(journal.read(&[1], Instant(11), Instant(13)), Ok(()));
        assert_eq!(journal.read(&[1, 3, 2], Instant(14), Instant(16)), Ok(()));
        // A read that began before the last ended may have seen less.
        assert_eq!(journal.read(&[1, 3], Instant(15), Instant(17)), Ok(()));
        assert!(journal.read(&[1, 3], Instant(18), Instant(19)).is_err());
    }

    #[test]
    fn losses_doubles_and_other_histories_show() {
        let fresh = || journal(&[(1, Some(10)), (2, Some(11)), (3, None)]);
        let read = |mut journal: Journal, content: &[u64]| journal.read(content, Instant(20), Instant(21));
        assert!(read(fresh(), &[1]).unwrap_err().contains("not there"));
        assert!(read(fresh(), &[1, 2, 1]).unwrap_err().contains("twice"));
        assert!(read(fresh(), &[1, 2, 9]).unwrap_err().contains("nobody"));
        let mut changed = fresh();
        assert_eq!(changed.read(&[1, 2], Instant(12), Instant(13)), Ok(()));
        assert!(read(changed, &[2, 1]).unwrap_err().contains("entry 0"));
    }
}
