//! Class `rbd`: what is stored of images beside their data. Snapshots are not made yet; what asks for one answers as
//! if there were none.

mod directory;
mod header;
mod metadata;
mod object_map;
mod trash;

use super::{Answer, Call, Method, answer, nothing, reads, stored, writes};
use crate::object::work::{Stop, fail};
use bytes::Bytes;
use cairn_wire::ErrorCode;
use cairn_wire::op::{CALL_LEN_MAX, OMAP_ENTRIES_MAX};

pub const METHODS: &[Method] = &[
    writes("create", header::create),
    reads("get_size", header::get_size),
    writes("set_size", header::set_size),
    reads("get_features", header::get_features),
    writes("set_features", header::set_features),
    reads("get_flags", header::get_flags),
    writes("set_flags", header::set_flags),
    reads("get_object_prefix", header::get_object_prefix),
    reads("get_data_pool", header::get_data_pool),
    reads("get_create_timestamp", header::get_create_timestamp),
    reads("get_access_timestamp", header::get_access_timestamp),
    reads("get_modify_timestamp", header::get_modify_timestamp),
    writes("set_access_timestamp", header::set_access_timestamp),
    writes("set_modify_timestamp", header::set_modify_timestamp),
    reads("get_snapcontext", header::get_snapcontext),
    reads("get_protection_status", header::get_protection_status),
    reads("snapshot_get", header::snapshot_get),
    reads("snapshot_get_limit", header::snapshot_get_limit),
    reads("parent_get", header::parent_get),
    reads("parent_overlap_get", header::parent_overlap_get),
    reads("op_features_get", header::op_features_get),
    reads("get_all_features", header::get_all_features),
    reads("image_group_get", header::image_group_get),
    reads("get_id", directory::get_id),
    writes("set_id", directory::set_id),
    reads("dir_get_id", directory::dir_get_id),
    reads("dir_get_name", directory::dir_get_name),
    reads("dir_list", directory::dir_list),
    writes("dir_add_image", directory::dir_add_image),
    writes("dir_remove_image", directory::dir_remove_image),
    writes("dir_rename_image", directory::dir_rename_image),
    reads("metadata_get", metadata::get),
    reads("metadata_list", metadata::list),
    writes("metadata_set", metadata::set),
    writes("metadata_remove", metadata::remove),
    reads("object_map_load", object_map::load),
    writes("object_map_save", object_map::save),
    writes("object_map_resize", object_map::resize),
    writes("object_map_update", object_map::update),
    writes("trash_add", trash::add),
    reads("trash_get", trash::get),
    reads("trash_list", trash::list),
    writes("trash_remove", trash::remove),
    writes("trash_state_set", trash::state_set),
    reads("mirror_image_get", mirror_image_get),
    writes("mirror_image_remove", mirror_image_remove),
];

/// Ids are letters and digits.
fn check_id(id: &str) -> Result<(), Stop> {
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        fail(ErrorCode::INVAL)
    }
}

impl Call<'_, '_> {
    /// Entries whose keys begin with `prefix`, after `prefix` and `after`, at most `max` (0: all, within what a call
    /// may answer). Keys without the prefix.
    fn entries(&mut self, prefix: &str, after: &str, max: u64) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        let max = if max == 0 { u64::MAX } else { max };
        let mut found: Vec<(Bytes, Bytes)> = Vec::new();
        let mut cursor = Bytes::from(format!("{prefix}{after}"));
        let mut len = 0;
        loop {
            let want = (max - found.len() as u64).min(OMAP_ENTRIES_MAX.into()) as u32;
            let (page, more) = self.work.omap_range(&cursor, prefix.as_bytes(), want)?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            cursor = last.clone();
            len += page.iter().map(|(key, value)| 8 + key.len() + value.len()).sum::<usize>();
            if len > CALL_LEN_MAX {
                return fail(ErrorCode::OVERFLOW);
            }
            found.extend(page.into_iter().map(|(key, value)| (key.slice(prefix.len()..), value)));
            if !more || found.len() as u64 >= max {
                return Ok(found);
            }
        }
    }
}

/// No image is mirrored.
fn mirror_image_get(_: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    fail(ErrorCode::NOENT)
}

/// No image is mirrored.
fn mirror_image_remove(_: &mut Call<'_, '_>, _: &Bytes) -> Answer {
    fail(ErrorCode::NOENT)
}
