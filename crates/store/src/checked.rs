//! A file that tells whether it is whole: the CRC-32 of what comes before stands in its last four bytes (little-endian).

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A file whose checksum stands at its end.
#[derive(Debug)]
pub struct Checked {
    out: BufWriter<File>,
    crc: crc32fast::Hasher,
    size: u64,
}

impl Checked {
    /// An empty file.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let out = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self { out, crc: crc32fast::Hasher::new(), size: 0 })
    }

    /// Writes the checksum, waits for the disk, and says how long the file is.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(mut self) -> std::io::Result<u64> {
        let crc = self.crc.clone().finalize().to_le_bytes();
        self.out.write_all(&crc)?;
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        Ok(self.size + 4)
    }
}

impl Write for Checked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.crc.update(bytes);
        self.size += bytes.len() as u64;
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
    fn the_checksum_stands_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = Checked::create(&path).unwrap();
        file.write_all(b"some").unwrap();
        file.write_all(b"thing").unwrap();
        assert_eq!(file.finish().unwrap(), 13);
        let bytes = std::fs::read(&path).unwrap();
        let (body, crc) = bytes.split_last_chunk::<4>().unwrap();
        assert_eq!((body, u32::from_le_bytes(*crc)), (&b"something"[..], crc32fast::hash(b"something")));
    }
}
