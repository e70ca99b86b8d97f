//! The decoders of the store's format. Shared with `crates/store/tests/fuzz_smoke.rs`.

use bytes::Bytes;
use cairn_store::format::codec::Reader;
use cairn_store::format::mutation::Mutation;
use cairn_store::format::record::{HEADER_BYTES, Header};
use cairn_store::format::superblock::Superblock;
use cairn_store::format::values::{Checkpoint, Head, Shard};

/// Decodes the input as everything that it may be: no panic, and what is taken is encoded to the same bytes,
/// for a state has one form. Checksums are put right first.
pub fn decode(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(head) = Head::decode(bytes.clone()) {
        assert_eq!(head.encode(), input, "a head");
    }
    if let Ok(shard) = Shard::decode(bytes.clone()) {
        assert_eq!(shard.encode(), input, "a shard");
    }
    if let Ok(checkpoint) = Checkpoint::decode(bytes.clone()) {
        assert_eq!(checkpoint.encode(), input, "a checkpoint");
    }
    let mut reader = Reader::new(bytes);
    let mut again = Vec::new();
    while reader.left() > 0 {
        let Ok(mutation) = Mutation::decode(&mut reader) else { break };
        mutation.encode(&mut again);
        // After one that is refused the reader stands anywhere.
        assert!(input.starts_with(&again), "a mutation");
    }
    if let (Some(header), Some(store)) = (input.get(..HEADER_BYTES), input.get(8..24)) {
        let mut header = header.to_vec();
        seal(&mut header);
        let store = store.try_into().expect("16 bytes");
        if let Some(decoded) = Header::decode(&header, &store) {
            assert_eq!(decoded.encode(&store)[..], header[..], "a record's header");
        }
    }
    if let Some(sector) = input.get(..512) {
        let mut sector = sector.to_vec();
        seal(&mut sector);
        if let Ok(Some(superblock)) = Superblock::decode(&sector) {
            assert_eq!(superblock.encode()[..512], sector, "a superblock");
        }
    }
}

/// Ends it with its checksum.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}
