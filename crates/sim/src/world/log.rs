//! The log of a run: a digest always, the lines when somebody listens.

use crate::plan::Proc;
use crate::timeline::Instant;

/// Somebody who reads the log.
pub type Listener = Box<dyn FnMut(&str)>;

/// The log.
pub(super) struct Log {
    digest: u64,
    listener: Option<Listener>,
}

impl Log {
    pub fn new(listener: Option<Listener>) -> Log {
        Log { digest: 0xcbf2_9ce4_8422_2325, listener }
    }

    /// Something happened. The line is made when somebody listens; the digest has when and to whom.
    pub fn say(&mut self, at: Instant, who: Option<Proc>, line: impl FnOnce() -> String) {
        let who_number = match who {
            None => 0,
            Some(Proc::Mon(n)) => 1 + u64::from(n),
            Some(Proc::Osd(osd)) => 0x1_0000 + osd.0 as u64,
            Some(Proc::Client(n)) => 0x2_0000 + u64::from(n),
        };
        for number in [at.0, who_number] {
            self.digest = (self.digest ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
        }
        if let Some(listener) = &mut self.listener {
            let who = who.map_or_else(|| "world".to_owned(), |who| who.to_string());
            listener(&format!("{at} {who:<10} {}", line()));
        }
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }
}
