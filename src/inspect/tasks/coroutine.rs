//! Coroutines: what `async` functions and blocks are compiled to.
//!
//! ```text
//! Unresumed ──poll──▶ Suspend0 ──poll──▶ ... ──poll──▶ Returned
//!                     __awaitee, live locals           (or Panicked)
//! ```
//!
//! Each state has a payload of its own: the locals that live across its await,
//! and `__awaitee`, the future that it awaits.

use std::rc::Rc;

use super::fields::Route;
use super::frames::FrameId;
use super::interest;
use super::leaves;
use super::plan::{Part, Plans};
use super::tokio::{self, Senders};
use crate::debuginfo::layout::{Member, Polled, Shape, Type, Variant, Variants};

/// A coroutine's states.
#[derive(Debug)]
pub struct Coroutine {
    pub variants: Variants,
    /// As `variants.list`.
    pub states: Box<[CoState]>,
    pub scope: Scope,
}

/// One state of a coroutine.
#[derive(Debug)]
pub struct CoState {
    pub stage: CoStage,
    pub frame: FrameId,
    /// The future that it awaits.
    pub awaitee: Option<Part>,
    /// Other live locals that may hold something.
    pub locals: Box<[Part]>,
    /// Where the compiler keeps flags of locals that may have been moved away.
    pub drop_flags: Box<[u64]>,
    /// Identity of the channel that the function is about.
    pub subject: Option<Route>,
    /// Of a watch channel: where it counts its senders.
    pub senders: Option<Senders>,
    /// To what that channel counts up with each message.
    pub sent: Option<Route>,
    /// To a socket that the function is about.
    pub socket: Option<(Route, Rc<leaves::Socket>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoStage {
    Unresumed,
    Suspended,
    /// Returned or panicked.
    Done,
}

/// Which of tokio's functions a frame is of: it tells what the leaf below it
/// waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Mutex,
    RwLockRead,
    RwLockWrite,
    Semaphore,
    MpscSend,
    /// `Sender::closed` and the like: until the other end has gone.
    Closed,
    Oneshot,
    OnceCell,
    Barrier,
    Watch,
    Yield,
    /// Others of tokio's.
    Tokio,
    Other,
}

impl Scope {
    /// By the name of the coroutine's type.
    pub fn of(name: &str) -> Self {
        let Some(rest) = name.strip_prefix("tokio::") else {
            return if name.starts_with("core::") { Self::Tokio } else { Self::Other };
        };
        let (path, last) = match rest.split_once('{') {
            Some((path, last)) => (path, last),
            None => (rest, ""),
        };
        let method = |name: &str| path.contains(name) || last.contains(name);
        if path.starts_with("sync::") && method("::closed::") {
            Self::Closed
        } else if path.starts_with("sync::mutex::") {
            Self::Mutex
        } else if path.starts_with("sync::rwlock::") {
            if method("::write") { Self::RwLockWrite } else { Self::RwLockRead }
        } else if path.starts_with("sync::semaphore::") {
            Self::Semaphore
        } else if path.starts_with("sync::mpsc::") {
            Self::MpscSend
        } else if path.starts_with("sync::oneshot::") {
            Self::Oneshot
        } else if path.starts_with("sync::once_cell::") {
            Self::OnceCell
        } else if path.starts_with("sync::barrier::") {
            Self::Barrier
        } else if path.starts_with("sync::watch::") {
            Self::Watch
        } else if path.starts_with("task::yield_now::") {
            Self::Yield
        } else {
            Self::Tokio
        }
    }
}

impl Plans<'_> {
    /// Works out the states of a coroutine.
    pub fn coroutine(
        &mut self,
        ty: &Type,
        polled: Option<&Polled>,
        variants: &Variants,
    ) -> Coroutine {
        let fallback = Polled {
            function: function_of(&ty.name).into(),
            place: variants.list.first().and_then(|first| first.place.clone()),
            coroutine: true,
        };
        let polled = polled.unwrap_or(&fallback);
        let captured: Vec<Member> = variants
            .list
            .iter()
            .find(|variant| stage(&variant.name) == CoStage::Unresumed)
            .and_then(|variant| self.types.get(variant.payload))
            .and_then(|payload| match &payload.shape {
                Shape::Struct(members) => Some(members.to_vec()),
                _ => None,
            })
            .unwrap_or_default();
        // The arguments of an `async fn` are moved into locals at its start;
        // what an `async` block captures is used where it is.
        let arguments = ty.name.contains("{async_fn_env#");
        let scope = Scope::of(&ty.name);
        let states = variants
            .list
            .iter()
            .map(|variant| {
                let stage = stage(&variant.name);
                let frame = match stage {
                    CoStage::Suspended => self.frames.suspended(polled, variant.place.as_ref()),
                    _ => self.frames.frame(&polled.function, polled.place.as_ref()),
                };
                let mut state = CoState {
                    stage,
                    frame,
                    awaitee: None,
                    locals: Box::default(),
                    drop_flags: Box::default(),
                    subject: None,
                    senders: None,
                    sent: None,
                    socket: None,
                };
                self.state(&mut state, variant, &captured, arguments, scope);
                state
            })
            .collect();
        Coroutine { variants: variants.clone(), states, scope }
    }

    fn state(
        &mut self,
        state: &mut CoState,
        variant: &Variant,
        captured: &[Member],
        arguments: bool,
        scope: Scope,
    ) {
        let Some(payload) = self.types.get(variant.payload) else { return };
        let Shape::Struct(members) = &payload.shape else { return };
        let mut locals: Vec<Part> = Vec::new();
        let mut flags = Vec::new();
        for (index, member) in members.iter().enumerate() {
            let offset = variant.offset.saturating_add(member.offset);
            let part = Part { name: member.name.clone(), offset, ty: member.ty };
            if &*member.name == "__awaitee" {
                state.awaitee = Some(part);
                continue;
            }
            if scope != Scope::Other && state.stage == CoStage::Suspended {
                self.about(state, &part);
            }
            if member.name.starts_with("__") {
                let ty = self.types.get(member.ty);
                if ty.is_some_and(|ty| &*ty.name == "bool") {
                    flags.push(offset);
                    continue;
                }
            }
            let same = |other: &Member| other.offset == member.offset && other.ty == member.ty;
            if members[..index].iter().any(same) {
                continue;
            }
            let is_argument = arguments
                && state.stage == CoStage::Suspended
                && captured.contains(member)
                && members.iter().filter(|other| *other == member).count() == 1;
            if !is_argument && self.interest(member.ty) & (interest::KEEP | interest::HOLD) != 0 {
                locals.push(part);
            }
        }
        state.locals = locals.into();
        state.drop_flags = flags.into();
    }

    /// What one of tokio's functions is about, by the references it keeps.
    fn about(&mut self, state: &mut CoState, part: &Part) {
        let Some(ty) = self.types.get(part.ty) else { return };
        if !matches!(ty.shape, Shape::Pointer(_)) {
            return;
        }
        let moved = |mut route: Route| {
            if let Some(first) = route.steps.first_mut() {
                *first += part.offset;
            }
            route
        };
        if state.subject.is_none() {
            let found = tokio::channel(&mut self.types, part.ty)
                .or_else(|| self.types.route(part.ty, &[tokio::WATCH, tokio::BROADCAST], 2));
            state.senders = found
                .as_ref()
                .and_then(|shared| Senders::find(&mut self.types, shared.ty, "ref_count_tx", None));
            state.subject = found.map(&moved);
            state.sent = tokio::sent(&mut self.types, part.ty).map(&moved);
        }
        if state.socket.is_none()
            && let Some(route) = self.types.route(part.ty, &[tokio::POLL_EVENTED], 2)
            && let Some(socket) = leaves::Socket::find(&mut self.types, route.ty)
        {
            state.socket = Some((moved(route), Rc::new(socket)));
        }
    }
}

/// Whether an enum is a coroutine.
pub fn is_coroutine(variants: &Variants) -> bool {
    variants.list.first().is_some_and(|first| &*first.name == "Unresumed")
}

fn stage(variant: &str) -> CoStage {
    match variant {
        "Unresumed" => CoStage::Unresumed,
        "Returned" | "Panicked" => CoStage::Done,
        _ => CoStage::Suspended,
    }
}

/// The function's name from the name of its coroutine's type.
fn function_of(name: &str) -> &str {
    match name.rfind("::{async_fn_env#") {
        Some(end) => &name[..end],
        None => name,
    }
}
