//! The steps of a rule.

use super::choose::{Choice, Mapping};
use super::{ChooseArgs, Placer, Scratch};
use crate::{Rule, Step};
use cairn_types::Weight;

/// Runs a rule and leaves the items in `scratch.result`.
pub(super) fn run(
    placer: &Placer,
    rule: &Rule,
    x: i32,
    num_rep: usize,
    weights: &[Weight],
    choose_args: Option<ChooseArgs>,
    scratch: &mut Scratch,
) {
    let Scratch { working, chosen, leaves, result, draws, permutations } = scratch;
    for vector in [&mut *working, &mut *chosen, &mut *leaves] {
        vector.resize(num_rep.max(1), 0);
    }
    permutations.begin(placer.nodes.len(), placer.permutation_len);
    let draws_left = placer.max_draws;
    let mut mapping = Mapping { placer, x: x as u32, weights, choose_args, draws, permutations, draws_left };

    let tunables = &placer.tunables;
    // The tunable counts retries, and the first try is none.
    let mut tries = tunables.choose_total_tries.wrapping_add(1);
    let mut leaf_tries = 0;
    let mut local_retries = tunables.choose_local_tries;
    let mut local_fallback_retries = tunables.choose_local_fallback_tries;
    let mut vary_r = u32::from(tunables.chooseleaf_vary_r);
    let mut is_stable = tunables.chooseleaf_stable != 0;
    let mut working_len = 0;
    let positive = |value: i32| u32::try_from(value).ok().filter(|&value| value > 0);

    for step in &rule.steps {
        let (num, kind, is_firstn, is_leaf) = match *step {
            Step::Noop => continue,
            Step::Take(item) => {
                // Validation has seen to it that the item is there.
                working[0] = item;
                working_len = 1;
                continue;
            }
            Step::SetChooseTries(value) => {
                tries = positive(value).unwrap_or(tries);
                continue;
            }
            Step::SetChooseleafTries(value) => {
                leaf_tries = positive(value).unwrap_or(leaf_tries);
                continue;
            }
            Step::SetChooseLocalTries(value) => {
                local_retries = u32::try_from(value).unwrap_or(local_retries);
                continue;
            }
            Step::SetChooseLocalFallbackTries(value) => {
                local_fallback_retries = u32::try_from(value).unwrap_or(local_fallback_retries);
                continue;
            }
            Step::SetChooseleafVaryR(value) => {
                vary_r = u32::try_from(value).unwrap_or(vary_r);
                continue;
            }
            Step::SetChooseleafStable(value) => {
                is_stable = if value >= 0 { value != 0 } else { is_stable };
                continue;
            }
            Step::Emit => {
                let room = num_rep - result.len();
                result.extend_from_slice(&working[..working_len.min(room)]);
                working_len = 0;
                continue;
            }
            Step::ChooseFirstn { num, kind } => (num, kind, true, false),
            Step::ChooseIndep { num, kind } => (num, kind, false, false),
            Step::ChooseleafFirstn { num, kind } => (num, kind, true, true),
            Step::ChooseleafIndep { num, kind } => (num, kind, false, true),
        };
        if working_len == 0 {
            continue;
        }
        // Zero and below are relative to the number of replicas.
        let wanted = match num {
            1.. => i64::from(num),
            _ => num_rep as i64 + i64::from(num),
        };
        let mut chosen_len = 0;
        for &item in &working[..working_len] {
            if wanted <= 0 {
                continue;
            }
            // A device, or NO_ITEM, has nothing below it.
            let Some(node) = (item < 0).then(|| placer.node(item)).flatten() else { continue };
            let room = num_rep - chosen_len;
            let out = &mut chosen[chosen_len..];
            let out_leaves = is_leaf.then_some(&mut leaves[chosen_len..]);
            let choice = Choice {
                wanted: wanted.min(i64::from(i32::MAX)) as i32,
                kind,
                tries,
                leaf_tries: match (is_firstn, leaf_tries) {
                    (true, 0) if tunables.chooseleaf_descend_once != 0 => 1,
                    (true, 0) => tries,
                    (false, 0) => 1,
                    (_, set) => set,
                },
                local_retries,
                local_fallback_retries,
                vary_r,
                is_stable,
            };
            if is_firstn {
                chosen_len += mapping.choose_firstn(node, &choice, out, 0, room, out_leaves, 0);
            } else {
                let slots = room.min(choice.wanted as usize);
                mapping.choose_indep(node, &choice, out, 0..slots, out_leaves, 0);
                chosen_len += slots;
            }
        }
        if is_leaf {
            chosen[..chosen_len].copy_from_slice(&leaves[..chosen_len]);
        }
        std::mem::swap(working, chosen);
        working_len = chosen_len;
    }
}
