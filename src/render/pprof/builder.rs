//! Builds a profile: strings, functions and locations, each once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use crate::model::{Frame, Location, Process};
use crate::pb::profile as pb;

/// Frames of a sample at most, as in Go.
pub const MAX_FRAMES: usize = 128;

/// A sample type or a period type: name and unit.
pub type Type = (&'static str, &'static str);

#[derive(PartialEq, Eq, Hash)]
struct LocationKey {
    address: u64,
    function: u64,
    line: i64,
    column: i64,
}

pub struct Builder {
    profile: pb::Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<LocationKey, u64>,
    /// Stacks are shared: their frames stay where they are while we build.
    frames: HashMap<*const Frame, u64>,
}

impl Builder {
    /// A profile whose preferred sample type is the last of `types`.
    pub fn new(process: &Process, types: &[Type], period_type: Type, period: u64) -> Self {
        let mut builder = Self {
            profile: pb::Profile::default(),
            strings: HashMap::new(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            frames: HashMap::new(),
        };
        builder.string("");
        builder.profile.sample_type = types.iter().map(|&one| builder.value_type(one)).collect();
        builder.profile.default_sample_type =
            builder.profile.sample_type.last().map_or(0, |last| last.r#type);
        builder.profile.period_type = Some(builder.value_type(period_type));
        builder.profile.period = signed(period);
        builder.profile.mapping = vec![pb::Mapping {
            id: 1,
            filename: builder.string(&process.executable),
            build_id: process.build_id.as_deref().map_or(0, |id| builder.string(id)),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
            ..pb::Mapping::default()
        }];
        builder
    }

    /// When it was taken, or when it began and how long it took.
    pub fn time(&mut self, unix_nanos: u64, duration_ns: u64) {
        self.profile.time_nanos = signed(unix_nanos);
        self.profile.duration_nanos = signed(duration_ns);
    }

    pub fn comment(&mut self, text: &str) {
        let text = self.string(text);
        self.profile.comment.push(text);
    }

    /// Adds a sample; frames innermost first.
    pub fn sample(
        &mut self,
        locations: Vec<u64>,
        values: Vec<i64>,
        labels: impl Iterator<Item = (&'static str, String)>,
    ) {
        let label = labels
            .map(|(key, text)| pb::Label {
                key: self.string(key),
                str: self.string(&text),
                ..pb::Label::default()
            })
            .collect();
        self.profile.sample.push(pb::Sample { location_id: locations, value: values, label });
    }

    /// The location of a frame. The frame must outlive the builder unmoved.
    pub fn frame(&mut self, frame: &Frame) -> u64 {
        if let Some(&id) = self.frames.get(&std::ptr::from_ref(frame)) {
            return id;
        }
        let name =
            if frame.function_full.is_empty() { &frame.function } else { &frame.function_full };
        let id = self.place(name, frame.location.as_ref(), frame.address);
        self.frames.insert(frame, id);
        id
    }

    /// The location of a frame that is not code: a name and a place.
    pub fn place(&mut self, name: &str, place: Option<&Location>, address: u64) -> u64 {
        let name = self.string(name);
        let filename = place.map_or(0, |place| self.string(&place.file));
        let function = self.function(name, filename);
        let line = place.map_or(0, |place| i64::from(place.line));
        let column = place.map_or(0, |place| i64::from(place.column));
        let id = self.locations.len() as u64 + 1;
        match self.locations.entry(LocationKey { address, function, line, column }) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                new.insert(id);
                self.profile.location.push(pb::Location {
                    id,
                    mapping_id: 1,
                    address,
                    line: vec![pb::Line { function_id: function, line, column }],
                    is_folded: false,
                });
                id
            }
        }
    }

    /// The gzipped profile.
    pub fn finish(mut self) -> Vec<u8> {
        let end = self.profile.location.iter().map(|location| location.address).max().unwrap_or(0);
        self.profile.mapping[0].memory_limit = end.saturating_add(1);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.profile.encode_to_vec())
            .and_then(|()| gzip.finish())
            .expect("a Vec takes every byte")
    }

    fn function(&mut self, name: i64, filename: i64) -> u64 {
        let id = self.functions.len() as u64 + 1;
        match self.functions.entry((name, filename)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                new.insert(id);
                self.profile.function.push(pb::Function {
                    id,
                    name,
                    filename,
                    ..pb::Function::default()
                });
                id
            }
        }
    }

    fn value_type(&mut self, (name, unit): Type) -> pb::ValueType {
        pb::ValueType { r#type: self.string(name), unit: self.string(unit) }
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.profile.string_table.len() as i64;
        self.strings.insert(text.to_owned(), index);
        self.profile.string_table.push(text.to_owned());
        index
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a gzipped profile back.
#[cfg(test)]
pub(crate) fn decode(bytes: &[u8]) -> pb::Profile {
    use std::io::Read as _;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
    pb::Profile::decode(&*plain).expect("profile.proto")
}
