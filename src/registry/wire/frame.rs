//! HTTP/2 frames as far as their headers tell (RFC 9113, sections 4 and 6).

/// One frame, or a piece of one. Header blocks are never looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// So many payload bytes of a DATA frame, padding and its length included:
    /// flow control counts them all. A frame that passes in several pieces
    /// gives one each; `end` stands on the last.
    Data {
        /// Stream.
        id: u32,
        /// Bytes of this piece.
        bytes: u32,
        /// It carries END_STREAM and is complete.
        end: bool,
    },
    /// A whole HEADERS frame.
    Headers {
        /// Stream.
        id: u32,
        /// END_STREAM.
        end_stream: bool,
        /// END_HEADERS: no CONTINUATION follows.
        complete: bool,
        /// The first byte of the payload; 0 if there is none.
        first: u8,
    },
    /// A whole CONTINUATION frame.
    Continuation {
        /// Stream.
        id: u32,
        /// END_HEADERS.
        complete: bool,
    },
    /// RST_STREAM.
    Reset {
        /// Stream.
        id: u32,
        /// Error code.
        code: u32,
    },
    /// One entry of a SETTINGS frame.
    Setting {
        /// Which; see section 6.5.2.
        key: u16,
        /// Its value.
        value: u32,
    },
    /// The end of a SETTINGS frame.
    SettingsEnd,
    /// The acknowledgement of one.
    SettingsAck,
    /// PING.
    Ping {
        /// It answers one.
        ack: bool,
        /// Its eight bytes.
        payload: u64,
    },
    /// GOAWAY.
    Goaway {
        /// The last stream that is still served.
        last: u32,
        /// Error code.
        code: u32,
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// Stream; 0 for the connection.
        id: u32,
        /// Bytes more.
        increment: u32,
    },
    /// Any other frame, known or not.
    Other,
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
/// SETTINGS_INITIAL_WINDOW_SIZE.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// What windows start with before any setting says otherwise.
pub const DEFAULT_WINDOW: u32 = 65_535;
