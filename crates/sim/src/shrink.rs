//! The shortest fault plan that still fails: delta debugging.
//!
//! Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 28 (2002), algorithm `ddmin`.

/// The parts of `plan` that are needed for `fails`, tried at most `tries_max` times. `fails(&plan)` is presumed.
/// Taking any single part out of the result makes it pass, unless tries ran out.
pub fn shrink<T: Clone>(plan: &[T], tries_max: usize, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut plan = plan.to_vec();
    let mut tries = 0;
    let mut pieces = 2;
    // Often the faults do not matter at all.
    if !plan.is_empty() && tries < tries_max {
        tries += 1;
        if fails(&[]) {
            return Vec::new();
        }
    }
    while plan.len() >= 2 {
        let piece = plan.len().div_ceil(pieces);
        let mut smaller = None;
        for start in (0..plan.len()).step_by(piece) {
            if tries == tries_max {
                return plan;
            }
            tries += 1;
            let end = (start + piece).min(plan.len());
            let without: Vec<T> = plan[..start].iter().chain(&plan[end..]).cloned().collect();
            if fails(&without) {
                smaller = Some(without);
                break;
            }
        }
        match smaller {
            Some(without) => {
                plan = without;
                pieces = pieces.saturating_sub(1).max(2);
            }
            None if piece == 1 => break,
            None => pieces = (pieces * 2).min(plan.len()),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_left() {
        let plan: Vec<u32> = (0..100).collect();
        let mut runs = 0;
        let found = shrink(&plan, 1_000, |plan| {
            runs += 1;
            [17, 18, 90].iter().all(|need| plan.contains(need))
        });
        assert_eq!(found, [17, 18, 90]);
        assert!(runs < 150, "{runs} runs");
        assert_eq!(shrink(&plan, 1_000, |_| true), [0; 0]);
        assert_eq!(shrink(&plan, 0, |_| true), plan);
        assert_eq!(shrink(&[5], 10, |plan| !plan.is_empty()), [5]);
    }
}
