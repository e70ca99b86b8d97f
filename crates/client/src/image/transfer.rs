//! Whole images in and out of files and pipes.

use super::layout::data_ranges;
use super::{Image, ImageError, Piece};
use crate::io::ObjectIo;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one read of the source or the image.
const CHUNK_LEN: usize = 1 << 20;
/// Chunks on the way at a time: enough to keep every OSD busy, 16 MiB of memory.
const CHUNKS_AT_A_TIME: usize = 16;

/// Hears of bytes done.
pub trait Progress: Send + Sync {
    /// So many bytes of the whole are done.
    fn done(&self, bytes: u64);
}

impl<F: Fn(u64) + Send + Sync> Progress for F {
    fn done(&self, bytes: u64) {
        self(bytes)
    }
}

/// Fills an image from a source, whose zeros are not stored. The image reads as zeros where nothing is written: it is
/// presumed to be new. Bytes of the source beyond the image's end are an error.
///
/// # Errors
/// What source or image answer.
pub async fn import<I: ObjectIo>(
    image: &Image<I>,
    source: &mut (impl AsyncRead + Unpin),
    progress: &impl Progress,
) -> Result<(), ImageError> {
    let mut offset = 0;
    let mut writes = FuturesUnordered::new();
    loop {
        let chunk = read_chunk(source, offset).await?;
        let len = chunk.len() as u64;
        if len > 0 && offset + len > image.size() {
            return Err(ImageError::OutOfRange { size: image.size() });
        }
        for range in data_ranges(&chunk) {
            let at = offset + range.start as u64;
            let data = chunk.slice(range);
            writes.push(image.write(at, data));
            if writes.len() >= CHUNKS_AT_A_TIME
                && let Some(written) = writes.next().await
            {
                written?;
            }
        }
        offset += len;
        progress.done(offset);
        if len < CHUNK_LEN as u64 {
            break;
        }
    }
    while let Some(written) = writes.next().await {
        written?;
    }
    image.flush().await
}

/// As many bytes as a chunk has, fewer only at the end.
async fn read_chunk(source: &mut (impl AsyncRead + Unpin), offset: u64) -> Result<Bytes, ImageError> {
    let mut chunk = BytesMut::with_capacity(CHUNK_LEN);
    while chunk.len() < CHUNK_LEN {
        let room = CHUNK_LEN - chunk.len();
        let read = source.take(room as u64).read_buf(&mut chunk).await;
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => {
                let offset = offset + chunk.len() as u64;
                return Err(ImageError::Source { offset, why: error.to_string() });
            }
        }
    }
    Ok(chunk.freeze())
}

/// Where an image goes to.
pub trait Destination: AsyncWrite + Unpin {
    /// Goes on after `len` zeros, if it can leave a hole; else the zeros are written.
    fn skip(&mut self, len: u64) -> impl Future<Output = std::io::Result<bool>> + Send;
}

/// A new file: zeros become holes.
impl Destination for tokio::fs::File {
    async fn skip(&mut self, len: u64) -> std::io::Result<bool> {
        let signed = i64::try_from(len).map_err(std::io::Error::other)?;
        self.seek(std::io::SeekFrom::Current(signed)).await?;
        Ok(true)
    }
}

/// A pipe: all of it is written.
impl Destination for tokio::io::Stdout {
    async fn skip(&mut self, _len: u64) -> std::io::Result<bool> {
        Ok(false)
    }
}

/// Copies an image out. Its length must be set by the caller where trailing holes matter (a file).
///
/// # Errors
/// What destination or image answer.
pub async fn export<I: ObjectIo>(
    image: &Image<I>,
    destination: &mut impl Destination,
    progress: &impl Progress,
) -> Result<(), ImageError> {
    let size = image.size();
    let chunks = (0..size.div_ceil(CHUNK_LEN as u64)).map(|chunk| {
        let offset = chunk * CHUNK_LEN as u64;
        image.read(offset, (size - offset).min(CHUNK_LEN as u64))
    });
    let mut reads = futures_util::stream::iter(chunks).buffered(CHUNKS_AT_A_TIME);
    let mut offset = 0;
    while let Some(pieces) = reads.next().await {
        for piece in pieces? {
            let written = write_piece(destination, &piece).await;
            written.map_err(|error| ImageError::Destination { offset, why: error.to_string() })?;
            offset += piece.len();
        }
        progress.done(offset);
    }
    destination.flush().await.map_err(|error| ImageError::Destination { offset, why: error.to_string() })
}

async fn write_piece(destination: &mut impl Destination, piece: &Piece) -> std::io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    match piece {
        Piece::Data(data) => destination.write_all(data).await,
        Piece::Zero(len) => {
            if destination.skip(*len).await? {
                return Ok(());
            }
            let mut left = *len;
            while left > 0 {
                let part = left.min(ZEROS.len() as u64);
                destination.write_all(&ZEROS[..part as usize]).await?;
                left -= part;
            }
            Ok(())
        }
    }
}
