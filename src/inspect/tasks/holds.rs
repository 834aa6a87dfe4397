//! What tasks hold: guards, permits and the ends of channels.

use super::fields::{Route, Types};
use super::interest;
use super::tokio;
use crate::debuginfo::layout::TypeId;
use crate::model::HeldKind;

/// How to read something held.
#[derive(Clone, Debug)]
pub struct Hold {
    pub kind: HeldKind,
    /// To the resource; a null pointer on the way means that it was given up.
    pub route: Route,
    /// A permit's number of permits: none left, nothing held.
    pub permits: Option<(u64, u8)>,
    /// Of a guard for reading: where its lock says how many such it lets out,
    /// from the resource.
    pub most: Option<i64>,
    /// A receiver whose channel counts its messages where it is known by.
    pub counts: bool,
}

const UNBOUNDED_RECEIVER: &str = "tokio::sync::mpsc::unbounded::UnboundedReceiver<";

const READ_GUARD: &str = "tokio::sync::rwlock::read_guard::RwLockReadGuard<";

/// What kind of thing a type name says it is.
fn kind(name: &str) -> Option<HeldKind> {
    let rest = name.strip_prefix("tokio::sync::")?;
    let (path, _) = rest.split_once('<').unwrap_or((rest, ""));
    Some(match path {
        "mutex::MutexGuard"
        | "mutex::OwnedMutexGuard"
        | "mutex::MappedMutexGuard"
        | "mutex::OwnedMappedMutexGuard" => HeldKind::Mutex,
        "semaphore::SemaphorePermit"
        | "semaphore::OwnedSemaphorePermit"
        | "mpsc::bounded::Permit"
        | "mpsc::bounded::OwnedPermit" => HeldKind::Permit,
        "mpsc::bounded::Sender" | "mpsc::unbounded::UnboundedSender" => HeldKind::MpscSender,
        "mpsc::bounded::Receiver" | "mpsc::unbounded::UnboundedReceiver" => HeldKind::MpscReceiver,
        "oneshot::Sender" => HeldKind::OneshotSender,
        "watch::Sender" => HeldKind::WatchSender,
        "broadcast::Sender" => HeldKind::BroadcastSender,
        _ => match path.strip_prefix("rwlock::")?.rsplit("::").next()? {
            "RwLockReadGuard" | "OwnedRwLockReadGuard" => HeldKind::RwLockRead,
            "RwLockWriteGuard"
            | "OwnedRwLockWriteGuard"
            | "RwLockMappedWriteGuard"
            | "OwnedRwLockMappedWriteGuard" => HeldKind::RwLockWrite,
            _ => return None,
        },
    })
}

/// What a type by this name may contain, if it is one of these.
pub fn interest(name: &str) -> Option<u8> {
    let hold = match kind(name)? {
        HeldKind::MpscReceiver => interest::HOLD | interest::POLL,
        _ => interest::HOLD,
    };
    Some(hold)
}

/// How to read a type, if it is one of these.
pub fn find(types: &mut Types<'_>, id: TypeId, name: &str) -> Option<Hold> {
    let kind = kind(name)?;
    let route = match kind {
        HeldKind::Mutex | HeldKind::RwLockRead | HeldKind::RwLockWrite => {
            types.route(id, &[tokio::SEMAPHORE], 2)?
        }
        HeldKind::Permit if name.contains("::mpsc::") => tokio::channel(types, id)?,
        HeldKind::Permit => types.route(id, &[tokio::SEMAPHORE], 2)?,
        HeldKind::MpscSender | HeldKind::MpscReceiver => tokio::channel(types, id)?,
        HeldKind::OneshotSender => types.route(id, &[tokio::ONESHOT], 1)?,
        HeldKind::WatchSender => types.route(id, &[tokio::WATCH], 1)?,
        HeldKind::BroadcastSender => types.route(id, &[tokio::BROADCAST], 1)?,
    };
    let permits = match types.member(id, "permits") {
        Some(member) => {
            let size = u8::try_from(types.get(member.ty)?.size).ok()?;
            Some((member.offset, size))
        }
        None => None,
    };
    let counts = name.starts_with(UNBOUNDED_RECEIVER);
    let most = if kind == HeldKind::RwLockRead { most_readers(types, id, name) } else { None };
    Some(Hold { kind, route, permits, most, counts })
}

/// From a lock's semaphore to where it has the number of its permits.
fn most_readers(types: &mut Types<'_>, guard: TypeId, name: &str) -> Option<i64> {
    let lock = match name.strip_prefix(READ_GUARD) {
        // It leads to the semaphore, not to the lock around it.
        Some(of) => types.layouts.find(&format!("{}{of}", tokio::RWLOCK))?,
        None => types.route(guard, &[tokio::RWLOCK], 1)?.ty,
    };
    let (semaphore, of) = types.path(lock, &["s"])?;
    let semaphore = semaphore + types.within(of, tokio::SEMAPHORE).map_or(0, |(inner, _)| inner);
    let (most, _) = types.path(lock, &["mr"])?;
    Some(most.cast_signed().wrapping_sub(semaphore.cast_signed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_told_apart_by_their_names() {
        for (name, expect) in [
            ("tokio::sync::mutex::MutexGuard<u32>", Some(HeldKind::Mutex)),
            ("tokio::sync::rwlock::read_guard::RwLockReadGuard<u32>", Some(HeldKind::RwLockRead)),
            (
                "tokio::sync::rwlock::owned_write_guard::OwnedRwLockWriteGuard<u32>",
                Some(HeldKind::RwLockWrite),
            ),
            ("tokio::sync::semaphore::SemaphorePermit", Some(HeldKind::Permit)),
            ("tokio::sync::mpsc::bounded::Sender<app::Job>", Some(HeldKind::MpscSender)),
            ("tokio::sync::mpsc::bounded::WeakSender<app::Job>", None),
            ("tokio::sync::oneshot::Receiver<()>", None),
            ("app::sync::mutex::MutexGuard<u32>", None),
        ] {
            assert_eq!(kind(name), expect, "{name}");
        }
    }
}
