//! Switches of the cluster and of pools, under the names operators type.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! flags {
    ($(#[$set_doc:meta])* $set:ident, $(#[$one_doc:meta])* $one:ident {
        $($(#[$doc:meta])* $variant:ident = $bit:literal $text:literal,)*
    }) => {
        $(#[$one_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum $one {
            $($(#[$doc])* $variant,)*
        }

        impl $one {
            /// Every flag, in the order of their bits.
            pub const ALL: &'static [$one] = &[$($one::$variant),*];

            /// The name operators use.
            pub fn as_str(self) -> &'static str {
                match self { $($one::$variant => $text,)* }
            }

            fn mask(self) -> u32 {
                match self { $($one::$variant => 1 << $bit,)* }
            }
        }

        impl fmt::Display for $one {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $one {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|flag| flag.as_str() == text).copied();
                found.ok_or_else(|| {
                    let names: Vec<_> = Self::ALL.iter().map(|flag| flag.as_str()).collect();
                    format!("no flag is named '{text}'; there are {}", names.join(", "))
                })
            }
        }

        $(#[$set_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
        pub struct $set(u32);

        impl $set {
            /// Whether a flag is set.
            pub fn has(self, flag: $one) -> bool {
                self.0 & flag.mask() != 0
            }

            /// This set with a flag set or cleared.
            #[must_use]
            pub fn with(self, flag: $one, on: bool) -> Self {
                if on { $set(self.0 | flag.mask()) } else { $set(self.0 & !flag.mask()) }
            }

            /// The flags that are set, in the order of their bits.
            pub fn iter(self) -> impl Iterator<Item = $one> {
                $one::ALL.iter().copied().filter(move |flag| self.has(*flag))
            }

            /// Whether none is set.
            pub fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether only flags that are known here are set.
            pub fn is_known(self) -> bool {
                self.0 & !$one::ALL.iter().fold(0, |bits, flag| bits | flag.mask()) == 0
            }
        }

        impl fmt::Display for $set {
            /// The names joined by commas.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (n, flag) in self.iter().enumerate() {
                    write!(f, "{}{flag}", if n == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{{{self}}}")
            }
        }
    };
}

flags! {
    /// A set of [`OsdFlag`]s.
    OsdFlags,
    /// A switch of the whole cluster.
    OsdFlag {
        /// Clients neither read nor write.
        Pause = 0 "pause",
        /// An OSD that is down stays in.
        NoOut = 1 "noout",
        /// Failure reports do not mark OSDs down.
        NoDown = 2 "nodown",
        /// OSDs that start are not marked up.
        NoUp = 3 "noup",
        /// OSDs that come back are not marked in.
        NoIn = 4 "noin",
        /// No backfill starts.
        NoBackfill = 5 "nobackfill",
        /// Misplaced objects stay where they are.
        NoRebalance = 6 "norebalance",
        /// No recovery starts.
        NoRecover = 7 "norecover",
        /// No scrub starts.
        NoScrub = 8 "noscrub",
        /// No deep scrub starts.
        NoDeepScrub = 9 "nodeep-scrub",
        /// Some OSD is full: clients write nothing. Set by the monitors.
        Full = 10 "full",
    }
}

flags! {
    /// A set of [`PoolFlag`]s.
    PoolFlags,
    /// A switch of one pool.
    PoolFlag {
        /// The pool cannot be removed.
        NoDelete = 0 "nodelete",
        /// The number of placement groups cannot be changed.
        NoPgChange = 1 "nopgchange",
        /// `size` and `min_size` cannot be changed.
        NoSizeChange = 2 "nosizechange",
        /// The pool's quota is used up: clients write nothing. Set by the monitors.
        Full = 3 "full",
        /// Clients make the snapshots (RBD), not the pool.
        SelfManagedSnaps = 4 "selfmanaged_snaps",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_they_parse() {
        let mut set = OsdFlags::default();
        for &flag in OsdFlag::ALL {
            assert_eq!(flag.as_str().parse(), Ok(flag));
            assert!(!set.has(flag), "{flag} shares a bit");
            set = set.with(flag, true);
        }
        let two = OsdFlags::default().with(OsdFlag::NoOut, true).with(OsdFlag::Pause, true);
        assert_eq!(two.to_string(), "pause,noout");
        assert_eq!(two.with(OsdFlag::Pause, false).to_string(), "noout");
        assert!("nout".parse::<OsdFlag>().unwrap_err().contains("noout"));
    }
}
