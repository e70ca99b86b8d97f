//! What clients do with images: they open one, take its lock or have it taken, write and read, discard, close, remove it
//! and make it anew.

use super::super::client::{BLOCK_BYTES, fill, value_of};
use super::super::{Ev, Kind, World};
use super::io::SimIo;
use super::tasks::lock;
use crate::check::image::Place;
use crate::check::register::Value;
use crate::plan::Proc;
use crate::timeline::Instant;
use bytes::Bytes;
use cairn_client::OpError;
use cairn_client::image::{self, CreateOptions, Image, ImageError, LockPolicy, OpenMode, Piece};
use cairn_wire::ErrorCode;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Blocks of a data object.
pub const OBJECT_BLOCKS: u64 = 2;
/// Objects have so many bytes, as a power of two.
const ORDER: u8 = 13;
/// Blocks of an image.
const IMAGE_BLOCKS: u64 = 10;
/// The image.
const NAME: &str = "disk";
/// Requests of one client under way at most.
const BUSY_MAX: usize = 3;
/// Between two looks of a client that has nothing to do.
const REST_US: u64 = 400_000;

/// How a request ended.
enum Done {
    Opened(Result<Image<SimIo>, ImageError>),
    /// Something of which nothing has to be known but whether it went wrong.
    Ended(&'static str, Result<(), ImageError>),
    Closed,
    Removed(Result<(), ImageError>),
    Read {
        image: String,
        first: u64,
        sent: Instant,
        result: Result<Vec<Piece>, ImageError>,
    },
}

/// What a client does with the image at the moment.
#[derive(Default)]
pub struct Using {
    open: Option<Image<SimIo>>,
    /// Requests under way.
    busy: usize,
    /// It is closed as soon as nothing is under way.
    leaves: bool,
    /// And then removed.
    removes: bool,
    done: Arc<Mutex<VecDeque<Done>>>,
}

impl Using {
    fn is_at_rest(&self) -> bool {
        self.open.is_none() && self.busy == 0
    }
}

impl World {
    /// Clients of images are the last ones.
    pub(in super::super) fn uses_images(&self, n: u16) -> bool {
        n < self.shape.clients && n + self.shape.lockers >= self.shape.clients
    }

    /// Lets a request of a client run.
    fn image_request(&mut self, n: u16, request: impl Future<Output = Done> + Send + 'static) {
        let Some(user) = self.image_user(n) else { return };
        user.using.busy += 1;
        let done = user.using.done.clone();
        user.tasks.spawn(Box::pin(async move {
            let outcome = request.await;
            lock(&done).push_back(outcome);
        }));
        self.wake_images(n);
    }

    pub(in super::super) fn image_think(&mut self, n: u16, life: u64) {
        let calm = self.calm;
        let others_rest = self.images_at_rest(Some(n));
        let is_gone = self.image_is_gone;
        let Some(client) = self.clients.get_mut(&n).filter(|client| client.life == life) else { return };
        let Some(user) = client.images.as_deref_mut() else { return };
        let rng = &mut client.rng;
        let rest_us = match rng.below(50) {
            0 => rng.between(100_000, 1_500_000),
            _ => rng.between(300, 30_000),
        };
        let (drawn, more) = (rng.below(100), rng.next());
        let using = &mut user.using;
        self.line.after_us(if calm { REST_US } else { rest_us }, Ev::ClientThink { client: n, life });
        let io = user.io.clone();
        let Some(image) = using.open.clone() else {
            if using.busy > 0 {
                return;
            }
            if calm {
                // When all have closed it, the first removes it.
                if n + self.shape.lockers == self.shape.clients && others_rest && !is_gone {
                    self.image_request(
                        n,
                        async move { Done::Removed(image::remove(&io, NAME, |_, _| ()).await) },
                    );
                }
                return;
            }
            let policy = if drawn < 70 { LockPolicy::HandOver } else { LockPolicy::Keep };
            return self.image_request(n, async move {
                Done::Opened(Image::open(&io, NAME, OpenMode::ReadWrite(policy)).await)
            });
        };
        if calm || using.leaves {
            if using.busy == 0 {
                let removes = std::mem::take(&mut using.removes) && !calm;
                (using.open, using.leaves) = (None, false);
                self.image_request(n, async move {
                    // A lock that is not given back is broken by the next one.
                    drop(image.close().await);
                    match removes {
                        true => Done::Removed(image::remove(&io, NAME, |_, _| ()).await),
                        false => Done::Closed,
                    }
                });
            }
            return;
        }
        if using.busy >= BUSY_MAX {
            return;
        }
        let first = more % IMAGE_BLOCKS;
        let count = (1 + (more >> 8) % 3).min(IMAGE_BLOCKS - first);
        let (offset, len) = (first * BLOCK_BYTES, count * BLOCK_BYTES);
        match drawn {
            0..=49 => {
                let mut bytes = Vec::with_capacity(len as usize);
                for _ in 0..count {
                    fill(Value(self.checks.new_number()), &mut bytes);
                }
                let bytes = Bytes::from(bytes);
                self.image_request(n, async move { Done::Ended("write", image.write(offset, bytes).await) });
            }
            50..=89 => {
                let (id, sent) = (image.info().id, self.now());
                self.image_request(n, async move {
                    Done::Read { image: id, first, sent, result: image.read(offset, len).await }
                });
            }
            90..=92 => {
                self.image_request(n, async move { Done::Ended("lock", image.acquire_lock().await) });
            }
            93..=95 => {
                // The last object, or a part of it: the others hold what was written there.
                let from = (IMAGE_BLOCKS - 1 - more % OBJECT_BLOCKS) * BLOCK_BYTES;
                let len = IMAGE_BLOCKS * BLOCK_BYTES - from;
                self.image_request(n, async move { Done::Ended("discard", image.discard(from, len).await) });
            }
            96 => {
                using.leaves = true;
                using.removes = more.is_multiple_of(4);
            }
            _ => {}
        }
    }

    /// Whether no client but one uses the image.
    fn images_at_rest(&self, but: Option<u16>) -> bool {
        let users = self.clients.iter().filter(|(n, _)| self.uses_images(**n) && Some(**n) != but);
        users
            .into_iter()
            .all(|(_, client)| client.images.as_ref().is_some_and(|user| user.using.is_at_rest()))
    }

    /// What is still to be done with images.
    pub(in super::super) fn images_unsettled(&self) -> Option<String> {
        if self.shape.lockers == 0 || self.image_is_gone {
            return None;
        }
        let busy = self.clients.iter().filter_map(|(n, client)| {
            let using = &client.images.as_ref()?.using;
            (!using.is_at_rest()).then(|| format!(" client.{n} has {} requests under way;", using.busy))
        });
        Some(format!("the image is not removed;{}", busy.collect::<String>()))
    }

    pub(super) fn image_outcomes(&mut self, n: u16) {
        loop {
            let Some(user) = self.image_user(n) else { return };
            let Some(done) = lock(&user.using.done).pop_front() else { return };
            user.using.busy -= 1;
            self.image_done(n, done);
        }
    }

    fn image_done(&mut self, n: u16, done: Done) {
        let (now, who) = (self.now(), Some(Proc::Client(n)));
        match done {
            Done::Opened(Ok(image)) => {
                self.log.say(now, who, || format!("has image {} open", image.info().id));
                if let Some(user) = self.image_user(n) {
                    user.using.open = Some(image);
                }
            }
            Done::Opened(Err(ImageError::NotFound { .. })) => {
                let Some(io) = self.image_user(n).map(|user| user.io.clone()) else { return };
                let options = CreateOptions { size: IMAGE_BLOCKS * BLOCK_BYTES, order: ORDER };
                self.image_request(n, async move {
                    Done::Ended("creation", image::create(&io, NAME, options).await)
                });
            }
            Done::Opened(Err(error)) => self.image_failed(n, "opening", error),
            Done::Ended(what, Err(error)) => self.image_failed(n, what, error),
            Done::Ended(what, Ok(())) => self.log.say(now, who, || format!("{what} is done")),
            Done::Closed => {}
            Done::Removed(Ok(()) | Err(ImageError::NotFound { .. })) => {
                self.log.say(now, who, || "has removed the image".to_owned());
                self.image_is_gone = self.calm && self.images_at_rest(None);
            }
            Done::Removed(Err(error)) => self.image_failed(n, "removal", error),
            Done::Read { image, first, sent, result: Ok(pieces) } => {
                let mut bytes = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Data(data) => bytes.extend_from_slice(&data),
                        Piece::Zero(len) => bytes.resize(bytes.len() + len as usize, 0),
                    }
                }
                for (at, content) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
                    let block = first + at as u64;
                    let place = Place { image: image.clone(), object: block / OBJECT_BLOCKS, block };
                    let seen = match value_of(content) {
                        Some(value) => self.checks.images.read(&place, value, sent, now),
                        None => Err(format!("block {block} of image {image} was read torn")),
                    };
                    if let Err(why) = seen {
                        self.fail(Kind::Safety, format!("client.{n}: {why}"));
                    }
                }
            }
            Done::Read { result: Err(error), .. } => self.image_failed(n, "read", error),
        }
    }

    /// A request ended with an error: is that one to be expected when others use the image and remove it, and disks and
    /// monitors fail? The image is opened anew.
    fn image_failed(&mut self, n: u16, what: &str, error: ImageError) {
        let now = self.now();
        self.log.say(now, Some(Proc::Client(n)), || format!("{what}: {error}"));
        let hurt = self.osds.values().any(|node| node.hurt);
        let expected = match &error {
            ImageError::Op(OpError::Blocklisted { .. }) => {
                let Some(client) = self.clients.get_mut(&n).filter(|client| !client.is_out) else { return };
                client.is_out = true;
                let life = client.life;
                self.line.after_us(1_000, Ev::ClientRenew { client: n, life });
                return;
            }
            ImageError::Lost { .. }
            | ImageError::InUse { .. }
            | ImageError::NotFound { .. }
            | ImageError::Exists { .. }
            | ImageError::Closed
            | ImageError::Op(OpError::Monitors(_)) => true,
            ImageError::Op(OpError::Code { code: ErrorCode::NOENT, .. }) => true,
            ImageError::Op(OpError::Code { code: ErrorCode::IO, .. }) => hurt,
            _ => false,
        };
        if !expected {
            return self.fail(Kind::Safety, format!("client.{n}: {what} of an image: {error}"));
        }
        if let Some(user) = self.image_user(n)
            && user.using.open.is_some()
        {
            user.using.leaves = true;
        }
    }
}
