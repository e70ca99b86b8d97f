//! A disk image as gateways serve it.

use bytes::Bytes;
use cairn_client::image::{Image, ImageError, Piece};
use cairn_client::{ObjectIo, OpError};
use cairn_gateway::{BlockDevice, BlockInfo, Extent, IoError, Segment, Zeroing};
use cairn_wire::ErrorCode;

/// Objects that one question about allocation asks: 4 GiB of an image with objects of 4 MiB.
const STATUS_OBJECTS_MAX: usize = 1024;
/// The store's unit: a smaller write reads what is around it.
const PREFERRED_BYTES: u32 = 4096;
/// Bytes of zeros written at a time where a hole is not allowed.
const ZEROS_LEN: usize = 1 << 20;

/// An open image.
pub struct ImageDevice<I: ObjectIo>(Image<I>);

impl<I: ObjectIo> ImageDevice<I> {
    pub fn new(image: Image<I>) -> Self {
        ImageDevice(image)
    }
}

fn failed(error: ImageError) -> IoError {
    match error {
        ImageError::ReadOnly { .. } => IoError::ReadOnly,
        ImageError::OutOfRange { size } => IoError::OutOfRange { size_bytes: size },
        ImageError::Closed => IoError::Closing,
        ImageError::Op(OpError::Code { code: ErrorCode::NOSPC | ErrorCode::DQUOT, .. }) => IoError::NoSpace,
        other => IoError::Failed(Box::new(other)),
    }
}

impl<I: ObjectIo> BlockDevice for ImageDevice<I> {
    fn info(&self) -> BlockInfo {
        BlockInfo {
            size_bytes: self.0.size(),
            read_only: self.0.is_read_only(),
            block_min_bytes: 1,
            block_preferred_bytes: PREFERRED_BYTES,
            zeroes_fast: true,
        }
    }

    async fn read(&self, offset: u64, len_bytes: u32) -> Result<Vec<Segment>, IoError> {
        let pieces = self.0.read(offset, len_bytes.into()).await.map_err(failed)?;
        let segment = |piece| match piece {
            Piece::Data(data) => Segment::Data(data),
            // At most the length of the request, which has 32 bits.
            Piece::Zero(len) => Segment::Zero(len as u32),
        };
        Ok(pieces.into_iter().map(segment).collect())
    }

    async fn write(&self, offset: u64, data: Bytes, _fua: bool) -> Result<(), IoError> {
        // Every answered write is durable on all replicas.
        self.0.write(offset, data).await.map_err(failed)
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.0.flush().await.map_err(failed)
    }

    async fn discard(&self, offset: u64, len_bytes: u64, _fua: bool) -> Result<(), IoError> {
        self.0.discard(offset, len_bytes).await.map_err(failed)
    }

    async fn write_zeroes(&self, offset: u64, len_bytes: u64, how: Zeroing) -> Result<(), IoError> {
        if how.may_unmap {
            return self.0.discard(offset, len_bytes).await.map_err(failed);
        }
        let zeros = Bytes::from_static(&[0; ZEROS_LEN]);
        let mut done = 0;
        while done < len_bytes {
            let len = (len_bytes - done).min(ZEROS_LEN as u64);
            self.0.write(offset + done, zeros.slice(..len as usize)).await.map_err(failed)?;
            done += len;
        }
        Ok(())
    }

    async fn status(&self, offset: u64, len_bytes: u64, extents_max: usize) -> Result<Vec<Extent>, IoError> {
        let parts = self.0.allocated(offset, len_bytes, STATUS_OBJECTS_MAX).await.map_err(failed)?;
        let extent = |(len_bytes, stored): (u64, bool)| Extent { len_bytes, hole: !stored, zero: !stored };
        Ok(parts.into_iter().take(extents_max).map(extent).collect())
    }
}
