//! An object store that compares data files with their checksums when they are read.
//!
//! SQL reads files through delta-rs and DataFusion, which know nothing of the checksums. All they read comes through
//! this store, so it is compared here, and an error of the store names the damaged file. The checksums of recently read
//! files are kept: a reader asks for footer, page index and column chunks one by one.

use std::collections::VecDeque;
use std::fmt::{Display, Formatter};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use deltalake_core::{ObjectStore, ObjectStoreError, Path};
use futures_util::stream::{BoxStream, StreamExt, once};
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use crate::damaged_files::{DamagedFile, DamagedFiles, MISSING};
use crate::format::checksums::FileChecksums;
use crate::format::file_name::{NameHash, name_hash};

/// Maximum number of files whose checksums are kept.
const MAX_KEPT_FILES: usize = 128;

/// The checksums of a file, and its bytes after the column chunks.
#[derive(Debug)]
struct CheckedFile {
    checksums: FileChecksums,
    length: u64,
    tail: Bytes,
}

/// Compares the files of a lake with their checksums.
#[derive(Debug)]
pub(crate) struct VerifiedStore {
    inner: Arc<dyn ObjectStore>,
    /// Root of the lake in the store.
    root: Path,
    damaged_files: DamagedFiles,
    kept: Mutex<VecDeque<(Path, Arc<CheckedFile>)>>,
}

impl VerifiedStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, root: Path, damaged_files: DamagedFiles) -> Self {
        Self { inner, root, damaged_files, kept: Mutex::default() }
    }

    /// Returns the checksums of a data file, or `None` for any other file.
    async fn checked_file(&self, location: &Path) -> Result<Option<Arc<CheckedFile>>> {
        let Some(NameHash::Tail { hash, bytes }) = name_hash(location.as_ref()) else { return Ok(None) };
        let kept = |kept: &VecDeque<(Path, Arc<CheckedFile>)>| {
            kept.iter().find(|(path, _)| path == location).map(|(_, file)| Arc::clone(file))
        };
        if let Some(file) = kept(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(Some(file));
        }
        let length = self.inner.head(location).await.map_err(|error| self.missing(location, error))?.size;
        let Some(tail_start) = length.checked_sub(bytes) else {
            let detail = format!("it has {length} bytes, and its name says that the footer alone has {bytes}");
            return Err(self.damaged(location, detail));
        };
        let tail = self.inner.get_range(location, tail_start..length).await;
        let tail = tail.map_err(|error| self.missing(location, error))?;
        let checksums =
            FileChecksums::read(tail_start, &tail, hash).map_err(|detail| self.damaged(location, detail))?;
        let file = Arc::new(CheckedFile { checksums, length, tail });
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_KEPT_FILES {
            all.pop_front();
        }
        all.push_back((location.clone(), Arc::clone(&file)));
        Ok(Some(file))
    }

    /// Remembers a damaged file, and returns the error.
    fn damaged(&self, location: &Path, detail: String) -> ObjectStoreError {
        let below = location.as_ref().strip_prefix(self.root.as_ref()).unwrap_or(location.as_ref());
        let file = DamagedFile { path: below.trim_start_matches('/').to_owned(), detail };
        self.damaged_files.record(&file);
        ObjectStoreError::Generic { store: "lake", source: Box::new(file) }
    }

    /// Names a file that a table has and the store does not.
    fn missing(&self, location: &Path, error: ObjectStoreError) -> ObjectStoreError {
        match error {
            ObjectStoreError::NotFound { .. } => self.damaged(location, MISSING.to_owned()),
            other => other,
        }
    }

    /// Compares the bytes of a widened range, and returns the range that was asked for.
    fn verify(
        &self,
        location: &Path,
        file: &CheckedFile,
        bytes: &Bytes,
        (wide, range): (&Range<u64>, &Range<u64>),
    ) -> Result<Bytes> {
        file.checksums.verify(wide.start, bytes).map_err(|detail| self.damaged(location, detail))?;
        slice(bytes, wide.start, range).ok_or_else(|| self.damaged(location, format!("it ends before {}", range.end)))
    }
}

/// Returns a range of a file from bytes that start at this position in it.
fn slice(bytes: &Bytes, start: u64, range: &Range<u64>) -> Option<Bytes> {
    let position = |offset: u64| usize::try_from(offset.checked_sub(start)?).ok();
    let (from, to) = (position(range.start)?, position(range.end)?);
    (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
}

impl Display for VerifiedStore {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(formatter)
    }
}

#[async_trait]
impl ObjectStore for VerifiedStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let file = if options.head { None } else { self.checked_file(location).await? };
        let Some(file) = file else { return self.inner.get_opts(location, options).await };
        let asked = options.range.clone().unwrap_or(GetRange::Offset(0));
        let invalid = |error| ObjectStoreError::Generic { store: "lake", source: Box::new(error) };
        let range = asked.as_range(file.length).map_err(invalid)?;
        let wide = file.checksums.widen(&range, file.length);
        let options = GetOptions { range: Some(GetRange::Bounded(wide.clone())), ..options };
        let found = self.inner.get_opts(location, options).await.map_err(|error| self.missing(location, error))?;
        let (meta, attributes) = (found.meta.clone(), found.attributes.clone());
        let bytes = self.verify(location, &file, &found.bytes().await?, (&wide, &range))?;
        let payload = GetResultPayload::Stream(once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(file) = self.checked_file(location).await? else {
            return self.inner.get_ranges(location, ranges).await;
        };
        let kept = ranges.iter().map(|range| slice(&file.tail, file.checksums.tail_start(), range));
        if let Some(kept) = kept.collect() {
            return Ok(kept);
        }
        let wide: Vec<_> = ranges.iter().map(|range| file.checksums.widen(range, file.length)).collect();
        let found = self.inner.get_ranges(location, &wide).await.map_err(|error| self.missing(location, error))?;
        let pairs = found.iter().zip(wide.iter().zip(ranges));
        pairs.map(|(bytes, ranges)| self.verify(location, &file, bytes, ranges)).collect()
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}
