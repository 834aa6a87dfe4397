//! Finds the frames in one direction of an HTTP/2 connection, cut anywhere.
//!
//! It reads the nine-byte frame headers (RFC 9113, section 4.1) and skips over
//! payloads, but for the few bytes of SETTINGS, WINDOW_UPDATE, RST_STREAM,
//! PING and GOAWAY. It keeps a few bytes whatever a peer announces. What cannot
//! be HTTP/2 makes it [`Lost`], once and for good: it never guesses.

use crate::registry::wire::frame::Frame;

/// What a client sends before its first frame.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
const FLAG_END_OR_ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// The bytes are no HTTP/2, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// Reads one direction.
///
/// ```text
///             24 bytes              9 bytes               payload
///   Preface ───────────▶ Header ───────────────▶ Payload ─────────┐
///      │                   ▲ │                      │             │
///      │ other bytes       │ │ impossible           └─────────────┘
///      └──────────▶ Lost ◀─┼─┘ for its type         the next header
///                          └──────────────────────────────────────
/// ```
#[derive(Clone, Debug)]
pub struct FrameReader {
    /// Of the preface, bytes still to come.
    preface: u8,
    /// The frame's.
    id: u32,
    kind: u8,
    flags: u8,
    /// Bytes of the header seen; 9 while inside a payload.
    head_seen: u8,
    /// The header, where it is cut.
    head: [u8; 9],
    /// Of the payload what is looked at.
    small: [u8; 8],
    small_seen: u8,
    /// Payload bytes still to come.
    left: u32,
    /// The stream whose header block is open: only CONTINUATION may follow.
    block: u32,
    begun: bool,
    lost: bool,
}

impl FrameReader {
    /// A reader of what a server sends.
    pub fn server() -> Self {
        Self {
            preface: 0,
            id: 0,
            kind: 0,
            flags: 0,
            head_seen: 0,
            head: [0; 9],
            small: [0; 8],
            small_seen: 0,
            left: 0,
            block: 0,
            begun: false,
            lost: false,
        }
    }

    /// A reader of what a client sends, its preface first.
    pub fn client() -> Self {
        Self { preface: PREFACE.len() as u8, ..Self::server() }
    }

    /// Takes the next bytes and calls `frame` with what ends in them.
    ///
    /// # Errors
    /// [`Lost`], now and ever after, if they cannot be HTTP/2.
    pub fn feed(&mut self, mut bytes: &[u8], frame: &mut impl FnMut(Frame)) -> Result<(), Lost> {
        if self.lost {
            return Err(Lost);
        }
        while !bytes.is_empty() {
            let step = if self.preface > 0 {
                self.skip_preface(bytes)
            } else if self.head_seen < 9 {
                self.header(bytes, frame)
            } else {
                self.payload(bytes, frame)
            };
            match step {
                Ok(taken) => bytes = &bytes[taken..],
                Err(Lost) => {
                    self.lost = true;
                    return Err(Lost);
                }
            }
        }
        Ok(())
    }

    fn skip_preface(&mut self, bytes: &[u8]) -> Result<usize, Lost> {
        let at = PREFACE.len() - usize::from(self.preface);
        let take = bytes.len().min(usize::from(self.preface));
        if bytes[..take] != PREFACE[at..at + take] {
            return Err(Lost);
        }
        self.preface -= take as u8;
        Ok(take)
    }

    fn header(&mut self, bytes: &[u8], frame: &mut impl FnMut(Frame)) -> Result<usize, Lost> {
        let at = usize::from(self.head_seen);
        let whole = bytes.first_chunk().filter(|_| at == 0);
        let take = bytes.len().min(9 - at);
        let head = match whole {
            Some(whole) => *whole,
            None => {
                self.head[at..at + take].copy_from_slice(&bytes[..take]);
                self.head
            }
        };
        self.head_seen += take as u8;
        if self.head_seen == 9 {
            let [l, m, n, kind, flags, a, b, c, d] = head;
            self.left = u32::from_be_bytes([0, l, m, n]);
            (self.kind, self.flags) = (kind, flags);
            // The highest bit is reserved, and to be ignored.
            self.id = u32::from_be_bytes([a & 0x7f, b, c, d]);
            self.small_seen = 0;
            self.check()?;
            if self.left == 0 {
                self.ended(frame);
            }
        }
        Ok(take)
    }

    fn flag(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether such a frame can come here.
    fn check(&mut self) -> Result<(), Lost> {
        let (kind, length, id) = (self.kind, self.left, self.id);
        let possible = match kind {
            DATA | HEADERS | PUSH_PROMISE | CONTINUATION => id != 0,
            RST_STREAM => id != 0 && length == 4,
            SETTINGS if self.flag(FLAG_END_OR_ACK) => id == 0 && length == 0,
            SETTINGS => id == 0 && length % 6 == 0,
            PING => id == 0 && length == 8,
            GOAWAY => id == 0 && length >= 8,
            WINDOW_UPDATE => length == 4,
            _ => true,
        };
        let in_turn = if self.block != 0 {
            kind == CONTINUATION && id == self.block
        } else {
            kind != CONTINUATION && (self.begun || kind == SETTINGS)
        };
        if !possible || !in_turn {
            return Err(Lost);
        }
        self.begun = true;
        if matches!(kind, HEADERS | PUSH_PROMISE | CONTINUATION) {
            self.block = if self.flag(END_HEADERS) { 0 } else { id };
        }
        Ok(())
    }

    fn payload(&mut self, bytes: &[u8], frame: &mut impl FnMut(Frame)) -> Result<usize, Lost> {
        let take = bytes.len().min(self.left as usize);
        let piece = &bytes[..take];
        // `left` fits 24 bits, and `take` is no more.
        self.left -= take as u32;
        match self.kind {
            DATA if self.left > 0 => {
                frame(Frame::Data { id: self.id, bytes: take as u32, end: false });
            }
            DATA => {
                let end = self.flag(FLAG_END_OR_ACK);
                frame(Frame::Data { id: self.id, bytes: take as u32, end });
                self.head_seen = 0;
                return Ok(take);
            }
            SETTINGS => self.settings(piece, frame),
            HEADERS | RST_STREAM | PING | GOAWAY | WINDOW_UPDATE => {
                let at = usize::from(self.small_seen);
                let keep = piece.len().min(8 - at);
                self.small[at..at + keep].copy_from_slice(&piece[..keep]);
                self.small_seen += keep as u8;
            }
            _ => {}
        }
        if self.left == 0 {
            self.ended(frame);
        }
        Ok(take)
    }

    /// Entries of six bytes each.
    fn settings(&mut self, piece: &[u8], frame: &mut impl FnMut(Frame)) {
        for &byte in piece {
            self.small[usize::from(self.small_seen)] = byte;
            self.small_seen += 1;
            if self.small_seen == 6 {
                let [a, b, c, d, e, f, ..] = self.small;
                let key = u16::from_be_bytes([a, b]);
                frame(Frame::Setting { key, value: u32::from_be_bytes([c, d, e, f]) });
                self.small_seen = 0;
            }
        }
    }

    /// A frame is complete. DATA with a payload says so itself.
    fn ended(&mut self, frame: &mut impl FnMut(Frame)) {
        self.head_seen = 0;
        let id = self.id;
        let [a, b, c, d, e, f, g, h] = self.small;
        let first = u32::from_be_bytes([a, b, c, d]);
        frame(match self.kind {
            DATA => Frame::Data { id, bytes: 0, end: self.flag(FLAG_END_OR_ACK) },
            HEADERS => Frame::Headers {
                id,
                end_stream: self.flag(FLAG_END_OR_ACK),
                complete: self.flag(END_HEADERS),
                first: if self.small_seen > 0 { a } else { 0 },
            },
            CONTINUATION => Frame::Continuation { id, complete: self.flag(END_HEADERS) },
            RST_STREAM => Frame::Reset { id, code: first },
            SETTINGS if self.flag(FLAG_END_OR_ACK) => Frame::SettingsAck,
            SETTINGS => Frame::SettingsEnd,
            PING => Frame::Ping {
                ack: self.flag(FLAG_END_OR_ACK),
                payload: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            },
            GOAWAY => {
                Frame::Goaway { last: first & 0x7fff_ffff, code: u32::from_be_bytes([e, f, g, h]) }
            }
            WINDOW_UPDATE => Frame::WindowUpdate { id, increment: first & 0x7fff_ffff },
            _ => Frame::Other,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(id.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// A frame as a peer may send it, and what is to be read of it.
    fn any_frame() -> impl Strategy<Value = (Vec<u8>, Vec<Frame>)> {
        let id = 1..0x7fff_ffff_u32;
        let payload = prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            (id.clone(), payload.clone(), any::<bool>()).prop_map(|(id, payload, end)| {
                let bytes = payload.len() as u32;
                (raw(DATA, u8::from(end), id, &payload), vec![Frame::Data { id, bytes, end }])
            }),
            (id.clone(), payload.clone(), any::<bool>()).prop_map(|(id, payload, end_stream)| {
                let first = payload.first().copied().unwrap_or(0);
                let (head, rest) = payload.split_at(payload.len() / 2);
                let first = if head.is_empty() { 0 } else { first };
                let mut bytes = raw(HEADERS, u8::from(end_stream), id, head);
                bytes.extend(raw(CONTINUATION, END_HEADERS, id, rest));
                let headers = Frame::Headers { id, end_stream, complete: false, first };
                (bytes, vec![headers, Frame::Continuation { id, complete: true }])
            }),
            (id.clone(), any::<u32>()).prop_map(|(id, code)| {
                (raw(RST_STREAM, 0, id, &code.to_be_bytes()), vec![Frame::Reset { id, code }])
            }),
            prop::collection::vec((any::<u16>(), any::<u32>()), 0..9).prop_map(|entries| {
                let mut payload = Vec::new();
                for (key, value) in &entries {
                    payload.extend(key.to_be_bytes());
                    payload.extend(value.to_be_bytes());
                }
                let frames = entries.into_iter().map(|(key, value)| Frame::Setting { key, value });
                (raw(SETTINGS, 0, 0, &payload), frames.chain([Frame::SettingsEnd]).collect())
            }),
            Just((raw(SETTINGS, 1, 0, &[]), vec![Frame::SettingsAck])),
            (any::<u64>(), any::<bool>()).prop_map(|(payload, ack)| {
                let bytes = raw(PING, u8::from(ack), 0, &payload.to_be_bytes());
                (bytes, vec![Frame::Ping { ack, payload }])
            }),
            (id.clone(), any::<u32>(), payload.clone()).prop_map(|(last, code, debug)| {
                let mut bytes = last.to_be_bytes().to_vec();
                bytes.extend(code.to_be_bytes());
                bytes.extend(debug);
                (raw(GOAWAY, 0, 0, &bytes), vec![Frame::Goaway { last, code }])
            }),
            (0..0x7fff_ffff_u32, id).prop_map(|(id, increment)| {
                let bytes = raw(WINDOW_UPDATE, 0, id, &increment.to_be_bytes());
                (bytes, vec![Frame::WindowUpdate { id, increment }])
            }),
            (10..=255_u8, payload)
                .prop_map(|(kind, payload)| (raw(kind, 0xff, 7, &payload), vec![Frame::Other])),
        ]
    }

    fn read(reader: &mut FrameReader, pieces: &[&[u8]]) -> Result<Vec<Frame>, Lost> {
        let mut frames = Vec::new();
        for piece in pieces {
            reader.feed(piece, &mut |frame| frames.push(frame))?;
        }
        Ok(frames)
    }

    fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn any_chunking_reads_the_same_frames(
            frames in prop::collection::vec(any_frame(), 0..20),
            cuts in prop::collection::vec(any::<usize>(), 0..60),
        ) {
            let mut bytes = PREFACE.to_vec();
            bytes.extend(raw(SETTINGS, 0, 0, &[]));
            let mut wanted = vec![Frame::SettingsEnd];
            for (raw, read) in frames {
                bytes.extend(raw);
                wanted.extend(read);
            }
            // DATA frames that end no stream are not told from their pieces.
            let sum = |frames: Vec<Frame>| {
                let mut sums = Vec::new();
                for frame in frames {
                    match (sums.last_mut(), frame) {
                        (Some((Frame::Data { id: a, end: false, .. }, sum)), Frame::Data { id, bytes, end: false })
                            if *a == id => *sum += bytes,
                        (_, Frame::Data { bytes: 0, end: false, .. }) => {}
                        (_, Frame::Data { id, bytes, end }) => sums.push((Frame::Data { id, bytes: 0, end }, bytes)),
                        (_, frame) => sums.push((frame, 0)),
                    }
                }
                sums
            };
            let whole = read(&mut FrameReader::client(), &[&bytes]).unwrap();
            let pieces = read(&mut FrameReader::client(), &cut(&bytes, &cuts)).unwrap();
            let total = |frames: &[Frame]| frames.iter().map(|frame| match frame {
                Frame::Data { bytes, .. } => u64::from(*bytes),
                _ => 0,
            }).sum::<u64>();
            prop_assert_eq!(total(&whole), total(&pieces));
            let others = |frames: &[Frame]| frames.iter().copied()
                .filter(|frame| !matches!(frame, Frame::Data { end: false, .. }))
                .map(|frame| match frame {
                    Frame::Data { id, end, .. } => Frame::Data { id, bytes: 0, end },
                    frame => frame,
                }).collect::<Vec<_>>();
            prop_assert_eq!(others(&whole), others(&pieces));
            prop_assert_eq!(sum(whole), sum(wanted));
        }

        #[test]
        fn any_bytes_are_read_or_refused_alike(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let whole = read(&mut FrameReader::server(), &[&bytes]);
            let pieces = read(&mut FrameReader::server(), &cut(&bytes, &cuts));
            prop_assert_eq!(whole.is_err(), pieces.is_err());
            if let Ok(frames) = whole {
                prop_assert!(frames.len() <= bytes.len());
            }
        }
    }

    #[test]
    fn a_place_once_lost_stays_lost() {
        let mut reader = FrameReader::client();
        assert_eq!(reader.feed(b"GET / HTTP/1.1", &mut |_| ()), Err(Lost));
        assert_eq!(reader.feed(PREFACE, &mut |_| ()), Err(Lost));
        let settings = raw(SETTINGS, 0, 0, &[]);
        for wrong in [
            raw(RST_STREAM, 0, 1, &[0; 3]),
            raw(WINDOW_UPDATE, 0, 1, &[0; 5]),
            raw(PING, 0, 1, &[0; 8]),
            raw(SETTINGS, 0, 0, &[0; 5]),
            raw(SETTINGS, 1, 0, &[0; 6]),
            raw(GOAWAY, 0, 0, &[0; 7]),
            raw(DATA, 0, 0, &[]),
            raw(CONTINUATION, 0, 1, &[]),
            [raw(HEADERS, 0, 1, &[]), raw(DATA, 0, 1, &[])].concat(),
            [raw(HEADERS, 0, 1, &[]), raw(CONTINUATION, 0, 3, &[])].concat(),
        ] {
            let bytes = [settings.clone(), wrong].concat();
            assert_eq!(read(&mut FrameReader::server(), &[&bytes]), Err(Lost), "{bytes:?}");
        }
        assert_eq!(read(&mut FrameReader::server(), &[&raw(PING, 0, 0, &[0; 8])]), Err(Lost));
        assert!(size_of::<FrameReader>() <= 40);
    }

    #[test]
    fn a_length_is_only_waited_for() {
        let mut bytes = raw(SETTINGS, 0, 0, &[]);
        bytes.extend([0xff, 0xff, 0xff, DATA, 1, 0, 0, 0, 1, 9]);
        let frames = read(&mut FrameReader::server(), &[&bytes]).unwrap();
        assert_eq!(frames[1], Frame::Data { id: 1, bytes: 1, end: false });
    }
}
