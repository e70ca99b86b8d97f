//! Making, listing and removing images.
//!
//! An image is there when its name is: `rbd_id.NAME` first, then the directory, then the header. Removing goes the
//! other way, so that whatever was interrupted can be removed again.

use super::call::{self, Header, well_formed};
use super::layout::Layout;
use super::lock::{LockPolicy, watchers};
use super::names::{
    DIRECTORY, FEATURES_DEFAULT, NAME_LEN_MAX, OBJECTS_MAX, ORDER_DEFAULT, ORDER_MAX, ORDER_MIN,
    header_object, id_object, object_prefix,
};
use super::{Image, ImageError, OpenMode, header_of, id_of};
use crate::io::{ObjectIo, OpError};
use cairn_wire::op::{OpFlags, OpKind};
use cairn_wire::{ErrorCode, Payload};

/// Names asked for at a time.
const LIST_CHUNK: u64 = 512;

/// How an image is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateOptions {
    /// Bytes.
    pub size: u64,
    /// Objects have `2^order` bytes.
    pub order: u8,
}

impl CreateOptions {
    /// Of this size, the rest as usual.
    pub fn of_size(size: u64) -> Self {
        CreateOptions { size, order: ORDER_DEFAULT }
    }
}

/// Whether an image can have this size.
pub(super) fn check_size(size: u64, layout: Layout) -> Result<(), ImageError> {
    let max = OBJECTS_MAX * layout.object_len();
    if size == 0 || size > max {
        return Err(ImageError::BadSize { size, object_len: layout.object_len(), max });
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), ImageError> {
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains(['/', '@', '\0']) {
        return Err(ImageError::BadName { name: name.into() });
    }
    Ok(())
}

/// An id that no image ever had: the session's number, which is given once, and a count.
fn new_id(io: &impl ObjectIo) -> String {
    format!("{:x}{:08x}", io.client_id(), io.next_number())
}

/// Makes an image. Nothing of it is stored but what describes it.
///
/// # Errors
/// When its name is taken or cannot be, when its size cannot be, or what the objects answer.
pub async fn create(io: &impl ObjectIo, name: &str, options: CreateOptions) -> Result<(), ImageError> {
    check_name(name)?;
    if !(ORDER_MIN..=ORDER_MAX).contains(&options.order) {
        return Err(ImageError::BadOrder { order: options.order });
    }
    check_size(options.size, Layout { order: options.order })?;
    let id = new_id(io);
    let exclusive = || OpKind::Create { exclusive: true }.into();
    let set_id = call::call("rbd", "set_id", |out| {
        out.string(&id);
    });
    call::run(io, &id_object(name), vec![exclusive(), set_id]).await.map_err(|error| match error.code() {
        Some(ErrorCode::EXIST) => ImageError::Exists { pool: io.pool_name().into(), name: name.into() },
        _ => error.into(),
    })?;
    let header = Header {
        size: options.size,
        order: options.order,
        features: FEATURES_DEFAULT,
        object_prefix: object_prefix(&id),
    };
    let made = async {
        let add = call::call("rbd", "dir_add_image", |out| {
            out.string(name).string(&id);
        });
        call::run(io, DIRECTORY, vec![OpKind::Create { exclusive: false }.into(), add]).await?;
        call::run(io, &header_object(&id), vec![exclusive(), call::create_header(&header)]).await
    };
    if let Err(error) = made.await {
        // So that the name is free again. If this fails, too, 'remove' does it.
        if let Err(second) = forget(io, name, &id).await {
            tracing::warn!(image = name, error = %second, "could not clean up after an image that was not made");
        }
        return Err(error.into());
    }
    Ok(())
}

/// Names of all images, in order.
///
/// # Errors
/// What the directory answers.
pub async fn list(io: &impl ObjectIo) -> Result<Vec<String>, ImageError> {
    let mut names: Vec<String> = Vec::new();
    loop {
        let after = names.last().map_or("", String::as_str);
        let answer = match call::run(io, DIRECTORY, vec![call::dir_list(after, LIST_CHUNK)]).await {
            Ok(answer) => answer,
            Err(error) if error.is_not_found() => return Ok(names),
            Err(error) => return Err(error.into()),
        };
        let chunk = well_formed(call::read_dir_list(&answer), "", "directory", DIRECTORY)?;
        let is_last = (chunk.len() as u64) < LIST_CHUNK;
        names.extend(chunk.into_iter().map(|(name, _)| name));
        if is_last {
            return Ok(names);
        }
    }
}

/// Removes an image that nobody uses. `told` hears of objects done, of how many.
///
/// # Errors
/// [`ImageError::InUse`]; what its objects answer. What was interrupted can be done again.
pub async fn remove(io: &impl ObjectIo, name: &str, told: impl Fn(u64, u64)) -> Result<(), ImageError> {
    let mut id = id_of(io, name).await?;
    match header_of(io, name, &id).await {
        Ok(_) => {
            if let Some(user) = watchers(io, &header_object(&id)).await?.first() {
                return Err(ImageError::InUse { name: name.into(), client: user.client, addr: user.addr });
            }
            let image = Image::open(io, name, OpenMode::ReadWrite(LockPolicy::Keep)).await?;
            // Not another one that was made under the name meanwhile.
            id.clone_from(&image.inner.id);
            let removed = async {
                image.acquire_lock().await?;
                image.inner.trim(0, image.size(), &told).await?;
                // The header goes last of all that is the image's: until then its objects can be found. And while the
                // lock is held: who opened the image meanwhile must not make objects that nothing leads to.
                delete(io, image.inner.header.clone()).await.map_err(ImageError::from)
            };
            let removed = removed.await;
            let closed = image.close().await;
            removed?;
            match closed {
                Err(ImageError::Op(error)) if error.is_not_found() => {}
                closed => closed?,
            }
        }
        // An earlier removal, or a making that was cut short, came as far as this.
        Err(ImageError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    forget(io, name, &id).await.map_err(ImageError::from)
}

/// Removes the header, the entry of the directory and the name, unless this is another image's by now.
async fn forget(io: &impl ObjectIo, name: &str, id: &str) -> Result<(), OpError> {
    delete(io, header_object(id)).await?;
    let remove = call::call("rbd", "dir_remove_image", |out| {
        out.string(name).string(id);
    });
    ok_if_gone(io.operate(DIRECTORY, vec![remove], Payload::none(), OpFlags::FULL_TRY).await)?;
    let held = call::id_content(id);
    let ops = vec![OpKind::CompareExtent { offset: 0, len: held.len() as u64 }.into(), OpKind::Delete.into()];
    match io.operate(&id_object(name), ops, Payload::of(0, held), OpFlags::FULL_TRY).await {
        // Somebody else has removed it as well, and made an image of that name since.
        Err(error) if error.code() == Some(ErrorCode::CANCELED) => Ok(()),
        outcome => ok_if_gone(outcome),
    }
}

async fn delete(io: &impl ObjectIo, object: String) -> Result<(), OpError> {
    let ops = vec![OpKind::Delete.into()];
    ok_if_gone(io.operate(&object, ops, Payload::none(), OpFlags::FULL_TRY).await)
}

fn ok_if_gone<T>(outcome: Result<T, OpError>) -> Result<(), OpError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Listing, OpAnswer, Watch, WatchHandler};
    use cairn_types::{EntityAddr, Epoch, ObjectId, PoolId};
    use cairn_wire::op::Op;
    use futures_util::FutureExt;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// Objects that can be compared and deleted.
    #[derive(Clone, Default)]
    struct Shelf(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

    impl Shelf {
        fn put(&self, object: String, content: &[u8]) {
            self.0.lock().unwrap().insert(object, content.to_vec());
        }

        fn has(&self, object: &str) -> bool {
            self.0.lock().unwrap().contains_key(object)
        }
    }

    impl ObjectIo for Shelf {
        async fn operate(
            &self,
            object: &str,
            ops: Vec<Op>,
            data: Payload,
            _: OpFlags,
        ) -> Result<OpAnswer, OpError> {
            let mut objects = self.0.lock().unwrap();
            let held = objects.get(object).cloned().unwrap_or_default();
            let fail = |code| Err(OpError::Code { object: object.to_owned(), code, results: Vec::new() });
            for op in ops {
                match op.kind {
                    OpKind::CompareExtent { .. } if !held.starts_with(data.segments()[0].data()) => {
                        return fail(ErrorCode::CANCELED);
                    }
                    OpKind::Delete if objects.remove(object).is_none() => return fail(ErrorCode::NOENT),
                    _ => {}
                }
            }
            Ok(OpAnswer::default())
        }

        async fn list(&self, _: Option<ObjectId>, _: u32) -> Result<Listing, OpError> {
            Err(OpError::Closed)
        }

        async fn watch(&self, _: &str, _: Arc<dyn WatchHandler>) -> Result<Watch, OpError> {
            Err(OpError::Closed)
        }

        async fn unwatch(&self, _: &Watch) -> Result<(), OpError> {
            Err(OpError::Closed)
        }

        async fn blocklist(&self, _: EntityAddr, _: Duration) -> Result<Epoch, OpError> {
            Err(OpError::Closed)
        }

        async fn sleep(&self, _: Duration) {}

        fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {}

        fn next_number(&self) -> u64 {
            0
        }

        fn client_id(&self) -> u64 {
            1
        }

        fn addr(&self) -> EntityAddr {
            EntityAddr::whole_host([127, 0, 0, 1].into())
        }

        fn pool_id(&self) -> PoolId {
            PoolId(1)
        }

        fn pool_name(&self) -> &str {
            "vms"
        }
    }

    #[test]
    fn a_name_that_another_image_has_by_now_stays() {
        let io = Shelf::default();
        let forget = |id| forget(&io, "disk", id).now_or_never().expect("a shelf answers at once");
        // Its removal was so slow that somebody else has ended it, and has made another image.
        io.put(id_object("disk"), &call::id_content("1b"));
        forget("1a").expect("nothing is left of it");
        assert!(io.has(&id_object("disk")), "the name leads to the other image");
        io.put(header_object("1b"), b"");
        forget("1b").expect("it is removed");
        assert!(!io.has(&id_object("disk")) && !io.has(&header_object("1b")));
        forget("1b").expect("it was removed before");
    }
}
