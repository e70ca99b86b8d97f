//! The order in which buckets are compiled.

use super::ast::Ast;
use super::{Reason, TextError};
use std::collections::BTreeMap;

/// The places of the bucket blocks in the order in which Ceph compiles them.
///
/// A bucket must come after the buckets it holds. Where the text has them the other way round, Ceph
/// swaps the two, pair by pair, which mends a simple mistake and not every order. The swaps are
/// done here as Ceph does them, as the order decides the ids of buckets without one and the numbers
/// of classes; what is still out of order is refused, as there.
pub(super) fn definition_order(ast: &Ast<'_>) -> Result<Vec<usize>, TextError> {
    let mut index_of = BTreeMap::new();
    for line in &ast.devices {
        index_of.insert(line.name.value, None);
    }
    for (index, block) in ast.buckets.iter().enumerate() {
        if index_of.insert(block.name.value, Some(index)).is_some() {
            let name = block.name.value.to_owned();
            return Err(block.name.error(Reason::DuplicateName { what: "bucket or device", name }));
        }
    }
    // The buckets each bucket holds, by index.
    let below: Vec<Vec<usize>> = ast
        .buckets
        .iter()
        .map(|block| {
            let items = block.items.iter();
            items.filter_map(|line| index_of.get(line.name.value).copied().flatten()).collect()
        })
        .collect();
    refuse_cycles(ast, &below)?;

    let mut order: Vec<usize> = (0..ast.buckets.len()).collect();
    for (index, held) in below.iter().enumerate() {
        let mut later: Vec<usize> = held.iter().copied().filter(|&other| other > index).collect();
        later.sort_unstable();
        later.dedup();
        for other in later {
            order.swap(index, other);
        }
    }

    let mut is_defined = vec![false; ast.buckets.len()];
    for &index in &order {
        let block = &ast.buckets[index];
        for line in &block.items {
            if let Some(Some(item)) = index_of.get(line.name.value)
                && !is_defined[*item]
            {
                let (item, bucket) = (line.name.value.to_owned(), block.name.value.to_owned());
                return Err(line.name.error(Reason::DefinedLater { item, bucket }));
            }
        }
        is_defined[index] = true;
    }
    Ok(order)
}

/// Walks down from every bucket; meeting a bucket that is still open is a cycle.
fn refuse_cycles(ast: &Ast<'_>, below: &[Vec<usize>]) -> Result<(), TextError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Unseen,
        Open,
        Done,
    }
    let mut states = vec![State::Unseen; below.len()];
    // The way down: a bucket and how many of those it holds have been looked at.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for top in 0..below.len() {
        if states[top] == State::Unseen {
            states[top] = State::Open;
            path.push((top, 0));
        }
        while let Some((bucket, looked_at)) = path.last_mut() {
            let Some(&item) = below[*bucket].get(*looked_at) else {
                states[*bucket] = State::Done;
                path.pop();
                continue;
            };
            *looked_at += 1;
            match states[item] {
                State::Done => {}
                State::Unseen => {
                    states[item] = State::Open;
                    path.push((item, 0));
                }
                State::Open => return Err(cycle(ast, &path, item)),
            }
        }
    }
    Ok(())
}

/// At most this many buckets of a cycle are named.
const NAMED_IN_CYCLE: usize = 16;

/// The error for a path whose last bucket holds `item`, which is on the path.
fn cycle(ast: &Ast<'_>, path: &[(usize, usize)], item: usize) -> TextError {
    let name = |index: usize| ast.buckets[index].name.value.to_owned();
    let start = path.iter().position(|&(bucket, _)| bucket == item).unwrap_or(0);
    let mut names: Vec<String> = path[start..].iter().map(|&(bucket, _)| name(bucket)).collect();
    if names.len() > NAMED_IN_CYCLE {
        names.truncate(NAMED_IN_CYCLE);
        names.push("…".to_owned());
    }
    names.push(name(item));
    let last = path.last().map_or(item, |&(bucket, _)| bucket);
    let item_name = ast.buckets[item].name.value;
    let holder = &ast.buckets[last];
    let line = holder.items.iter().find(|line| line.name.value == item_name);
    line.map_or(holder.name, |line| line.name).error(Reason::Cycle(names))
}
