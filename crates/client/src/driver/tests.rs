//! The driver against OSDs that are not.
