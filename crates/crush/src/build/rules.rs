//! Rules made from what an operator thinks in.

use super::{EditError, check_name};
use crate::binary::MAX_RULES;
use crate::{CrushMap, Rule, Step};

/// Whether replicas move up when one is lost, or keep their positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaMode {
    /// Packed to the front: for copies.
    Firstn,
    /// Each in its position: for erasure codes.
    Indep,
}

/// What `ceph osd crush rule create-*` takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimpleRule<'a> {
    /// Its name.
    pub name: &'a str,
    /// Name of the bucket to start from.
    pub root: &'a str,
    /// Name of the type no two replicas share; "osd" for none above the devices.
    pub failure_domain: &'a str,
    /// Device class, if only one is to be used.
    pub class: Option<&'a str>,
    /// How replicas are placed.
    pub mode: ReplicaMode,
    /// Whether it is for erasure-coded pools.
    pub is_erasure: bool,
}

/// Rule types, the numbers of Ceph's pool types.
const REPLICATED: u8 = 1;
const ERASURE: u8 = 3;

/// Tries of an `indep` rule for a leaf, and in all, as Ceph sets them.
const INDEP_TRIES: (i32, i32) = (5, 100);

impl CrushMap {
    /// Adds a rule under the first free number and returns that.
    pub fn add_simple_rule(&mut self, wanted: &SimpleRule<'_>) -> Result<usize, EditError> {
        check_name(wanted.name)?;
        if let Some((&owner, _)) = self.rule_names.iter().find(|(_, name)| *name == wanted.name) {
            return Err(EditError::NameTaken { name: wanted.name.to_owned(), owner });
        }
        let original =
            self.item_by_name(wanted.root).ok_or_else(|| EditError::UnknownName(wanted.root.to_owned()))?;
        let kind = self
            .type_by_name(wanted.failure_domain)
            .ok_or_else(|| EditError::UnknownType(wanted.failure_domain.to_owned()))?;
        let root = match wanted.class {
            None => original,
            Some(class) => {
                let number = self.class_by_name(class);
                let shadow = number.and_then(|class| self.shadow_buckets.get(&original)?.get(&class));
                *shadow.ok_or_else(|| EditError::UnknownClass {
                    root: wanted.root.to_owned(),
                    class: class.to_owned(),
                })?
            }
        };
        let is_free = |number: usize| {
            !matches!(self.rules.get(number), Some(Some(_)))
                && !self.rules.iter().flatten().any(|rule| usize::from(rule.ruleset) == number)
        };
        let number = (0..MAX_RULES as usize).find(|&number| is_free(number));
        let number = number.ok_or(EditError::NoneLeft("rule number"))?;
        let choose = match (wanted.mode, kind) {
            (ReplicaMode::Firstn, 0) => Step::ChooseFirstn { num: 0, kind },
            (ReplicaMode::Firstn, _) => Step::ChooseleafFirstn { num: 0, kind },
            (ReplicaMode::Indep, 0) => Step::ChooseIndep { num: 0, kind },
            (ReplicaMode::Indep, _) => Step::ChooseleafIndep { num: 0, kind },
        };
        let mut steps = vec![Step::Take(root), choose, Step::Emit];
        let kind = if wanted.is_erasure { ERASURE } else { REPLICATED };
        let (min_size, max_size) = match wanted.mode {
            ReplicaMode::Firstn => (1, 10),
            ReplicaMode::Indep => {
                let (leaf_tries, tries) = INDEP_TRIES;
                steps.splice(0..0, [Step::SetChooseleafTries(leaf_tries), Step::SetChooseTries(tries)]);
                (3, 20)
            }
        };
        if self.rules.len() <= number {
            self.rules.resize(number + 1, None);
        }
        self.rules[number] = Some(Rule { ruleset: number as u8, kind, min_size, max_size, steps });
        self.rule_names.insert(number as i32, wanted.name.to_owned());
        Ok(number)
    }

    /// Removes a rule.
    pub fn remove_rule(&mut self, rule: usize) -> bool {
        self.rule_names.remove(&(rule as i32));
        self.rules.get_mut(rule).and_then(Option::take).is_some()
    }
}
