//! Futures that poll several: lists of them, and branches of which some are
//! ruled out.

use super::coroutine::Scope;
use super::frames::FrameId;
use super::plan::Part;
use super::walk::{STEPS, Walker};
use crate::debuginfo::layout::TypeId;

impl Walker<'_, '_> {
    /// Polls each of a list's elements.
    pub(super) fn poll_each(&mut self, of: TypeId, elements: impl IntoIterator<Item = u64>) {
        let node = self.plans.node(of);
        for element in elements {
            self.poll(&node, element);
        }
    }

    /// What is in a `FuturesUnordered`: a list linked through its nodes.
    pub(super) fn poll_unordered(
        &mut self,
        frame: Option<FrameId>,
        (head, next): (u64, u64),
        future: &Part,
        at: u64,
    ) {
        self.trace.reached.push(at);
        let outer = self.level;
        if let Some(frame) = frame {
            self.push(frame, Scope::Other, None);
        }
        let nodes = self.nodes(at, head, next);
        self.poll_each(future.ty, nodes.into_iter().map(|node| node.wrapping_add(future.offset)));
        self.level = outer;
    }

    /// The branches of a `select!` that are not ruled out.
    pub(super) fn poll_select(
        &mut self,
        (disabled, size): (u64, u8),
        futures: u64,
        branches: &[(u32, Part)],
        at: u64,
    ) {
        let mask = self.target(at.wrapping_add(disabled));
        let mask = mask.and_then(|mask| self.memory.number(mask, size).ok());
        let (Some(mask), Some(tuple)) = (mask, self.target(at.wrapping_add(futures))) else {
            return;
        };
        self.trace.reached.push(tuple);
        let outer = std::mem::replace(&mut self.borrowed, true);
        for (bit, part) in branches {
            if mask.checked_shr(*bit).unwrap_or(0) & 1 == 0 {
                self.poll_parts(std::slice::from_ref(part), tuple);
            }
        }
        self.borrowed = outer;
    }

    /// An item that a stream has given is polled before its next one.
    pub(super) fn poll_item_or_stream(&mut self, parts: &[Part], at: u64) {
        let before = self.trace.tips.len();
        let (item, others): (Vec<&Part>, Vec<&Part>) =
            parts.iter().partition(|part| &*part.name == "future");
        for part in item {
            self.poll_parts(std::slice::from_ref(part), at);
        }
        let is_busy = self.trace.tips.len() > before;
        for part in others {
            let part = std::slice::from_ref(part);
            if is_busy { self.keep_parts(part, at) } else { self.poll_parts(part, at) }
        }
    }

    /// Addresses of a slice's elements.
    pub(super) fn elements(&mut self, at: u64, data: u64, length: u64, stride: u64) -> Vec<u64> {
        let Ok(length) = self.memory.word(at.wrapping_add(length)) else { return Vec::new() };
        let Some(data) = self.target(at.wrapping_add(data)) else { return Vec::new() };
        self.array(data, length, stride)
    }

    pub(super) fn array(&mut self, data: u64, length: u64, stride: u64) -> Vec<u64> {
        let bound = self.limits.list as u64;
        if length > bound {
            self.trace.cut = true;
        }
        (0..length.min(bound)).map(|index| data.wrapping_add(index.wrapping_mul(stride))).collect()
    }

    /// Addresses of a linked list's nodes.
    pub(super) fn nodes(&mut self, at: u64, head: u64, next: u64) -> Vec<u64> {
        let mut nodes = Vec::new();
        let mut node = self.target(at.wrapping_add(head));
        while let Some(address) = node {
            // Any other loop than back to the start ends at a bound.
            self.steps += 1;
            if nodes.len() >= self.limits.list
                || self.steps > STEPS
                || nodes.first() == Some(&address)
            {
                self.trace.cut = true;
                break;
            }
            nodes.push(address);
            node = self.target(address.wrapping_add(next));
        }
        nodes
    }
}
