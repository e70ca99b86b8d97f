//! The tunable profiles.

use crate::{Algorithm, Tunables};

/// Mask of the algorithms Ceph allowed before straw2.
const LEGACY_ALGORITHMS: u32 =
    1 << Algorithm::Uniform as u32 | 1 << Algorithm::List as u32 | 1 << Algorithm::Straw as u32;

impl Tunables {
    /// The first release's behaviour, also called legacy.
    pub const ARGONAUT: Tunables = Tunables {
        choose_local_tries: 2,
        choose_local_fallback_tries: 5,
        choose_total_tries: 19,
        chooseleaf_descend_once: 0,
        chooseleaf_vary_r: 0,
        chooseleaf_stable: 0,
        straw_calc_version: 0,
        allowed_bucket_algs: LEGACY_ALGORITHMS,
    };

    /// Without local retries. `straw_calc_version` belongs to no profile; from here on it is the better one.
    pub const BOBTAIL: Tunables = Tunables {
        choose_local_tries: 0,
        choose_local_fallback_tries: 0,
        choose_total_tries: 50,
        chooseleaf_descend_once: 1,
        straw_calc_version: 1,
        ..Tunables::ARGONAUT
    };

    /// With leaves that vary with their parent.
    pub const FIREFLY: Tunables = Tunables { chooseleaf_vary_r: 1, ..Tunables::BOBTAIL };

    /// With straw2 allowed.
    pub const HAMMER: Tunables = Tunables {
        allowed_bucket_algs: LEGACY_ALGORITHMS | 1 << Algorithm::Straw2 as u32,
        ..Tunables::FIREFLY
    };

    /// With leaves that stay when another one moves.
    pub const JEWEL: Tunables = Tunables { chooseleaf_stable: 1, ..Tunables::HAMMER };

    /// A profile by its name in `ceph osd crush tunables`.
    pub fn profile(name: &str) -> Option<Tunables> {
        Some(match name {
            "argonaut" | "legacy" => Tunables::ARGONAUT,
            "bobtail" => Tunables::BOBTAIL,
            "firefly" => Tunables::FIREFLY,
            "hammer" => Tunables::HAMMER,
            "jewel" | "optimal" | "default" => Tunables::JEWEL,
            _ => return None,
        })
    }
}

impl Default for Tunables {
    /// Those of [`Tunables::JEWEL`].
    fn default() -> Self {
        Tunables::JEWEL
    }
}
