//! Replies on their way to the socket: small parts are gathered, data is passed through as it is.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Parts given to the system in one call; Linux takes at most 1,024.
pub(crate) const SLICES_MAX: usize = 64;

/// Bytes to send, in order.
#[derive(Default)]
pub struct Outbox {
    parts: VecDeque<Bytes>,
    /// Small parts behind all of `parts`.
    head: BytesMut,
    len_bytes: u64,
    /// Bytes ever taken by the socket.
    sent_bytes: u64,
}

impl Outbox {
    /// Where small parts are appended.
    pub(crate) fn head(&mut self) -> &mut BytesMut {
        &mut self.head
    }

    /// Appends data without copying it.
    pub(crate) fn push(&mut self, data: Bytes) {
        self.seal();
        self.len_bytes += data.len() as u64;
        self.parts.push_back(data);
    }

    fn seal(&mut self) {
        if !self.head.is_empty() {
            self.len_bytes += self.head.len() as u64;
            self.parts.push_back(self.head.split().freeze());
        }
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.head.is_empty()
    }

    /// The position in the stream after all that was put in so far.
    pub(crate) fn end(&self) -> u64 {
        self.sent_bytes + self.len_bytes + self.head.len() as u64
    }

    /// The position up to which the socket has taken bytes.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Fills in what to send next, and says how many places that takes.
    pub(crate) fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        self.seal();
        let parts = self.parts.iter().zip(slices.iter_mut());
        parts.map(|(part, slice)| *slice = IoSlice::new(part)).count()
    }

    /// Nobody will read it: everything counts as sent.
    pub(crate) fn drop_all(&mut self) {
        self.seal();
        self.parts.clear();
        self.sent_bytes += std::mem::take(&mut self.len_bytes);
    }

    /// The socket took `len` bytes.
    pub(crate) fn advance(&mut self, mut len: usize) {
        self.sent_bytes += len as u64;
        self.len_bytes -= len as u64;
        while len > 0 {
            let first = self.parts.front_mut().expect("no more is taken than was given");
            if first.len() > len {
                first.advance(len);
                return;
            }
            len -= first.len();
            self.parts.pop_front();
        }
    }

    /// Everything, for tests of what replies look like.
    #[cfg(test)]
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        self.seal();
        let all = self.parts.iter().flat_map(|part| part.to_vec()).collect();
        self.drop_all();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;

    #[test]
    fn parts_leave_in_order_however_the_socket_takes_them() {
        for step in 1..12 {
            let mut outbox = Outbox::default();
            outbox.head().put_slice(b"abc");
            outbox.push(Bytes::from_static(b"defgh"));
            outbox.head().put_slice(b"i");
            outbox.head().put_slice(b"jk");
            assert_eq!(outbox.end(), 11);
            let mut got = Vec::new();
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = outbox.slices(&mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let taken = step.min(all.len());
                got.extend_from_slice(&all[..taken]);
                outbox.advance(taken);
            }
            assert_eq!(got, b"abcdefghijk");
            assert_eq!((outbox.sent_bytes(), outbox.end()), (11, 11));
        }
    }
}
