//! A bitmap that knows where its long runs of zeros are.
//!
//! Bits are in groups, and groups in tops; each keeps a bound of the longest run within it, so that the search
//! for a run goes over tops, then over the groups of one, then over the words of one. Bounds are never too low.
//! Setting bits leaves them as they are and the group stale; a search that comes to a stale group makes its
//! bound exact. Clearing bits raises them to the run that comes about. A run that goes on in the next group
//! counts in each for what lies in it, and is put together where it is given out.

/// Words under one bound: 4096 bits, 16 MiB of blocks, four times the usual object. Reading them anew takes
/// well under a microsecond.
const GROUP_WORDS: usize = 64;
const GROUP_BITS: u64 = GROUP_WORDS as u64 * 64;
/// Groups under one bound of the second level: 1 GiB of blocks.
const TOP_GROUPS: usize = 64;

/// Zeros are free, ones are taken.
#[derive(Debug)]
pub struct Runs {
    /// Whole groups: what lies behind the last bit is taken.
    words: Vec<u64>,
    /// Of each group: no run in it is longer.
    longest: Vec<u16>,
    /// Of each group: there may be none as long.
    stale: Vec<bool>,
    /// Of each top: no group in it has a higher bound.
    tops: Vec<u16>,
}

impl Runs {
    /// All free.
    pub fn new(bits: u64) -> Self {
        let groups = bits.div_ceil(GROUP_BITS) as usize;
        let mut words = vec![0; groups * GROUP_WORDS];
        words[bits.div_ceil(64) as usize..].fill(u64::MAX);
        if !bits.is_multiple_of(64) {
            words[(bits / 64) as usize] = u64::MAX << (bits % 64);
        }
        let mut longest = vec![GROUP_BITS as u16; groups];
        if !bits.is_multiple_of(GROUP_BITS) {
            longest[groups - 1] = (bits % GROUP_BITS) as u16;
        }
        let tops = longest.chunks(TOP_GROUPS).map(most).collect();
        Runs { words, longest, stale: vec![false; groups], tops }
    }

    /// Sixty-four bits.
    pub fn word(&self, word: usize) -> u64 {
        self.words[word]
    }

    /// Takes the bits of one word that are ones.
    pub fn set_in_word(&mut self, word: usize, bits: u64) {
        self.words[word] |= bits;
        self.stale[word / GROUP_WORDS] = true;
    }

    /// Whether a bit is taken.
    pub fn is_set(&self, bit: u64) -> bool {
        self.words[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    /// Takes free bits.
    pub fn set(&mut self, first: u64, count: u64) {
        for (word, mask) in masks(first, count) {
            debug_assert_eq!(self.words[word] & mask, 0, "bits {first} and {count} are free");
            self.words[word] |= mask;
            self.stale[word / GROUP_WORDS] = true;
        }
    }

    /// Frees taken bits.
    pub fn clear(&mut self, first: u64, count: u64) {
        for (word, mask) in masks(first, count) {
            debug_assert_eq!(self.words[word] & mask, mask, "bits {first} and {count} are taken");
            self.words[word] &= !mask;
        }
        let mut at = first;
        while at < first + count {
            let group = at / GROUP_BITS;
            let (start, end) = (group * GROUP_BITS, (group + 1) * GROUP_BITS);
            let here = (first + count).min(end) - at;
            let before = self.free_before(at, at - start);
            let run = before + here + self.free_from(at + here, end - at - here);
            let (group, run) = (group as usize, run as u16);
            self.longest[group] = self.longest[group].max(run);
            self.tops[group / TOP_GROUPS] = self.tops[group / TOP_GROUPS].max(run);
            at += here;
        }
    }

    /// A free run of `wanted` bits, the first that is near the shortest to do; where none is that long, the
    /// longest there is. A run counts for what of it lies in one group.
    pub fn find(&mut self, wanted: u64) -> Option<(u64, u64)> {
        let enough = wanted.clamp(1, GROUP_BITS) as u16;
        let group = self.first_group_with(enough).or_else(|| self.group_with_most())?;
        let (mut first, mut count) = self.fitting_run(group, u64::from(enough))?;
        let start = group as u64 * GROUP_BITS;
        if first == start {
            let before = self.free_before(first, first.min(GROUP_BITS));
            first -= before;
            count += before;
        }
        if count < wanted && first + count == start + GROUP_BITS {
            count += self.free_from(first + count, wanted - count);
        }
        Some((first, count.min(wanted)))
    }

    fn first_group_with(&mut self, enough: u16) -> Option<usize> {
        for top in 0..self.tops.len() {
            if self.tops[top] < enough {
                continue;
            }
            let groups = self.groups_of(top);
            for group in groups.clone() {
                if self.longest[group] >= enough && self.exact(group) >= enough {
                    return Some(group);
                }
            }
            self.tops[top] = most(&self.longest[groups]);
        }
        None
    }

    fn group_with_most(&mut self) -> Option<usize> {
        loop {
            // Each round ends here or brings a bound down.
            let bound = most(&self.tops);
            if bound == 0 {
                return None;
            }
            let top = self.tops.iter().position(|top| *top == bound)?;
            let groups = self.groups_of(top);
            match self.longest[groups.clone()].iter().position(|longest| *longest == bound) {
                Some(at) if self.exact(groups.start + at) == bound => return Some(groups.start + at),
                Some(_) => {}
                None => self.tops[top] = most(&self.longest[groups]),
            }
        }
    }

    fn groups_of(&self, top: usize) -> std::ops::Range<usize> {
        top * TOP_GROUPS..((top + 1) * TOP_GROUPS).min(self.longest.len())
    }

    /// Length of the longest run in a group.
    fn exact(&mut self, group: usize) -> u16 {
        if std::mem::take(&mut self.stale[group]) {
            let mut longest = 0;
            self.each_run(group, |_, count| longest = longest.max(count));
            self.longest[group] = longest as u16;
        }
        self.longest[group]
    }

    /// The shortest run of a group that is long enough, else the longest.
    fn fitting_run(&self, group: usize, enough: u64) -> Option<(u64, u64)> {
        let mut best: Option<(u64, u64)> = None;
        self.each_run(group, |first, count| {
            let is_better = best.is_none_or(|(_, so_far)| {
                if so_far < enough { count > so_far } else { enough <= count && count < so_far }
            });
            if is_better {
                best = Some((first, count));
            }
        });
        best
    }

    fn each_run(&self, group: usize, mut visit: impl FnMut(u64, u64)) {
        let from = group * GROUP_WORDS;
        let mut run = (0, 0);
        for (word, &taken) in (from..).zip(&self.words[from..from + GROUP_WORDS]) {
            let start = word as u64 * 64;
            if taken == 0 {
                run = if run.1 == 0 { (start, 64) } else { (run.0, run.1 + 64) };
                continue;
            }
            let mut bit = 0;
            while bit < 64 {
                let free = u64::from((taken >> bit).trailing_zeros()).min(64 - bit);
                if free > 0 {
                    run = if run.1 == 0 { (start + bit, free) } else { (run.0, run.1 + free) };
                    bit += free;
                }
                if bit < 64 {
                    if run.1 > 0 {
                        visit(run.0, run.1);
                    }
                    run.1 = 0;
                    bit += u64::from((taken >> bit).trailing_ones());
                }
            }
        }
        if run.1 > 0 {
            visit(run.0, run.1);
        }
    }

    /// Free bits that follow each other right before `end`, as far as `limit`.
    fn free_before(&self, end: u64, limit: u64) -> u64 {
        let mut count = 0;
        while count < limit {
            let bit = end - count - 1;
            let room = bit % 64 + 1;
            let free = u64::from((self.words[(bit / 64) as usize] << (64 - room)).leading_zeros()).min(room);
            count += free;
            if free < room {
                break;
            }
        }
        count.min(limit)
    }

    /// Free bits that follow each other from `first` on, as far as `limit` or the last bit.
    fn free_from(&self, first: u64, limit: u64) -> u64 {
        let mut count = 0;
        while count < limit {
            let bit = first + count;
            let Some(word) = self.words.get((bit / 64) as usize) else { break };
            let room = 64 - bit % 64;
            let free = u64::from((word >> (bit % 64)).trailing_zeros()).min(room);
            count += free;
            if free < room {
                break;
            }
        }
        count.min(limit)
    }
}

fn most(bounds: &[u16]) -> u16 {
    bounds.iter().copied().max().unwrap_or(0)
}

/// A range of bits, word by word.
fn masks(first: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = first + count;
    let mut at = first;
    std::iter::from_fn(move || {
        let here = (64 - at % 64).min(end - at);
        let mask = (u64::MAX >> (64 - here.max(1))) << (at % 64);
        let word = (at / 64) as usize;
        at += here;
        (here > 0).then_some((word, mask))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sim::SplitMix64;

    /// Every free run, cut where groups end.
    fn pieces(bits: &[bool]) -> Vec<u64> {
        let free =
            |group: &[bool]| group.split(|taken| *taken).map(|run| run.len() as u64).collect::<Vec<_>>();
        bits.chunks(GROUP_BITS as usize).flat_map(free).filter(|len| *len > 0).collect()
    }

    #[test]
    fn what_is_found_is_free_and_long_enough_or_the_longest() {
        let bits = 3 * TOP_GROUPS as u64 * GROUP_BITS / 2 + 777;
        let mut rng = SplitMix64::new(1);
        let mut runs = Runs::new(bits);
        let mut model = vec![false; bits as usize];
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for step in 0..6000 {
            // First it fills up, then what is freed and what is taken are about as much.
            if rng.below(100) < if step < 3000 { 20 } else { 52 } && !taken.is_empty() {
                let (first, count) = taken.swap_remove(rng.below(taken.len() as u64) as usize);
                // Not all of it: holes are left.
                let from = rng.below(count);
                let count_cleared = 1 + rng.below(count - from);
                runs.clear(first + from, count_cleared);
                model[(first + from) as usize..(first + from + count_cleared) as usize].fill(false);
                let rest = [(first, from), (first + from + count_cleared, count - from - count_cleared)];
                taken.extend(rest.into_iter().filter(|(_, count)| *count > 0));
                continue;
            }
            let wanted = match rng.below(4) {
                0 => 1,
                1 => 1 + rng.below(64),
                2 => 1 + rng.below(1024),
                _ => 1 + rng.below(2 * GROUP_BITS),
            };
            let found = runs.find(wanted);
            if step % 8 == 0 || found.is_none() {
                let longest = pieces(&model).into_iter().max().unwrap_or(0);
                let least = wanted.min(longest);
                assert!(found.map_or(0, |(_, count)| count) >= least, "{found:?} for {wanted}: {longest}");
            }
            let Some((first, count)) = found else { continue };
            assert!(count <= wanted && first + count <= bits);
            let range = first as usize..(first + count) as usize;
            assert!(model[range.clone()].iter().all(|taken| !taken));
            model[range].fill(true);
            runs.set(first, count);
            taken.push((first, count));
        }
        // To the last bit.
        while let Some((first, count)) = runs.find(GROUP_BITS) {
            runs.set(first, count);
            model[first as usize..(first + count) as usize].fill(true);
        }
        assert!(model.iter().all(|taken| *taken));
    }

    #[test]
    fn a_run_over_the_end_of_a_group_is_given_out_whole() {
        let mut runs = Runs::new(3 * GROUP_BITS);
        runs.set(0, 3 * GROUP_BITS);
        runs.clear(GROUP_BITS - 300, 1000);
        assert_eq!(runs.find(1000), Some((GROUP_BITS - 300, 1000)));
        assert_eq!(runs.find(GROUP_BITS), Some((GROUP_BITS - 300, 1000)));
        runs.clear(GROUP_BITS - 600, 100);
        assert_eq!(runs.find(50), Some((GROUP_BITS - 600, 50)), "the shortest that does");
        assert_eq!(runs.find(700), Some((GROUP_BITS - 300, 700)));
        let mut all = Runs::new(3 * GROUP_BITS);
        assert_eq!(all.find(u64::MAX), Some((0, 3 * GROUP_BITS)));
        all.set(0, 100);
        assert_eq!(all.find(GROUP_BITS), Some((100, GROUP_BITS)), "nothing is left between");
    }
}
