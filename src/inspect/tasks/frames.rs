//! Frames and stacks, each made once: most of 100,000 tasks share a few chains.

use std::collections::HashMap;
use std::sync::Arc;

use super::hash::NumberMap;
use crate::debuginfo::layout::{Place, Polled};
use crate::debuginfo::names;
use crate::model::{Frame, FrameKind, Location, Stack, StackSource};

/// A frame of one [`Frames`].
pub type FrameId = u32;

/// All frames and stacks made so far.
#[derive(Default)]
pub struct Frames {
    frames: Vec<Frame>,
    by_frame: HashMap<Frame, FrameId>,
    /// By their frames, outermost first: one, or one for each list of merged
    /// names that such a task could be as well.
    stacks: NumberMap<Box<[FrameId]>, Vec<Arc<Stack>>>,
}

impl Frames {
    /// The frame of a function that is suspended at `place`.
    pub fn frame(&mut self, full: &str, place: Option<&Place>) -> FrameId {
        let file = place.map(|place| &*place.file);
        let kind = names::kind(file, full, true);
        let location =
            place.map(|place| Location { file: place.file.clone(), line: place.line, column: 0 });
        let function: Arc<str> = names::short(full).into();
        let frame = Frame {
            function,
            function_full: full.into(),
            location,
            kind,
            inlined: false,
            address: 0,
        };
        if let Some(&id) = self.by_frame.get(&frame) {
            return id;
        }
        let id = FrameId::try_from(self.frames.len()).unwrap_or(FrameId::MAX);
        self.frames.push(frame.clone());
        self.by_frame.insert(frame, id);
        id
    }

    /// The frame of a coroutine suspended at `at`.
    ///
    /// An await inside a library's macro (`select!`, `join!`) is recorded at
    /// the macro's own line, which tells nobody anything: then the function's
    /// first line stands in.
    pub fn suspended(&mut self, polled: &Polled, at: Option<&Place>) -> FrameId {
        let own = polled.place.as_ref();
        let kind = |place: Option<&Place>| {
            names::kind(place.map(|place| &*place.file), &polled.function, true)
        };
        let place = match (at, own) {
            (Some(_), Some(_)) if kind(at) != kind(own) => own,
            (Some(at), _) => Some(at),
            (None, own) => own,
        };
        self.frame(&polled.function, place)
    }

    pub fn get(&self, id: FrameId) -> Option<&Frame> {
        self.frames.get(id as usize)
    }

    pub fn is_user(&self, id: FrameId) -> bool {
        self.get(id).is_some_and(|frame| frame.kind == FrameKind::User)
    }

    /// The stack of frames given outermost first, and what it could be as well
    /// where functions were merged.
    pub fn stack(
        &mut self,
        outermost_first: &[FrameId],
        cut: bool,
        or_one_of: &[Arc<str>],
    ) -> Arc<Stack> {
        if !cut
            && let Some(known) = self.stacks.get(outermost_first)
            && let Some(stack) = known.iter().find(|stack| stack.or_one_of == or_one_of)
        {
            return stack.clone();
        }
        let stack = Arc::new(Stack {
            source: StackSource::Await,
            frames: outermost_first.iter().rev().filter_map(|&id| self.get(id).cloned()).collect(),
            truncated: cut.then(|| "a bound on depth ended the walk".into()),
            or_one_of: or_one_of.to_vec(),
        });
        if !cut {
            let known = self.stacks.entry(outermost_first.into()).or_default();
            known.push(stack.clone());
        }
        stack
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: &str, line: u32) -> Place {
        Place { file: file.into(), line }
    }

    #[test]
    fn a_macro_of_a_library_does_not_take_the_users_line() {
        let mut frames = Frames::default();
        let polled = Polled {
            function: "app::feed::watch".into(),
            place: Some(place("src/feed.rs", 10)),
            coroutine: true,
        };
        let select = place("/home/me/.cargo/registry/src/i-1/tokio-1.54.1/src/macros/select.rs", 7);
        let inside = frames.suspended(&polled, Some(&select));
        let frame = frames.get(inside).unwrap();
        assert_eq!(frame.location.as_ref().unwrap().to_string(), "src/feed.rs:10");
        assert_eq!(frame.kind, FrameKind::User);
        let plain = frames.suspended(&polled, Some(&place("src/feed.rs", 12)));
        let frame = frames.get(plain).unwrap();
        assert_eq!(frame.location.as_ref().unwrap().line, 12);
        assert_eq!(&*frame.function, "feed::watch");
    }

    #[test]
    fn equal_chains_are_one_stack() {
        let mut frames = Frames::default();
        let outer = frames.frame("app::main", None);
        let inner = frames.frame("app::feed::watch", Some(&place("src/feed.rs", 12)));
        assert_eq!(outer, frames.frame("app::main", None));
        let one = frames.stack(&[outer, inner], false, &[]);
        assert!(Arc::ptr_eq(&one, &frames.stack(&[outer, inner], false, &[])));
        assert_eq!(&*one.frames[0].function_full, "app::feed::watch", "innermost first");
    }

    /// Each task with a stack of its own would cost as much as its frames.
    #[test]
    fn equal_chains_of_merged_code_are_one_stack() {
        let mut frames = Frames::default();
        let chain = [frames.frame("app::main", None)];
        let twin = ["app::twin".into()];
        let one = frames.stack(&chain, false, &twin);
        assert!(Arc::ptr_eq(&one, &frames.stack(&chain, false, &twin)));
        assert_eq!(one.or_one_of, twin);
        let plain = frames.stack(&chain, false, &[]);
        assert!(plain.or_one_of.is_empty(), "not merged there");
        let other = frames.stack(&chain, false, &["app::other".into()]);
        assert_eq!(*other.or_one_of[0], *"app::other");
    }
}
