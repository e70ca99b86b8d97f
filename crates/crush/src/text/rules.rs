//! Rules that can never be satisfied.

use super::Reason;
use crate::{Bucket, CrushMap, Step};
use std::collections::BTreeSet;

/// What a rule works on after a step.
struct Working {
    /// The item taken, for the error.
    taken: i32,
    items: BTreeSet<i32>,
}

/// Follows a rule through the hierarchy with every bucket that could be chosen, and refuses it, with
/// the step, where nothing can.
///
/// A hierarchy without any device cannot satisfy a rule yet, but its rules are sound: a new cluster
/// starts so, and so does the shadow tree of a class whose last device has left.
pub(super) fn check(map: &CrushMap, steps: &[Step]) -> Result<(), (usize, Reason)> {
    let mut working: Option<Working> = None;
    let mut has_emitted = false;
    for (index, &step) in steps.iter().enumerate() {
        let at = |reason| (index, reason);
        match step {
            Step::Take(item) => {
                working = Some(Working { taken: item, items: BTreeSet::from([item]) });
                has_emitted = false;
            }
            Step::ChooseFirstn { kind, .. } | Step::ChooseIndep { kind, .. } => {
                let current = working.as_mut().ok_or_else(|| at(Reason::NothingTaken))?;
                choose(map, current, kind, false).map_err(at)?;
            }
            Step::ChooseleafFirstn { kind, .. } | Step::ChooseleafIndep { kind, .. } => {
                let current = working.as_mut().ok_or_else(|| at(Reason::NothingTaken))?;
                choose(map, current, kind, true).map_err(at)?;
            }
            Step::Emit => {
                let current = working.take().ok_or_else(|| at(Reason::NothingTaken))?;
                if let Some(&bucket) = current.items.iter().find(|&&item| item < 0) {
                    return Err(at(Reason::EmitsBuckets(kind_name(map, kind_of(map, bucket)))));
                }
                has_emitted = true;
            }
            Step::Noop
            | Step::SetChooseTries(_)
            | Step::SetChooseleafTries(_)
            | Step::SetChooseLocalTries(_)
            | Step::SetChooseLocalFallbackTries(_)
            | Step::SetChooseleafVaryR(_)
            | Step::SetChooseleafStable(_) => {}
        }
    }
    match has_emitted {
        true => Ok(()),
        false => Err((steps.len().saturating_sub(1), Reason::NoEmit)),
    }
}

fn choose(map: &CrushMap, working: &mut Working, kind: i32, leaf: bool) -> Result<(), Reason> {
    let mut chosen = BTreeSet::new();
    let mut has_device = false;
    below(map, &working.items, |item| {
        has_device |= item >= 0;
        if kind_of(map, item) == kind {
            chosen.insert(item);
        }
    });
    if chosen.is_empty() && has_device {
        let below = map.item_names.get(&working.taken).cloned();
        let below = below.unwrap_or_else(|| working.taken.to_string());
        return Err(Reason::NothingToChoose { kind: kind_name(map, kind), below });
    }
    if leaf {
        let mut leaves: BTreeSet<i32> = chosen.iter().copied().filter(|&item| item >= 0).collect();
        below(map, &chosen, |item| {
            if item >= 0 {
                leaves.insert(item);
            }
        });
        if leaves.is_empty() && has_device {
            let below = kind_name(map, kind);
            return Err(Reason::NothingToChoose { kind: kind_name(map, 0), below });
        }
        chosen = leaves;
    }
    working.items = chosen;
    Ok(())
}

/// Visits everything below the items, each once. The hierarchy has no cycles.
fn below(map: &CrushMap, items: &BTreeSet<i32>, mut visit: impl FnMut(i32)) {
    let mut seen = BTreeSet::new();
    let mut open: Vec<i32> = items.iter().copied().collect();
    while let Some(item) = open.pop() {
        for &child in bucket_of(map, item).map_or(&[][..], |bucket| &bucket.items) {
            if seen.insert(child) {
                visit(child);
                open.push(child);
            }
        }
    }
}

fn bucket_of(map: &CrushMap, item: i32) -> Option<&Bucket> {
    let index = usize::try_from(-1 - i64::from(item)).ok()?;
    map.buckets.get(index)?.as_ref()
}

/// Type number; 0 for a device.
fn kind_of(map: &CrushMap, item: i32) -> i32 {
    bucket_of(map, item).map_or(0, |bucket| bucket.kind.into())
}

fn kind_name(map: &CrushMap, kind: i32) -> String {
    match (map.type_names.get(&kind), kind) {
        (Some(name), _) => name.clone(),
        (None, 0) => "osd".to_owned(),
        (None, kind) => format!("type {kind}"),
    }
}
