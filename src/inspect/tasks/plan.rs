//! What to do with a value of each type, worked out once a type: which parts
//! can hold a future or a guard, and how to read the ones that are known.

use std::rc::Rc;
use std::sync::Arc;

use super::coroutine::{Coroutine, Scope, is_coroutine};
use super::fields::Types;
use super::frames::{FrameId, Frames};
use super::hash::NumberMap;
use super::holds::{self, Hold};
use super::leaves::{self, Leaf};
use super::tokio::{self, OwnedList};
use crate::debuginfo::layout::{Member, Polled, Shape, Type, TypeId, Variant, Variants};

/// A part of a value.
#[derive(Clone, Debug)]
pub struct Part {
    pub name: Arc<str>,
    pub offset: u64,
    pub ty: TypeId,
}

/// What to do with a value.
#[derive(Debug)]
pub enum Node {
    /// Nothing in it concerns us.
    Skip,
    /// A future of tokio's that waits for something.
    Leaf {
        frame: Option<FrameId>,
        leaf: Leaf,
        also: Option<Hold>,
    },
    /// A guard, a permit or the end of a channel.
    Hold(Hold),
    /// Compiled from `async`.
    Coroutine(Coroutine),
    /// Written by hand: waits for whatever futures it contains.
    Future {
        frame: FrameId,
        scope: Scope,
        manner: Manner,
        inside: Rc<Node>,
    },
    /// `Timeout`: the deadline goes to the wait of what is inside.
    Timeout {
        frame: Option<FrameId>,
        deadline: Option<u64>,
        parts: Box<[Part]>,
    },
    /// Struct, tuple or closure.
    Parts(Box<[Part]>),
    /// An enum: only what is there counts.
    Enum {
        variants: Variants,
        parts: Box<[Box<[Part]>]>,
    },
    /// A pointer that owns what it points at, or has the only reference.
    Pointer {
        owns: bool,
        to: TypeId,
    },
    /// A `dyn` behind one.
    Dyn {
        owns: bool,
        data: u64,
        vtable: u64,
    },
    /// A boxed slice or a vector.
    Slice {
        data: u64,
        length: u64,
        of: TypeId,
        stride: u64,
    },
    Array {
        of: TypeId,
        count: u64,
        stride: u64,
    },
    /// `FuturesUnordered`: a list linked through its nodes.
    Unordered {
        frame: Option<FrameId>,
        head: u64,
        next: u64,
        future: Part,
    },
    /// The closure of a `select!`: its futures, but for those that a bit of
    /// `disabled` rules out.
    Select {
        disabled: u64,
        size: u8,
        futures: u64,
        branches: Box<[(u32, Part)]>,
    },
    /// Another list of tasks.
    LocalSet {
        owned: OwnedList,
        parts: Box<[Part]>,
    },
}

/// How a hand-written future goes about the futures in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Waits for all of them, and is done when none is left.
    Combines,
    /// A stream's item is worked on before the stream is asked for the next:
    /// while there is a `future`, the `stream` is not polled.
    Alternates,
    /// Waits for all of them.
    Waits,
    /// Waits for some and may keep others for later, as connections of
    /// hyper's do: only those that say what they wait for count.
    Keeps,
}

/// All plans made so far.
pub struct Plans<'a> {
    pub types: Types<'a>,
    pub frames: Frames,
    nodes: NumberMap<TypeId, Rc<Node>>,
    pub(super) masks: NumberMap<TypeId, u8>,
}

impl<'a> Plans<'a> {
    pub fn new(types: Types<'a>) -> Self {
        Self {
            types,
            frames: Frames::default(),
            nodes: NumberMap::default(),
            masks: NumberMap::default(),
        }
    }

    /// What to do with a value of a type.
    pub fn node(&mut self, id: TypeId) -> Rc<Node> {
        if let Some(node) = self.nodes.get(&id) {
            return node.clone();
        }
        let node = Rc::new(self.make(id));
        self.nodes.insert(id, node.clone());
        node
    }

    fn make(&mut self, id: TypeId) -> Node {
        if self.interest(id) == 0 {
            return Node::Skip;
        }
        let Some(ty) = self.types.get(id) else { return Node::Skip };
        let polled = self.types.polled(id);
        if let Some(special) = self.special(id, &ty, polled.as_deref()) {
            return special;
        }
        if let Shape::Enum(variants) = &ty.shape
            && is_coroutine(variants)
        {
            return Node::Coroutine(self.coroutine(&ty, polled.as_deref(), variants));
        }
        let transparent = ["core::pin::Pin<", "alloc::boxed::Box<", "&"];
        if let Some(polled) = polled
            && !transparent.iter().any(|name| ty.name.starts_with(name))
        {
            let frame = self.frames.frame(&polled.function, polled.place.as_ref());
            let manner = match &*ty.name {
                name if is_combinator(name) => match &ty.shape {
                    Shape::Struct(members) if alternates(name, members) => Manner::Alternates,
                    _ => Manner::Combines,
                },
                _ if self.frames.is_user(frame) => Manner::Waits,
                _ => Manner::Keeps,
            };
            let scope = Scope::of(&ty.name);
            return Node::Future { frame, scope, manner, inside: Rc::new(self.shape(&ty)) };
        }
        self.shape(&ty)
    }

    /// Types known by name.
    fn special(&mut self, id: TypeId, ty: &Type, polled: Option<&Polled>) -> Option<Node> {
        let name = &*ty.name;
        if !(name.starts_with("tokio::")
            || name.starts_with("tonic::")
            || name.starts_with("futures_util::"))
        {
            return None;
        }
        let hold = holds::find(&mut self.types, id, name);
        let frame = polled.map(|polled| self.frames.frame(&polled.function, polled.place.as_ref()));
        if let Some(leaf) = leaves::find(&mut self.types, id, name) {
            return Some(Node::Leaf { frame, leaf, also: hold });
        }
        if let Some(hold) = hold {
            // A receiver is polled through its `Rx`, which is a leaf.
            return Some(match leaves::within_receiver(&mut self.types, id, name) {
                Some(leaf) => Node::Leaf { frame, leaf, also: Some(hold) },
                None => Node::Hold(hold),
            });
        }
        if name.starts_with("tokio::time::timeout::Timeout<") {
            let (_, parts) = self.struct_parts(ty);
            let deadline =
                parts.iter().find(|part| &*part.name == "delay").cloned().and_then(|delay| {
                    Some(delay.offset + leaves::deadline(&mut self.types, delay.ty)?)
                });
            let parts = parts.into_iter().filter(|part| &*part.name != "delay").collect();
            return Some(Node::Timeout { frame, deadline, parts });
        }
        if name.starts_with("futures_util::stream::futures_unordered::FuturesUnordered<") {
            return self.unordered(id, frame);
        }
        if name == tokio::LOCAL_SET || name.starts_with("tokio::task::local::RunUntil<") {
            let owned = self
                .types
                .member(id, "local_set")
                .map_or(Some((0, id)), |set| Some((set.offset, set.ty)))?;
            let mut list = OwnedList::find(&mut self.types, owned.1)?;
            if let Some(first) = list.route.steps.first_mut() {
                *first += owned.0;
            }
            let (_, parts) = self.struct_parts(ty);
            return Some(Node::LocalSet { owned: list, parts: parts.into() });
        }
        None
    }

    fn unordered(&mut self, id: TypeId, frame: Option<FrameId>) -> Option<Node> {
        let (head, head_type) = self.types.path(id, &["head_all"])?;
        let (inner, _) = self.types.unwrapped(head_type)?;
        let node = self.types.pointee(head_type)?;
        let next = self.types.path(node, &["next_all"])?.0;
        let (offset, future) = self.types.path(node, &["future"])?;
        let future = Part { name: "future".into(), offset, ty: future };
        Some(Node::Unordered { frame, head: head + inner, next, future })
    }

    /// Plain data, by its shape.
    fn shape(&mut self, ty: &Type) -> Node {
        match &ty.shape {
            Shape::Struct(members) => {
                if let Some(node) = self.fat(ty, members) {
                    return node;
                }
                if ty.name.starts_with("alloc::vec::Vec<") {
                    return self.vec(ty).unwrap_or(Node::Skip);
                }
                if let Some(node) = self.select(ty, members) {
                    return node;
                }
                match self.struct_parts(ty).1 {
                    parts if parts.is_empty() => Node::Skip,
                    parts => Node::Parts(parts.into()),
                }
            }
            Shape::Enum(variants) => {
                let parts = variants.list.iter().map(|variant| self.variant_parts(variant));
                let parts: Box<[Box<[Part]>]> = parts.collect();
                if parts.iter().all(|parts| parts.is_empty()) {
                    return Node::Skip;
                }
                Node::Enum { variants: variants.clone(), parts }
            }
            Shape::Pointer(Some(to)) => match followed(&ty.name) {
                Some(owns) => Node::Pointer { owns, to: *to },
                None => Node::Skip,
            },
            Shape::Array { of, count } => match self.types.get(*of) {
                Some(element) if element.size > 0 => {
                    Node::Array { of: *of, count: *count, stride: element.size }
                }
                _ => Node::Skip,
            },
            Shape::Union(_) | Shape::Pointer(None) | Shape::Opaque => Node::Skip,
        }
    }

    /// Boxed or borrowed `dyn`s and slices.
    fn fat(&mut self, ty: &Type, members: &[Member]) -> Option<Node> {
        let owns = followed(&ty.name)?;
        let field = |name: &str| members.iter().find(|member| &*member.name == name);
        if let (Some(data), Some(vtable)) =
            (field("pointer").or(field("data_ptr")), field("vtable"))
        {
            return Some(Node::Dyn { owns, data: data.offset, vtable: vtable.offset });
        }
        let (data, length) = (field("data_ptr")?, field("length")?);
        let of = self.types.target(data.ty)?;
        let stride = self.types.get(of)?.size;
        (stride > 0).then_some(Node::Slice { data: data.offset, length: length.offset, of, stride })
    }

    /// What tokio's `select!` makes: a closure over references to its
    /// `disabled` mask and to the tuple of its `futures`.
    fn select(&mut self, ty: &Type, members: &[Member]) -> Option<Node> {
        if members.len() != 2 || !ty.name.contains("{closure_env#") {
            return None;
        }
        let field = |name: &str| members.iter().find(|member| member.name.ends_with(name));
        let (disabled, futures) = (field("disabled")?, field("futures")?);
        let mask = self.types.target(disabled.ty)?;
        let mask = self.types.get(mask)?;
        let tuple = self.types.target(futures.ty)?;
        let tuple = self.types.get(tuple)?;
        if !matches!(mask.shape, Shape::Opaque) || !tuple.name.starts_with('(') {
            return None;
        }
        let branches = self
            .struct_parts(&tuple)
            .1
            .into_iter()
            .filter_map(|part| Some((part.name.strip_prefix("__")?.parse().ok()?, part)))
            .collect();
        Some(Node::Select {
            disabled: disabled.offset,
            size: u8::try_from(mask.size).ok()?,
            futures: futures.offset,
            branches,
        })
    }

    fn vec(&mut self, ty: &Type) -> Option<Node> {
        let of = self.types.first_argument(&ty.name)?;
        let stride = self.types.get(of)?.size;
        let Shape::Struct(members) = &ty.shape else { return None };
        let field = |name: &str| members.iter().find(|member| &*member.name == name);
        let (buffer, length) = (field("buf")?, field("len")?);
        let (data, _) = self.types.within(buffer.ty, "core::ptr::unique::Unique<")?;
        (stride > 0).then_some(Node::Slice {
            data: buffer.offset + data,
            length: length.offset,
            of,
            stride,
        })
    }

    /// A struct's parts that concern us, and what they may contain.
    pub(super) fn struct_parts(&mut self, ty: &Type) -> (u8, Vec<Part>) {
        let Shape::Struct(members) = &ty.shape else { return (0, Vec::new()) };
        let mut mask = 0;
        let mut parts: Vec<Part> = Vec::new();
        for member in members {
            let interest = self.interest(member.ty);
            mask |= interest;
            if interest != 0 {
                let (name, offset, ty) = (member.name.clone(), member.offset, member.ty);
                parts.push(Part { name, offset, ty });
            }
        }
        (mask, parts)
    }

    fn variant_parts(&mut self, variant: &Variant) -> Box<[Part]> {
        let Some(payload) = self.types.get(variant.payload) else { return Box::default() };
        let (_, mut parts) = self.struct_parts(&payload);
        for part in &mut parts {
            part.offset = part.offset.saturating_add(variant.offset);
        }
        parts.into()
    }
}

/// Whether a pointer is followed, and whether it owns what it points at.
/// Shared references, `Arc` and raw pointers lead to what others poll.
pub(super) fn followed(name: &str) -> Option<bool> {
    if name.starts_with("alloc::boxed::Box<") {
        Some(true)
    } else if name.starts_with("&mut ") {
        Some(false)
    } else {
        None
    }
}

/// Futures made of futures that all wait at once: each of theirs counts.
fn is_combinator(name: &str) -> bool {
    ["futures_util::", "tokio::future::", "core::future::join::"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// `ForEach`, `Then`, `Fold` and the like.
fn alternates(name: &str, members: &[Member]) -> bool {
    let has = |name: &str| members.iter().any(|member| &*member.name == name);
    name.starts_with("futures_util::stream::") && has("stream") && has("future")
}
