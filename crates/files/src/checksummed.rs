//! A file with a trailing checksum: its last four bytes are the CRC-32 (little-endian) of all bytes before them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Size of the write buffer, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a file that ends with the CRC-32 of its content.
#[derive(Debug)]
pub struct ChecksummedWriter {
    out: BufWriter<File>,
    crc: crc32fast::Hasher,
    len: u64,
}

impl ChecksummedWriter {
    /// Creates or truncates the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be created.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let out = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
        Ok(Self { out, crc: crc32fast::Hasher::new(), len: 0 })
    }

    /// Appends the checksum, syncs the file and returns its length in bytes, checksum included.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written or synced.
    pub fn finish(mut self) -> std::io::Result<u64> {
        let crc = self.crc.clone().finalize().to_le_bytes();
        self.out.write_all(&crc)?;
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        Ok(self.len + crc.len() as u64)
    }
}

impl Write for ChecksummedWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.crc.update(bytes);
        self.len += bytes.len() as u64;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_the_checksum_of_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = ChecksummedWriter::create(&path).unwrap();
        file.write_all(b"some").unwrap();
        file.write_all(b"thing").unwrap();
        assert_eq!(file.finish().unwrap(), 13);
        let bytes = std::fs::read(&path).unwrap();
        let (body, crc) = bytes.split_last_chunk::<4>().unwrap();
        assert_eq!((body, u32::from_le_bytes(*crc)), (&b"something"[..], crc32fast::hash(b"something")));
    }
}
