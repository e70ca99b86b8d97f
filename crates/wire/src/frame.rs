//! Frames: the unit of a lane. A fixed header, a body, and data behind it that is never copied.

use crate::codec::{CodecError, VALUE_LEN_MAX};
use crate::lane::Lane;
use crate::message::{self, Kind, Message, MessageError};
use crate::payload::{Payload, PayloadError, Segment, block_count};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of the header in front of every frame.
pub const FRAME_HEADER_LEN: usize = 36;
/// Longest body: segment table, block checksums and message.
pub const BODY_LEN_MAX: usize = VALUE_LEN_MAX;
/// Longest payload: four objects of an image, so that recovery can batch small ones.
pub const PAYLOAD_LEN_MAX: usize = 16 << 20;
/// Most segments of a payload: a sparse read of a 4 MiB object in alternate blocks has 512.
pub const SEGMENTS_MAX: usize = 1024;

const MAGIC: [u8; 4] = *b"CRNF";
const FORMAT: u8 = 1;
const SUM_NONE: u8 = 0;
const SUM_CRC32: u8 = 1;
/// Bytes of the segment table per segment.
const SEGMENT_ENTRY_LEN: usize = 8;

/// A message and its data, outside any lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    kind: Kind,
    message: Bytes,
    payload: Payload,
}

/// Why bytes are not a frame, or a frame cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream does not carry cairn frames, or lost its place.
    #[error("not a frame: the stream has {found:02x?} where a frame starts")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The header is damaged.
    #[error("the header of a frame is damaged: checksum {found:08x} instead of {expected:08x}")]
    HeaderSum {
        /// By the header.
        expected: u32,
        /// Of its bytes.
        found: u32,
    },
    /// A field of the header has a value that this version does not know.
    #[error("a frame header has {field} {value}, which this version does not know")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u8,
    },
    /// The frame was made for another lane.
    #[error("a frame of lane {found} came on lane {lane}")]
    Lane {
        /// The lane it came on.
        lane: Lane,
        /// By its header.
        found: u8,
    },
    /// A frame is missing or came twice.
    #[error("frame {found} on lane {lane} where {expected} was due")]
    Sequence {
        /// The lane.
        lane: Lane,
        /// What was due.
        expected: u64,
        /// By the header.
        found: u64,
    },
    /// A part is longer than its limit.
    #[error("a frame with {len} bytes of {part}; {max} are allowed")]
    TooLong {
        /// Body or payload.
        part: &'static str,
        /// Bytes claimed.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// More than [`SEGMENTS_MAX`] segments.
    #[error("a frame with {count} segments; {SEGMENTS_MAX} are allowed")]
    TooManySegments {
        /// How many.
        count: usize,
    },
    /// The body is damaged.
    #[error("the body of a frame is damaged: checksum {found:08x} instead of {expected:08x}")]
    BodySum {
        /// By the header.
        expected: u32,
        /// Of its bytes.
        found: u32,
    },
    /// Segment table, checksums and payload length contradict each other.
    #[error("the segments of a frame do not fit its body of {body_len} and payload of {payload_len} bytes")]
    Segments {
        /// By the header.
        body_len: usize,
        /// By the header.
        payload_len: usize,
    },
    /// A segment is malformed or damaged.
    #[error("segment {segment}: {source}")]
    Payload {
        /// Which, from 0.
        segment: usize,
        /// What is wrong with it.
        source: PayloadError,
    },
    /// The message cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Frame {
    /// Encodes `message` with `payload` behind it. Fails when a limit is passed.
    pub fn new<M: Message>(message: &M, payload: Payload) -> Result<Self, FrameError> {
        let frame = Frame { kind: M::KIND, message: message::encode(message)?, payload };
        let (body_len, payload_len) = (frame.body_len(), frame.payload.len());
        if frame.payload.segments().len() > SEGMENTS_MAX {
            return Err(FrameError::TooManySegments { count: frame.payload.segments().len() });
        }
        check_lengths(body_len, payload_len)?;
        Ok(frame)
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Decodes the message.
    pub fn message<M: Message>(&self) -> Result<M, MessageError> {
        if self.kind != M::KIND {
            return Err(MessageError::Kind { expected: M::KIND, got: self.kind });
        }
        message::decode(&self.message)
    }

    /// The message as bytes, its header included.
    pub fn message_bytes(&self) -> &Bytes {
        &self.message
    }

    /// The data behind the message.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The data behind the message, owned.
    pub fn into_payload(self) -> Payload {
        self.payload
    }

    /// Bytes of the whole frame on the wire.
    pub fn wire_len(&self) -> usize {
        FRAME_HEADER_LEN + self.body_len() + self.payload.len()
    }

    fn body_len(&self) -> usize {
        let table: usize =
            self.payload.segments().iter().map(|s| SEGMENT_ENTRY_LEN + s.sum_bytes().len()).sum();
        table + self.message.len()
    }

    /// Appends header and body to `out`. The segments of the payload follow on the wire, as they are.
    pub fn encode_head(&self, lane: Lane, sequence: u64, out: &mut BytesMut) {
        let segments = self.payload.segments();
        let body_len = self.body_len();
        out.reserve(FRAME_HEADER_LEN + body_len);
        let start = out.len();
        out.put_bytes(0, FRAME_HEADER_LEN);
        for segment in segments {
            out.put_u16_le(segment.phase());
            out.put_u16_le(0);
            out.put_u32_le(segment.data().len() as u32);
        }
        for segment in segments {
            out.put_slice(segment.sum_bytes());
        }
        out.put_slice(&self.message);
        let (header, body) = out[start..].split_at_mut(FRAME_HEADER_LEN);
        let mut fields = &mut header[..];
        fields.put_slice(&MAGIC);
        fields.put_u8(FORMAT);
        fields.put_u8(lane.number());
        fields.put_u16_le(self.kind.0);
        fields.put_u64_le(sequence);
        fields.put_u32_le(body_len as u32);
        fields.put_u32_le(self.payload.len() as u32);
        fields.put_u32_le(crc32fast::hash(body));
        fields.put_u16_le(segments.len() as u16);
        fields.put_u8(if segments.is_empty() { SUM_NONE } else { SUM_CRC32 });
        fields.put_u8(0);
        let sum = crc32fast::hash(&header[..FRAME_HEADER_LEN - 4]);
        header[FRAME_HEADER_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    }

    /// The whole frame in one buffer: a copy, for tests and dumps.
    pub fn to_bytes(&self, lane: Lane, sequence: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(self.wire_len());
        self.encode_head(lane, sequence, &mut out);
        for segment in self.payload.segments() {
            out.put_slice(segment.data());
        }
        out.freeze()
    }
}

fn check_lengths(body_len: usize, payload_len: usize) -> Result<(), FrameError> {
    for (part, len, max) in [("body", body_len, BODY_LEN_MAX), ("payload", payload_len, PAYLOAD_LEN_MAX)] {
        if len > max {
            return Err(FrameError::TooLong { part, len, max });
        }
    }
    Ok(())
}

/// What is kept of a header while the rest of its frame arrives.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: Kind,
    body_len: usize,
    payload_len: usize,
    body_sum: u32,
    segments: usize,
}

impl Header {
    fn parse(bytes: &[u8; FRAME_HEADER_LEN], lane: Lane, due: u64) -> Result<Header, FrameError> {
        let mut fields = &bytes[..];
        let mut magic = [0; 4];
        fields.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        let found = crc32fast::hash(&bytes[..FRAME_HEADER_LEN - 4]);
        let expected = (&bytes[FRAME_HEADER_LEN - 4..]).get_u32_le();
        if found != expected {
            return Err(FrameError::HeaderSum { expected, found });
        }
        let known = |field, value, known| {
            if known { Ok(()) } else { Err(FrameError::Unknown { field, value }) }
        };
        let format = fields.get_u8();
        known("format", format, format == FORMAT)?;
        let lane_number = fields.get_u8();
        if lane_number != lane.number() {
            return Err(FrameError::Lane { lane, found: lane_number });
        }
        let kind = Kind(fields.get_u16_le());
        let sequence = fields.get_u64_le();
        if sequence != due {
            return Err(FrameError::Sequence { lane, expected: due, found: sequence });
        }
        let body_len = fields.get_u32_le() as usize;
        let payload_len = fields.get_u32_le() as usize;
        check_lengths(body_len, payload_len)?;
        let body_sum = fields.get_u32_le();
        let segments = usize::from(fields.get_u16_le());
        if segments > SEGMENTS_MAX {
            return Err(FrameError::TooManySegments { count: segments });
        }
        let algorithm = fields.get_u8();
        known("sum_algorithm", algorithm, algorithm == if segments == 0 { SUM_NONE } else { SUM_CRC32 })?;
        let flags = fields.get_u8();
        known("flags", flags, flags == 0)?;
        Ok(Header { kind, body_len, payload_len, body_sum, segments })
    }

    /// Cuts the frame out of `buf`, which holds all of it.
    fn split(self, buf: &mut BytesMut) -> Result<Frame, FrameError> {
        let misfit = FrameError::Segments { body_len: self.body_len, payload_len: self.payload_len };
        let mut body = buf.split_to(self.body_len).freeze();
        let mut data = buf.split_to(self.payload_len).freeze();
        let found = crc32fast::hash(&body);
        if found != self.body_sum {
            return Err(FrameError::BodySum { expected: self.body_sum, found });
        }
        let table_len = self.segments * SEGMENT_ENTRY_LEN;
        if body.len() < table_len {
            return Err(misfit);
        }
        let mut table = body.split_to(table_len);
        let mut payload = Payload::none();
        for segment in 0..self.segments {
            let phase = table.get_u16_le();
            let zero = table.get_u16_le();
            let len = table.get_u32_le() as usize;
            let sums_len = block_count(phase, len) * 4;
            if zero != 0 || len > data.len() || sums_len > body.len() {
                return Err(misfit);
            }
            let part = Segment::with_sums(phase, data.split_to(len), body.split_to(sums_len))
                .and_then(|part| part.verify().map(|()| part))
                .map_err(|source| FrameError::Payload { segment, source })?;
            payload.push(part);
        }
        if !data.is_empty() {
            return Err(misfit);
        }
        Ok(Frame { kind: self.kind, message: body, payload })
    }
}

/// Cuts the frames of one lane and direction out of the bytes as they arrive.
///
/// After an error the stream has no next frame: the decoder returns no more and the lane is to be closed.
#[derive(Debug)]
pub struct FrameDecoder {
    lane: Lane,
    /// Sequence number the next frame must have.
    due: u64,
    header: Option<Header>,
}

impl FrameDecoder {
    /// At the start of `lane`.
    pub fn new(lane: Lane) -> Self {
        FrameDecoder { lane, due: 0, header: None }
    }

    /// Takes the next frame off the front of `buf`, or says that more bytes are needed (`None`).
    ///
    /// Message and data share `buf`'s memory. When the header of a frame is in, `buf` is given room
    /// for the rest of it, so that a large payload is read straight to its place; what had already
    /// arrived of it is moved once at most.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = buf.first_chunk::<FRAME_HEADER_LEN>() else {
                    return Ok(None);
                };
                let header = Header::parse(bytes, self.lane, self.due)?;
                buf.advance(FRAME_HEADER_LEN);
                self.header.insert(header).to_owned()
            }
        };
        let rest = header.body_len + header.payload_len;
        if buf.len() < rest {
            buf.reserve(rest - buf.len());
            return Ok(None);
        }
        self.header = None;
        self.due += 1;
        header.split(buf).map(Some)
    }

    /// Whether a frame has begun whose rest is still to come; the buffer has room for it.
    pub fn in_frame(&self) -> bool {
        self.header.is_some()
    }

    /// Whether the stream may end here: no frame has begun.
    pub fn at_boundary(&self, buf: &BytesMut) -> bool {
        self.header.is_none() && buf.is_empty()
    }
}
