//! A JSON document in pieces.

use std::collections::VecDeque;

use serde::Serialize;

use super::{append, to_vec};
use crate::model::{Process, Snapshot};
use crate::render::{Chunks, Shot};

/// Bytes of a piece; the sender gathers pieces into its own chunks.
const PIECE: usize = 16 * 1024;

type Write = Box<dyn Fn(usize, &mut Vec<u8>) + Send>;

enum Part {
    Text(Vec<u8>),
    Items { next: usize, len: usize, write: Write },
}

/// A JSON document: text with long lists between.
pub struct Json {
    parts: VecDeque<Part>,
}

impl Json {
    /// `answer`, whose last field is an empty list, with `len` items put into
    /// that list by `write`.
    pub fn list<A: Serialize>(
        answer: &A,
        len: usize,
        write: impl Fn(usize, &mut Vec<u8>) + Send + 'static,
    ) -> Self {
        let mut head = to_vec(answer);
        assert!(head.ends_with(b"[]}"), "the list is the last field and empty");
        head.truncate(head.len() - 2);
        let parts = [
            Part::Text(head),
            Part::Items { next: 0, len, write: Box::new(write) },
            Part::Text(b"]}".to_vec()),
        ];
        Self { parts: parts.into() }
    }

    fn text(&mut self, text: &str) {
        match self.parts.back_mut() {
            Some(Part::Text(last)) => last.extend_from_slice(text.as_bytes()),
            _ => self.parts.push_back(Part::Text(text.as_bytes().to_vec())),
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        let mut text = Vec::new();
        append(name, &mut text);
        text.push(b':');
        append(value, &mut text);
        text.push(b',');
        self.parts.push_back(Part::Text(text));
    }

    fn items(
        &mut self,
        name: &str,
        len: usize,
        write: impl Fn(usize, &mut Vec<u8>) + Send + 'static,
    ) {
        self.text(&format!("\"{name}\":["));
        self.parts.push_back(Part::Items { next: 0, len, write: Box::new(write) });
        self.parts.push_back(Part::Text(b"],".to_vec()));
    }
}

impl Chunks for Json {
    fn next(&mut self, out: &mut Vec<u8>) -> bool {
        let until = out.len() + PIECE;
        while out.len() < until {
            match self.parts.front_mut() {
                None => return false,
                Some(Part::Text(text)) => {
                    out.append(text);
                    self.parts.pop_front();
                }
                Some(Part::Items { next, len, .. }) if next == len => {
                    self.parts.pop_front();
                }
                Some(Part::Items { next, write, .. }) => {
                    if *next > 0 {
                        out.push(b',');
                    }
                    write(*next, out);
                    *next += 1;
                }
            }
        }
        !self.parts.is_empty()
    }
}

/// The whole snapshot, as [`Snapshot`] itself would be written, in pieces.
pub fn snapshot(shot: Shot) -> Json {
    // Taken apart by name, so that a field added to the model cannot be forgotten.
    let Snapshot {
        schema,
        taken_at,
        process,
        coverage,
        counters,
        blocked_threshold_ns,
        runtimes,
        workers,
        blocked,
        pauses,
        endpoints,
        connections,
        streams,
        ended_streams,
        history,
        tasks,
    } = &**shot;
    let process: &Process = process;
    let mut json = Json { parts: VecDeque::new() };
    json.text("{");
    json.field("schema", schema);
    json.field("taken_at", taken_at);
    json.field("process", process);
    json.field("coverage", coverage);
    json.field("counters", counters);
    json.field("blocked_threshold_ns", blocked_threshold_ns);
    json.field("runtimes", runtimes);
    json.field("workers", workers);
    json.field("blocked", blocked);
    json.field("pauses", pauses);
    json.field("endpoints", endpoints);
    json.field("history", history);
    macro_rules! items {
        ($field:ident) => {{
            let shot = Shot::clone(&shot);
            json.items(stringify!($field), $field.len(), move |index, out| {
                append(&shot.$field[index], out);
            });
        }};
    }
    items!(connections);
    items!(streams);
    items!(ended_streams);
    items!(tasks);
    if let Some(Part::Text(last)) = json.parts.back_mut() {
        last.pop();
        last.push(b'}');
    }
    json
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::sample;

    pub fn all(mut chunks: impl Chunks) -> Vec<u8> {
        let mut out = Vec::new();
        while chunks.next(&mut out) {}
        out
    }

    #[test]
    fn a_snapshot_in_pieces_is_the_snapshot() {
        for whole in [sample::busy_server(), sample::empty()] {
            let pieces = all(snapshot(Arc::new(Box::new(whole.clone()))));
            assert_eq!(serde_json::from_slice::<Snapshot>(&pieces).unwrap(), whole);
            assert_eq!(
                serde_json::from_slice::<serde_json::Value>(&pieces).unwrap(),
                serde_json::to_value(&whole).unwrap()
            );
        }
    }

    #[test]
    fn lists_have_every_item_once() {
        #[derive(Serialize)]
        struct Answer {
            total: usize,
            items: Vec<u32>,
        }
        for len in [0, 1, 2, 10_000] {
            let answer = Answer { total: len, items: Vec::new() };
            let text = all(Json::list(&answer, len, |index, out| append(&index, out)));
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value["total"], len);
            assert_eq!(value["items"], serde_json::json!((0..len).collect::<Vec<_>>()));
        }
    }
}
