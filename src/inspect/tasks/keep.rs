//! Live locals that a task keeps without awaiting them: guards, and futures
//! that have begun and that nobody polls.

use std::rc::Rc;

use super::coroutine::{CoStage, Scope};
use super::fields::active;
use super::interest;
use super::plan::{Node, Part};
use super::walk::Walker;

impl Walker<'_, '_> {
    /// Looks through the live locals of a coroutine that it does not await.
    pub(super) fn keep_locals(&mut self, index: usize) {
        let kept = &self.trace.kept[index];
        let (node, state, at) = (kept.coroutine.clone(), kept.state, kept.at);
        self.level = kept.level;
        self.dormant = kept.dormant;
        self.local = None;
        self.keeper = kept.keeper.clone();
        let Node::Coroutine(coroutine) = &*node else { return };
        let state = &coroutine.states[state];
        self.doubtful = state
            .drop_flags
            .iter()
            .any(|flag| self.memory.number(at.wrapping_add(*flag), 1).is_ok_and(|set| set == 0));
        self.keep_parts(&state.locals, at);
        self.doubtful = false;
    }

    pub(super) fn keep_parts(&mut self, parts: &[Part], at: u64) {
        for part in parts {
            if self.plans.interest(part.ty) & (interest::KEEP | interest::HOLD) == 0 {
                continue;
            }
            let node = self.plans.node(part.ty);
            // The variable says more than the fields below it.
            let outer = self.local.clone();
            if outer.is_none() {
                self.local = Some(part.name.clone());
                if !self.dormant {
                    self.keeper = Some(part.name.clone());
                }
            }
            self.keep(&node, at.wrapping_add(part.offset));
            self.local = outer;
        }
    }

    /// Looks at a value that is kept and not polled.
    pub(super) fn keep(&mut self, node: &Rc<Node>, at: u64) {
        if !self.enter() {
            return;
        }
        match &**node {
            Node::Hold(hold) => self.hold(hold, at),
            Node::Leaf { frame, leaf, also } => {
                if let Some(hold) = also {
                    self.hold(hold, at);
                }
                if !self.is_reached(at) && self.has_begun(leaf, at) {
                    let outer = std::mem::replace(&mut self.dormant, true);
                    self.leaf(*frame, leaf, at);
                    self.dormant = outer;
                }
            }
            Node::Coroutine(coroutine) if !self.is_reached(at) => {
                match active(self.memory, at, &coroutine.variants) {
                    Some(index) if coroutine.states[index].stage == CoStage::Suspended => {
                        let outer = std::mem::replace(&mut self.dormant, true);
                        self.poll(node, at);
                        self.dormant = outer;
                    }
                    // Not begun: it holds what it was given.
                    Some(index) if coroutine.states[index].stage == CoStage::Unresumed => {
                        self.keep_parts(&coroutine.states[index].locals, at);
                    }
                    _ => {}
                }
            }
            Node::Future { frame, scope, inside, .. } if !self.is_reached(at) => {
                let outer = self.push(*frame, *scope, None);
                self.keep(inside, at);
                self.level = outer;
            }
            Node::Timeout { frame, parts, .. } if !self.is_reached(at) => {
                let outer = self.level;
                if let Some(frame) = frame {
                    self.push(*frame, Scope::Tokio, None);
                }
                self.keep_parts(parts, at);
                self.level = outer;
            }
            Node::Parts(parts) => self.keep_parts(parts, at),
            Node::Enum { variants, parts } => {
                if let Some(active) = active(self.memory, at, variants) {
                    self.keep_parts(&parts[active], at);
                }
            }
            // What a moved-away pointer points at may be anything by now.
            Node::Pointer { owns: true, to } if !self.doubtful => {
                if let Some(target) = self.target(at)
                    && !self.is_reached(target)
                {
                    let node = self.plans.node(*to);
                    self.keep(&node, target);
                }
            }
            Node::Dyn { owns: true, data, vtable } if !self.doubtful => {
                if let Some((node, target, _)) = self.behind(at, *data, *vtable)
                    && !self.is_reached(target)
                {
                    self.keep(&node, target);
                }
            }
            Node::Slice { data, length, of, stride } if !self.doubtful => {
                let node = self.plans.node(*of);
                for element in self.elements(at, *data, *length, *stride) {
                    self.keep(&node, element);
                }
            }
            Node::Array { of, count, stride } => {
                let node = self.plans.node(*of);
                for element in self.array(at, *count, *stride) {
                    self.keep(&node, element);
                }
            }
            Node::Unordered { frame, head, next, future }
                if !self.doubtful && !self.is_reached(at) =>
            {
                let outer = self.level;
                if let Some(frame) = frame {
                    self.push(*frame, Scope::Other, None);
                }
                let node = self.plans.node(future.ty);
                for element in self.nodes(at, *head, *next) {
                    self.keep(&node, element.wrapping_add(future.offset));
                }
                self.level = outer;
            }
            Node::LocalSet { owned, parts } => {
                self.local_set(owned, at);
                self.keep_parts(parts, at);
            }
            _ => {}
        }
        self.leave();
    }
}
