//! Names, keys and bits of RBD format 2. None of them may ever change: images of other makers have them.

/// Lists the pool's images: omap `name_NAME` → id, `id_ID` → name.
pub const DIRECTORY: &str = "rbd_directory";
/// Name of the exclusive lock, an attribute `lock.rbd_lock` of the header.
pub const LOCK: &str = "rbd_lock";
/// Tag of locks that clients take by themselves.
pub const LOCK_TAG: &str = "internal";
/// Beginning of the cookie of such a lock; the cookie of the owner's watch follows.
pub const LOCK_COOKIE_PREFIX: &str = "auto ";

/// Bit of images whose snapshots can be cloned.
pub const FEATURE_LAYERING: u64 = 1;
/// Bit of images with an exclusive lock.
pub const FEATURE_EXCLUSIVE_LOCK: u64 = 4;
/// What this code makes.
pub const FEATURES_DEFAULT: u64 = FEATURE_LAYERING | FEATURE_EXCLUSIVE_LOCK;
/// What this code can write to. Object maps and the like (8, 16, 32) would go stale.
pub const FEATURES_WRITABLE: u64 = FEATURE_LAYERING | FEATURE_EXCLUSIVE_LOCK;

/// Smallest object: 4 KiB.
pub const ORDER_MIN: u8 = 12;
/// Largest object that OSDs here take: 8 MiB.
pub const ORDER_MAX: u8 = 23;
/// 4 MiB.
pub const ORDER_DEFAULT: u8 = 22;
/// Longest name of an image, in bytes.
pub const NAME_LEN_MAX: usize = 255;
/// Most objects an image can have; the figure of its index in names of 16 digits is far above. 64 Ti of 4 MiB.
pub const OBJECTS_MAX: u64 = 1 << 24;

/// The object that holds the id of an image.
pub fn id_object(name: &str) -> String {
    format!("rbd_id.{name}")
}

/// The object that holds all about an image.
pub fn header_object(id: &str) -> String {
    format!("rbd_header.{id}")
}

/// What the names of an image's data objects begin with.
pub fn object_prefix(id: &str) -> String {
    format!("rbd_data.{id}")
}

/// A data object.
pub fn data_object(prefix: &str, index: u64) -> String {
    format!("{prefix}.{index:016x}")
}
