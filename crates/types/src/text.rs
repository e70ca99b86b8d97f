//! Serde for what has both a text of its own and a compact form.

/// Serialises a type as its text where people read the format (JSON, TOML: so that it can also be
/// the key of a map there), and as the plain data of `$repr` elsewhere. Decoding checks both: text by
/// `FromStr`, data by `$from`, which answers `None` for what is not a value of the type.
macro_rules! serde_as_text {
    ($type:ty, $repr:ty, $into:expr, $from:expr) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                let into: fn(&$type) -> $repr = $into;
                into(self).serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error;
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    return text.parse().map_err(D::Error::custom);
                }
                let from: fn($repr) -> Option<$type> = $from;
                from(<$repr>::deserialize(deserializer)?)
                    .ok_or_else(|| D::Error::custom(concat!("not a valid ", stringify!($type))))
            }
        }
    };
}
pub(crate) use serde_as_text;
