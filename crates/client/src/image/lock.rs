//! The exclusive lock of an image: taken before the first write, given up on request or kept, broken only after its dead
//! owner is in the blocklist.
//!
//! It *is* RBD's lock: attribute `lock.rbd_lock` of the header, cookie `auto` and the cookie of the owner's watch. An
//! owner is alive while its watch of the header lives.

use super::call::{self, Notice, Owner};
use super::error::ImageError;
use super::names::LOCK_COOKIE_PREFIX;
use crate::io::{BLOCKLIST_DURATION, ObjectIo, OpError};
use cairn_wire::ErrorCode;
use cairn_wire::op::{OpKind, OpOutput, Watcher};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{RwLock, RwLockReadGuard};

/// How long the owner may take to answer a request for the lock.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait between two tries, doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// The owner's answer when it keeps the lock (`EROFS`, as librbd answers).
const REFUSED: i32 = ErrorCode::ROFS.0;

/// What an owner does when another client asks for the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LockPolicy {
    /// Gives it up when its writes are done, and asks for it again at its next write: RBD's usual way.
    #[default]
    HandOver,
    /// Keeps it until the image is closed: a disk of a virtual machine has one writer.
    Keep,
}

#[derive(Debug)]
enum State {
    Free,
    Held { cookie: String },
    Lost { why: String },
}

/// The lock as one open image sees it. Writes hold [`ImageLock::held`] while they are under way, so that giving the lock up
/// waits for them.
#[derive(Debug)]
pub struct ImageLock {
    state: RwLock<State>,
    policy: LockPolicy,
    /// Whether it is held, for those who must not wait for `state`: two clients that both want the lock answer each
    /// other's requests while they wait for it.
    holding: AtomicBool,
    /// Why nothing may be done any more; apart from `state`, which writers keep locked.
    lost: Mutex<Option<String>>,
}

/// The image that the lock is of.
pub struct Subject<'a, I> {
    /// Its pool.
    pub io: &'a I,
    /// Its name.
    pub name: &'a str,
    /// Its header.
    pub header: &'a str,
    /// This client's watch of it.
    pub watch: u64,
}

impl ImageLock {
    pub fn new(policy: LockPolicy) -> Self {
        ImageLock {
            state: RwLock::new(State::Free),
            policy,
            holding: AtomicBool::new(false),
            lost: Mutex::new(None),
        }
    }

    /// What it does when it is asked for.
    pub fn policy(&self) -> LockPolicy {
        self.policy
    }

    /// Takes the lock if this image does not have it, and keeps it for as long as the guard lives.
    pub async fn held<I: ObjectIo>(&self, subject: Subject<'_, I>) -> Result<impl Sized + '_, ImageError> {
        loop {
            let state = self.state.read().await;
            match &*state {
                State::Held { .. } => return Ok(RwLockReadGuard::map(state, |_| &())),
                State::Lost { why } => {
                    return Err(ImageError::Lost { name: subject.name.into(), why: why.clone() });
                }
                State::Free => {}
            }
            drop(state);
            let mut state = self.state.write().await;
            if let State::Free = *state {
                if let Some(why) = self.lost.lock().clone() {
                    *state = State::Lost { why };
                    continue;
                }
                let cookie = acquire(&subject).await?;
                *state = State::Held { cookie };
                self.holding.store(true, Ordering::Release);
            }
        }
    }

    /// Whether it is held now, by this image.
    pub fn is_held(&self) -> bool {
        self.holding.load(Ordering::Acquire)
    }

    /// Gives it up, when the writes under way are done.
    pub async fn release<I: ObjectIo>(&self, subject: Subject<'_, I>) -> Result<(), ImageError> {
        let mut state = self.state.write().await;
        let State::Held { cookie } = &*state else { return Ok(()) };
        match call::run_even_full(subject.io, subject.header, vec![call::unlock(cookie)]).await {
            // Not there: given up already, or taken by somebody after this client came into the blocklist.
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        self.holding.store(false, Ordering::Release);
        *state = State::Free;
        drop(state);
        tell(&subject, Notice::ReleasedLock).await;
        Ok(())
    }

    /// The watch holds again after it was lost: is the lock still this image's?
    pub async fn verify<I: ObjectIo>(&self, subject: Subject<'_, I>) {
        let cookie = match &*self.state.read().await {
            State::Held { cookie } => cookie.clone(),
            _ => return,
        };
        let Ok(owner) = owner(&subject).await else { return };
        if owner.is_none_or(|owner| owner.client != subject.io.client_id() || owner.cookie != cookie) {
            self.lose("another client broke its lock while it was cut off".into()).await;
        }
    }

    /// This image may not be used any more.
    pub async fn lose(&self, why: String) {
        *self.lost.lock() = Some(why.clone());
        *self.state.write().await = State::Lost { why };
    }
}

/// Takes the lock, asking its owner for it, or breaking it when the owner is dead. The cookie.
async fn acquire<I: ObjectIo>(subject: &Subject<'_, I>) -> Result<String, ImageError> {
    let cookie = format!("{LOCK_COOKIE_PREFIX}{}", subject.watch);
    let mut wait = RETRY_MIN;
    loop {
        // Taking a lock makes the object it is of: the header of an image that was removed shall stay away.
        let ops = vec![OpKind::Stat.into(), call::lock(&cookie)];
        match call::run_even_full(subject.io, subject.header, ops).await {
            Ok(_) => break,
            // By this very watch: an answer was lost on the way to a process that asks anew.
            Err(error) if error.code() == Some(ErrorCode::EXIST) => break,
            Err(error) if error.code() == Some(ErrorCode::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(owner) = owner(subject).await? {
            if is_alive(subject, &owner).await? {
                ask_for(subject, &owner).await?;
            } else {
                evict(subject, &owner).await?;
            }
        }
        subject.io.sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
    tell(subject, Notice::AcquiredLock).await;
    Ok(cookie)
}

async fn owner<I: ObjectIo>(subject: &Subject<'_, I>) -> Result<Option<Owner>, ImageError> {
    let answer = call::run(subject.io, subject.header, vec![call::lock_info()]).await?;
    call::well_formed(call::read_lock_info(&answer, 0), subject.name, "lock", subject.header)
}

/// Whether the owner watches the header.
async fn is_alive<I: ObjectIo>(subject: &Subject<'_, I>, owner: &Owner) -> Result<bool, ImageError> {
    let watchers = watchers(subject.io, subject.header).await?;
    Ok(watchers.iter().any(|watcher| {
        watcher.client == owner.client
            && owner.cookie.strip_prefix(LOCK_COOKIE_PREFIX) == Some(&watcher.cookie.to_string())
    }))
}

/// Who watches an object.
pub async fn watchers(io: &impl ObjectIo, object: &str) -> Result<Vec<Watcher>, OpError> {
    let answer = call::run(io, object, vec![OpKind::ListWatchers.into()]).await?;
    match answer.results.into_iter().next().map(|result| result.output) {
        Some(OpOutput::Watchers(watchers)) => Ok(watchers.into_vec()),
        _ => Err(OpError::BadAnswer { object: object.into() }),
    }
}

async fn ask_for<I: ObjectIo>(subject: &Subject<'_, I>, owner: &Owner) -> Result<(), ImageError> {
    let request = Notice::RequestLock.encode(subject.io.client_id());
    let notified = subject.io.notify(subject.header, request, REQUEST_TIMEOUT).await?;
    let refused = notified
        .acknowledged
        .iter()
        .any(|answer| answer.client == owner.client && call::decode_response(&answer.reply) == Some(REFUSED));
    if refused {
        return Err(ImageError::InUse { name: subject.name.into(), client: owner.client, addr: owner.addr });
    }
    Ok(())
}

/// Shuts the dead owner out, then takes the lock from it: what it may still have on the way is refused.
async fn evict<I: ObjectIo>(subject: &Subject<'_, I>, owner: &Owner) -> Result<(), ImageError> {
    if owner.addr != subject.io.addr() {
        subject.io.blocklist(owner.addr, BLOCKLIST_DURATION).await?;
    }
    match call::run_even_full(subject.io, subject.header, vec![call::break_lock(owner)]).await {
        Ok(_) => Ok(()),
        // Somebody else was faster.
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells everybody; whether they hear it matters to nobody's safety.
pub async fn tell<I: ObjectIo>(subject: &Subject<'_, I>, notice: Notice) {
    let payload = notice.encode(subject.io.client_id());
    if let Err(error) = subject.io.notify(subject.header, payload, REQUEST_TIMEOUT).await {
        tracing::debug!(image = subject.name, %error, "could not tell other clients of {notice:?}");
    }
}
