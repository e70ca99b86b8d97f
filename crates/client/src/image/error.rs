//! Why an image did not do what was asked of it.

use crate::io::OpError;
use cairn_types::EntityAddr;

/// Why an image did not do what was asked of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentences say it; fields are what they name")]
pub enum ImageError {
    #[error("there is no image '{pool}/{name}'; 'cairn image ls {pool}' lists those there are")]
    NotFound { pool: String, name: String },
    #[error("image '{pool}/{name}' exists already")]
    Exists { pool: String, name: String },
    #[error(
        "'{name}' cannot be the name of an image: it must have 1 to {max} bytes, none of them '/' or '@'",
        max = super::names::NAME_LEN_MAX
    )]
    BadName { name: String },
    #[error(
        "a size of {size} bytes is not possible: an image of objects of {object_len} bytes has from 1 to {max}"
    )]
    BadSize { size: u64, object_len: u64, max: u64 },
    #[error("objects of 2^{order} bytes are not possible: from 2^{min} to 2^{max} are", min = super::names::ORDER_MIN, max = super::names::ORDER_MAX)]
    BadOrder { order: u8 },
    #[error(
        "image '{name}' is in use by client {client} at {addr}: stop what uses it there first \
         (if that process is gone, it is taken for dead 30 seconds after its end)"
    )]
    InUse { name: String, client: u64, addr: EntityAddr },
    #[error("the range ends beyond the image, which has {size} bytes")]
    OutOfRange { size: u64 },
    #[error("image '{name}' was opened for reading only")]
    ReadOnly { name: String },
    #[error("image '{name}' has features {features:#x}, of which this version can write only {known:#x}; open it for reading only", known = super::names::FEATURES_WRITABLE)]
    Features { name: String, features: u64 },
    #[error("making image '{name}' {size} bytes large would cut off data; say that it may be made smaller")]
    WouldShrink { name: String, size: u64 },
    #[error("this process lost image '{name}' to another one and must not use it any more: {why}")]
    Lost { name: String, why: String },
    #[error(
        "the {what} of image '{name}' cannot be read: object '{object}' is damaged or was made by a newer version"
    )]
    Malformed { name: String, what: &'static str, object: String },
    #[error(transparent)]
    Op(#[from] OpError),
    #[error("the image was closed")]
    Closed,
    #[error("cannot read the source at byte {offset}: {why}")]
    Source { offset: u64, why: String },
    #[error("cannot write the destination at byte {offset}: {why}")]
    Destination { offset: u64, why: String },
}
