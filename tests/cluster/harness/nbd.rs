//! A client of the NBD protocol over a unix socket that neither retries nor waits on its own: what it is answered, the
//! test sees. Numbers are those of the protocol (doc/proto.md of the NBD project).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const FIXED_NEWSTYLE_NO_ZEROES: u32 = 3;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_ERROR: u32 = 1 << 31;
const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_FLUSH: u16 = 3;

/// What is asked of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    Read { offset: u64, len: u32 },
    Write { offset: u64, data: &'a [u8] },
    Flush,
}

/// One connection.
pub struct Nbd(UnixStream);

impl Nbd {
    /// Connects to the first export.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        assert_eq!(greeting[..8], NBDMAGIC.to_be_bytes());
        assert_eq!(greeting[8..16], IHAVEOPT.to_be_bytes());
        let mut hello = FIXED_NEWSTYLE_NO_ZEROES.to_be_bytes().to_vec();
        hello.extend(IHAVEOPT.to_be_bytes());
        hello.extend(OPTION_GO.to_be_bytes());
        // An empty name, no questions.
        hello.extend(6_u32.to_be_bytes());
        hello.extend([0; 6]);
        stream.write_all(&hello)?;
        loop {
            let mut reply = [0; 20];
            stream.read_exact(&mut reply)?;
            assert_eq!(reply[..8], OPTION_REPLY_MAGIC.to_be_bytes());
            let word = |at: usize| u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
            let mut data = vec![0; word(16) as usize];
            stream.read_exact(&mut data)?;
            match word(12) {
                REPLY_ACK => return Ok(Nbd(stream)),
                error if error & REPLY_ERROR != 0 => panic!("the export is refused: {error:#x}"),
                _ => {}
            }
        }
    }

    /// How long a reply may be waited for; beyond it reading fails.
    pub fn set_patience(&self, patience: Duration) {
        self.0.set_read_timeout(Some(patience)).unwrap();
    }

    /// Sends a request.
    pub fn send(&mut self, cookie: u64, command: Command<'_>) -> io::Result<()> {
        let (kind, offset, len, data) = match command {
            Command::Read { offset, len } => (COMMAND_READ, offset, len, &[][..]),
            Command::Write { offset, data } => (COMMAND_WRITE, offset, data.len() as u32, data),
            Command::Flush => (COMMAND_FLUSH, 0, 0, &[][..]),
        };
        let mut bytes = Vec::with_capacity(28 + data.len());
        bytes.extend(REQUEST_MAGIC.to_be_bytes());
        bytes.extend(0_u16.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes.extend(data);
        self.0.write_all(&bytes)
    }

    /// The next reply: which request it answers, and the error's number, 0 for none. The data of a read comes next.
    pub fn reply(&mut self) -> io::Result<(u64, u32)> {
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply)?;
        assert_eq!(reply[..4], SIMPLE_REPLY_MAGIC.to_be_bytes());
        let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
        Ok((u64::from_be_bytes(reply[8..].try_into().unwrap()), error))
    }

    /// The data behind the reply to a read.
    pub fn data(&mut self, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(into)
    }
}
