//! Where a program keeps its futures: types, task vtables, await points.
//!
//! [`Layouts`] answers questions about the program's types; its answers come
//! from DWARF, read as far as asked, or from a saved layout file. Addresses
//! are as linked, offsets and sizes in bytes.

#[cfg(feature = "cli")]
mod cache;
#[cfg(any(test, fuzzing))]
pub mod damage;
mod die;
mod dwarf;
mod hash;
mod identity;
mod locate;
mod polled;
mod root;
mod saved;

mod scan;
mod sections;
mod split;
mod store;
mod symbols;
mod tables;
#[cfg(test)]
mod tests;
mod thread_local;

use std::sync::Arc;

#[cfg(feature = "cli")]
pub use self::cache::Cache;
pub use self::dwarf::Dwarf;
#[cfg(feature = "cli")]
pub use self::locate::{Opened, Source, source};
pub use self::locate::{Options, open};
#[cfg(any(test, fuzzing))]
pub use self::saved::Saved;
#[cfg(any(feature = "cli", test, fuzzing))]
pub use self::saved::write;
use crate::error::Result;

/// A type of one [`Layouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// A type's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    /// Whole name with path and generics, as rustc writes it:
    /// `tokio::sync::mutex::Mutex<u32>`, `app::watch::{async_fn_env#0}`.
    pub name: Arc<str>,
    /// Size of a value.
    pub size: u64,
    /// What it is made of.
    pub shape: Shape,
}

/// What a type is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Struct, tuple, closure, fat pointer, or one variant's payload.
    Struct(Box<[Member]>),
    /// Enum or coroutine.
    Enum(Variants),
    /// Union (`MaybeUninit`, `ManuallyDrop` is a struct).
    Union(Box<[Member]>),
    /// Thin pointer of any kind, thin `Box` included; `None` for `*const ()`.
    Pointer(Option<TypeId>),
    /// Fixed-size array.
    Array {
        /// Element.
        of: TypeId,
        /// How many.
        count: u64,
    },
    /// Numbers and whatever is not looked into.
    Opaque,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name; `__0` for tuples, as rustc writes it.
    pub name: Arc<str>,
    /// Where it begins.
    pub offset: u64,
    /// Its type.
    pub ty: TypeId,
}

/// The variants of an enum and how to tell which one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variants {
    /// Where the discriminant is; `None` if there is only one variant.
    pub tag: Option<Tag>,
    /// In DWARF's order.
    pub list: Box<[Variant]>,
}

/// A discriminant's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Where it begins.
    pub offset: u64,
    /// 1, 2, 4, 8 or 16 bytes.
    pub size: u8,
}

/// One variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name; `Unresumed`, `Suspend0`, `Returned` in a coroutine.
    pub name: Arc<str>,
    /// Discriminants that mean this variant, as ranges, both ends included.
    /// Empty: every value that no other variant claims.
    pub values: Box<[(u128, u128)]>,
    /// A struct of the live locals or fields.
    pub payload: TypeId,
    /// Where the payload begins.
    pub offset: u64,
    /// In a coroutine: where in the source it is suspended.
    pub place: Option<Place>,
}

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Path as people know it: relative in the program's own workspace.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
}

/// A task's types, found by the `poll` function of its vtable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskType {
    /// The future.
    pub future: TypeId,
    /// The scheduler (`Arc<multi_thread::Handle>` and the like).
    pub scheduler: TypeId,
    /// tokio's `Cell<T, S>` around both, if the debug information has it.
    pub cell: Option<TypeId>,
}

/// What is known of a type that is a future or a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Polled {
    /// Whole name of the function a person wrote: `app::feed::watch` for an
    /// `async fn`, `app::main::{async_block#0}`, `<app::Slow as
    /// core::future::future::Future>::poll`; `{impl#3}` is resolved.
    pub function: Arc<str>,
    /// Where that function begins.
    pub place: Option<Place>,
    /// Compiled from `async`: its chain goes on through `__awaitee`.
    pub coroutine: bool,
}

/// How much the program's debug information tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// Nothing: spawn places from the hooks only.
    Nothing,
    /// Names of the tasks' root types and their states, no await points
    /// (`debug = 1`, or symbols alone).
    Names,
    /// Everything (`debug = 2`).
    Full,
}

/// Types told behind one vtable: it is merged for all that are alike, and a
/// person reads a few.
pub const MERGED: usize = 16;

/// The program's types. Answers are cheap from the second time on.
pub trait Layouts: Send {
    /// How much there is.
    fn detail(&self) -> Detail;

    /// A type by its whole name. Where compilation units repeat a type, any
    /// one of its equal layouts.
    fn find(&mut self, name: &str) -> Option<TypeId>;

    /// A type's layout.
    ///
    /// # Errors
    /// `Malformed` for damaged debug information.
    fn ty(&mut self, id: TypeId) -> Result<Arc<Type>>;

    /// Addresses of all functions that poll a task (`tokio::runtime::task::raw::poll`),
    /// ascending: the first word of interest in a task's vtable.
    fn task_polls(&mut self) -> Arc<[u64]>;

    /// The tasks that a poll function serves: more than one where the linker
    /// merged functions of equal code.
    fn task(&mut self, poll: u64) -> Arc<[TaskType]>;

    /// The types behind a `dyn`, by the address of its vtable: more than one,
    /// each of its own name, where equal vtables were merged; of more than
    /// [`MERGED`] one more stands for the rest.
    fn behind(&mut self, vtable: u64) -> Vec<TypeId>;

    /// What is known of a type as a future; `None` if it is none.
    fn polled(&mut self, id: TypeId) -> Option<Arc<Polled>>;

    /// Where tokio's thread-local `CONTEXT` is, relative to the thread
    /// pointer (negative on x86-64), and its type.
    fn context(&mut self) -> Option<(i64, TypeId)>;

    /// Gives back what can be read again from the file. For those who have
    /// read and will not soon again.
    fn release(&mut self) {}
}
