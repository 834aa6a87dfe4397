//! Reads saved layouts: inflated once, types parsed when they are asked for.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use flate2::read::ZlibDecoder;

use super::super::hash::Hash;
use super::super::{
    Detail, Layouts, Member, Place, Polled, Shape, Tag, TaskType, Type, TypeId, Variant, Variants,
};
use super::bytes::{Cursor, damaged};
use super::{MAGIC, MAX_INFLATED, VERSION};
use crate::error::{Error, ErrorKind, Result};

/// Longest text, in bytes: names of types run to some thousands.
const MAX_TEXT: usize = 1 << 20;
/// All texts together, and the names of all types, in bytes. Those of the
/// largest programs known have some tens of MiB; a word that is used over and
/// over says more than any file has room for.
const MAX_TEXTS: usize = 256 << 20;

/// Layouts from a saved file.
pub struct Saved {
    key: String,
    body: Box<[u8]>,
    detail: Detail,
    /// Where each word is in the body.
    words: Vec<(u32, u32)>,
    /// Where each type's record begins, and behind them where the last ends.
    records: Vec<u32>,
    /// Types by the hash of their names.
    names: Vec<(u64, u32)>,
    tasks: HashMap<u64, Arc<[TaskType]>>,
    task_polls: Arc<[u64]>,
    vtables: HashMap<u64, Vec<TypeId>>,
    polled: HashMap<TypeId, Arc<Polled>>,
    context: Option<(i64, TypeId)>,
    parsed: HashMap<TypeId, Arc<Type>>,
    texts: HashMap<(u32, u32), Arc<str>>,
    /// Bytes of texts made so far.
    text_bytes: usize,
    /// What stands for types that were left out.
    cut: Arc<Type>,
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved")
            .field("key", &self.key)
            .field("types", &self.types())
            .finish_non_exhaustive()
    }
}

/// The head of a file: what build it is for, before anything is unpacked.
#[derive(Debug)]
struct Head<'a> {
    key: &'a str,
    length: usize,
    sum: u32,
    packed: &'a [u8],
}

impl<'a> Head<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self> {
        let mut head = Cursor(bytes);
        if head.take(MAGIC.len()).ok() != Some(MAGIC) {
            return Err(Error::new(ErrorKind::Malformed, "not a layout file"));
        }
        let mut fixed = || -> Result<u32> {
            Ok(u32::from_le_bytes(head.take(4)?.try_into().map_err(|_| damaged())?))
        };
        let (version, length, sum) = (fixed()?, fixed()?, fixed()?);
        if version != VERSION {
            let text = format!(
                "a layout file of version {version}, this program reads {VERSION}: make it anew \
                 with `taskprof index`"
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let key = usize::from(head.byte()?);
        let key = std::str::from_utf8(head.take(key)?).map_err(|_| damaged())?;
        let length = length as usize;
        if length > MAX_INFLATED {
            return Err(damaged());
        }
        Ok(Self { key, length, sum, packed: head.0 })
    }
}

impl Saved {
    /// Reads a file, if it is for a build that is `wanted`.
    ///
    /// # Errors
    /// `NotFound`, `Permission` and the like; `Unsupported` for another
    /// version; `Malformed` if it is damaged or something else; what `wanted`
    /// says of another build.
    pub fn open(path: &Path, wanted: impl FnOnce(&str) -> Result<()>) -> Result<Self> {
        let doing = || format!("reading {}", path.display());
        let about = |error: Error| Error::new(error.kind(), doing()).with_source(error);
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_INFLATED as u64).read_to_end(&mut bytes))
            .map_err(|error| Error::io(doing(), error))?;
        let head = Head::of(&bytes).map_err(about)?;
        wanted(head.key)?;
        Self::unpack(&head).map_err(about)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// As for [`Saved::open`].
    #[cfg(any(test, fuzzing))]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::unpack(&Head::of(bytes)?)
    }

    fn unpack(head: &Head<'_>) -> Result<Self> {
        let length = head.length;
        let mut body = Vec::new();
        // One byte more than claimed, to see that it ends there. Memory grows
        // with what is really there.
        ZlibDecoder::new(head.packed)
            .take(length as u64 + 1)
            .read_to_end(&mut body)
            .map_err(|error| damaged().with_source(error))?;
        let mut found = flate2::Crc::new();
        found.update(&body);
        if body.len() != length || found.sum() != head.sum {
            return Err(damaged());
        }
        Self::from_body(body, head.key.to_owned())
    }

    /// The build that it is for.
    #[cfg(test)]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Reads a body: inflated, its checksum right.
    pub(in super::super) fn from_body(body: Vec<u8>, key: String) -> Result<Self> {
        let body = body.into_boxed_slice();
        let mut saved = Self {
            key,
            body: Box::default(),
            detail: Detail::Nothing,
            words: Vec::new(),
            records: Vec::new(),
            names: Vec::new(),
            tasks: HashMap::new(),
            task_polls: Arc::new([]),
            vtables: HashMap::new(),
            polled: HashMap::new(),
            context: None,
            parsed: HashMap::new(),
            texts: HashMap::new(),
            text_bytes: 0,
            cut: Arc::new(Type { name: "..".into(), size: 0, shape: Shape::Opaque }),
        };
        let mut cursor = Cursor(&body);
        saved.detail = match cursor.byte()? {
            0 => Detail::Nothing,
            1 => Detail::Names,
            2 => Detail::Full,
            _ => return Err(damaged()),
        };
        let count = cursor.count(1)?;
        saved.words.reserve_exact(count);
        for _ in 0..count {
            let len = cursor.short()? as usize;
            let start = body.len() - cursor.0.len();
            std::str::from_utf8(cursor.take(len)?).map_err(|_| damaged())?;
            saved.words.push((start as u32, (start + len) as u32));
        }
        let count = cursor.count(2)?;
        saved.records.reserve_exact(count + 1);
        let mut at = 0_usize;
        saved.records.push(0);
        for _ in 0..count {
            at = at.checked_add(cursor.short()? as usize).ok_or_else(damaged)?;
            if at > body.len() {
                return Err(damaged());
            }
            saved.records.push(at as u32);
        }
        let start = (body.len() - cursor.0.len()) as u32;
        cursor.take(at)?;
        for record in &mut saved.records {
            *record = record.checked_add(start).ok_or_else(damaged)?;
        }
        saved.read_tasks(&mut cursor)?;
        saved.read_vtables(&mut cursor)?;
        saved.read_polled(&body, &mut cursor)?;
        if cursor.byte()? == 1 {
            let offset = cursor.long()?;
            let offset = (offset >> 1) as i64 ^ -((offset & 1) as i64);
            saved.context = saved.id(&mut cursor)?.map(|of| (offset, of));
        }
        saved.hash_names(&body)?;
        saved.body = body;
        Ok(saved)
    }

    fn hash_names(&mut self, body: &[u8]) -> Result<()> {
        self.names.reserve_exact(self.types());
        let mut left = MAX_TEXTS;
        for number in 0..self.types() {
            let mut cursor = Cursor(self.record_bytes(body, number).ok_or_else(damaged)?);
            cursor.long()?;
            let mut hash = Hash::default();
            for _ in 0..cursor.count(1)? {
                let word = self.words.get(cursor.short()? as usize).ok_or_else(damaged)?;
                let word = &body[word.0 as usize..word.1 as usize];
                left = left.checked_sub(word.len()).ok_or_else(damaged)?;
                hash = hash.with(word);
            }
            self.names.push((hash.value(), number as u32));
        }
        self.names.sort_unstable();
        Ok(())
    }

    /// How many types there are.
    fn types(&self) -> usize {
        self.records.len().saturating_sub(1)
    }

    fn record_bytes<'a>(&self, body: &'a [u8], number: usize) -> Option<&'a [u8]> {
        let (start, end) = (*self.records.get(number)?, *self.records.get(number + 1)?);
        body.get(start as usize..end as usize)
    }

    /// A type's id; `None` for one that was left out.
    fn id(&self, cursor: &mut Cursor<'_>) -> Result<Option<TypeId>> {
        match cursor.short()? {
            0 => Ok(None),
            number if number as usize <= self.types() => Ok(Some(TypeId(number - 1))),
            _ => Err(damaged()),
        }
    }

    /// The same where a type has to be: what was left out is the one behind
    /// the last.
    fn some_id(&self, cursor: &mut Cursor<'_>) -> Result<TypeId> {
        Ok(self.id(cursor)?.unwrap_or(TypeId(self.types() as u32)))
    }

    fn text(&mut self, body: &[u8], cursor: &mut Cursor<'_>) -> Result<Arc<str>> {
        let count = cursor.count(1)?;
        let word = |number: u32| -> Result<&str> {
            let &(start, end) = self.words.get(number as usize).ok_or_else(damaged)?;
            let bytes = body.get(start as usize..end as usize).ok_or_else(damaged)?;
            std::str::from_utf8(bytes).map_err(|_| damaged())
        };
        if count == 1 {
            // Names of members, by far the most: one copy of each.
            let number = cursor.short()?;
            let key = *self.words.get(number as usize).ok_or_else(damaged)?;
            if let Some(known) = self.texts.get(&key) {
                return Ok(Arc::clone(known));
            }
            let text: Arc<str> = word(number)?.into();
            self.text_bytes += text.len();
            self.texts.insert(key, Arc::clone(&text));
            return Ok(text);
        }
        let mut text = String::new();
        for _ in 0..count {
            text.push_str(word(cursor.short()?)?);
            if text.len() > MAX_TEXT {
                return Err(damaged());
            }
        }
        self.text_bytes += text.len();
        if self.text_bytes > MAX_TEXTS {
            return Err(damaged());
        }
        Ok(text.into())
    }

    fn place(&mut self, body: &[u8], cursor: &mut Cursor<'_>) -> Result<Option<Place>> {
        Ok(match cursor.short()? {
            0 => None,
            line => Some(Place { file: self.text(body, cursor)?, line }),
        })
    }

    fn read_tasks(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let mut polls = Vec::new();
        let mut address = 0_u64;
        for _ in 0..cursor.count(2)? {
            address = address.checked_add(cursor.long()?).ok_or_else(damaged)?;
            let mut types = Vec::new();
            for _ in 0..cursor.count(3)? {
                types.push(TaskType {
                    future: self.some_id(cursor)?,
                    scheduler: self.some_id(cursor)?,
                    cell: self.id(cursor)?,
                });
            }
            polls.push(address);
            self.tasks.insert(address, types.into());
        }
        self.task_polls = polls.into();
        Ok(())
    }

    fn read_vtables(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        let mut address = 0_u64;
        for _ in 0..cursor.count(2)? {
            address = address.checked_add(cursor.long()?).ok_or_else(damaged)?;
            let of = self.some_id(cursor)?;
            self.vtables.entry(address).or_default().push(of);
        }
        Ok(())
    }

    fn read_polled(&mut self, body: &[u8], cursor: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..cursor.count(4)? {
            let of = self.some_id(cursor)?;
            let function = self.text(body, cursor)?;
            let coroutine = cursor.byte()? == 1;
            let place = self.place(body, cursor)?;
            self.polled.insert(of, Arc::new(Polled { function, place, coroutine }));
        }
        Ok(())
    }

    fn parse(&mut self, id: TypeId) -> Result<Arc<Type>> {
        let number = id.0 as usize;
        if number == self.types() {
            return Ok(Arc::clone(&self.cut));
        }
        let unknown = || Error::new(ErrorKind::InvalidInput, "a type of other layouts");
        // Taken out while its records are read and texts are added.
        let body = std::mem::take(&mut self.body);
        let record = self.record_bytes(&body, number).ok_or_else(unknown);
        let parsed = record.and_then(|record| self.record(&body, record));
        self.body = body;
        parsed
    }

    fn record(&mut self, body: &[u8], record: &[u8]) -> Result<Arc<Type>> {
        let mut cursor = Cursor(record);
        let size = cursor.long()?;
        let name = self.text(body, &mut cursor)?;
        let shape = match cursor.byte()? {
            0 => Shape::Opaque,
            kind @ (1 | 2) => {
                let mut members = Vec::new();
                for _ in 0..cursor.count(3)? {
                    members.push(Member {
                        name: self.text(body, &mut cursor)?,
                        offset: cursor.long()?,
                        ty: self.some_id(&mut cursor)?,
                    });
                }
                let members = members.into();
                if kind == 1 { Shape::Struct(members) } else { Shape::Union(members) }
            }
            3 => Shape::Pointer(self.id(&mut cursor)?),
            4 => Shape::Array { of: self.some_id(&mut cursor)?, count: cursor.long()? },
            5 => Shape::Enum(self.variants(body, &mut cursor)?),
            _ => return Err(damaged()),
        };
        Ok(Arc::new(Type { name, size, shape }))
    }

    fn variants(&mut self, body: &[u8], cursor: &mut Cursor<'_>) -> Result<Variants> {
        let tag = match cursor.byte()? {
            0 => None,
            size @ (1 | 2 | 4 | 8 | 16) => Some(Tag { offset: cursor.long()?, size }),
            _ => return Err(damaged()),
        };
        let mut list = Vec::new();
        for _ in 0..cursor.count(5)? {
            let name = self.text(body, cursor)?;
            let mut values = Vec::new();
            for _ in 0..cursor.count(2)? {
                let low = cursor.wide()?;
                values.push((low, low.checked_add(cursor.wide()?).ok_or_else(damaged)?));
            }
            list.push(Variant {
                name,
                values: values.into(),
                payload: self.some_id(cursor)?,
                offset: cursor.long()?,
                place: self.place(body, cursor)?,
            });
        }
        Ok(Variants { tag, list: list.into() })
    }
}

impl Layouts for Saved {
    fn detail(&self) -> Detail {
        self.detail
    }

    fn find(&mut self, name: &str) -> Option<TypeId> {
        let hash = Hash::of(name).value();
        let at = self.names.partition_point(|known| known.0 < hash);
        self.names.get(at).filter(|known| known.0 == hash).map(|known| TypeId(known.1))
    }

    fn ty(&mut self, id: TypeId) -> Result<Arc<Type>> {
        if let Some(known) = self.parsed.get(&id) {
            return Ok(Arc::clone(known));
        }
        let parsed = self.parse(id)?;
        self.parsed.insert(id, Arc::clone(&parsed));
        Ok(parsed)
    }

    fn task_polls(&mut self) -> Arc<[u64]> {
        Arc::clone(&self.task_polls)
    }

    fn task(&mut self, poll: u64) -> Arc<[TaskType]> {
        self.tasks.get(&poll).cloned().unwrap_or_default()
    }

    fn behind(&mut self, vtable: u64) -> Vec<TypeId> {
        self.vtables.get(&vtable).cloned().unwrap_or_default()
    }

    fn polled(&mut self, id: TypeId) -> Option<Arc<Polled>> {
        self.polled.get(&id).cloned()
    }

    fn context(&mut self) -> Option<(i64, TypeId)> {
        self.context
    }
}
