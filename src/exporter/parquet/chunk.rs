//! Column chunks, written page by page.
//!
//! The crate's own writer hashes every value it is given. Here values come numbered already, a resource's as often as it has
//! spans, so that only levels and numbers are left to pack.

use std::io::Write;
use std::ops::Range;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnChunkMetaDataBuilder, OffsetIndexBuilder};
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::dictionary::Dictionary;
use super::hybrid;
use super::values::{Bounds, Values};

/// Bytes of text that a page of joined values is cut near.
const PAGE_BYTES: usize = 1 << 20;
pub(super) const ZSTD_LEVEL: i32 = 1;

/// Where values stand in rows and lists, as Dremel has it. Empty where the column's highest level is 0.
#[derive(Debug, Default)]
pub(super) struct Levels {
    pub(super) repetition: Vec<u8>,
    pub(super) definition: Vec<u8>,
}

impl Levels {
    /// The same at so many places.
    pub(super) fn fill(&mut self, places: usize, repetition: u8, definition: u8) {
        self.truncate(0);
        self.repetition.resize(places, repetition);
        self.definition.resize(places, definition);
    }

    pub(super) fn truncate(&mut self, places: usize) {
        self.repetition.truncate(places);
        self.definition.truncate(places);
    }
}

/// What else a chunk carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extras {
    None,
    /// Lowest and highest value.
    Bounds,
    /// The same, and a bloom filter.
    Bloom,
}

/// A column chunk to be written.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub(super) rows: usize,
    pub(super) levels: &'a Levels,
    pub(super) values: Values<'a>,
    pub(super) extras: Extras,
}

/// One page: ranges of its chunk.
#[derive(Debug)]
struct Span {
    rows: usize,
    levels: Range<usize>,
    values: Range<usize>,
}

/// Writes chunks; keeps what it can use again.
pub(super) struct ChunkWriter {
    zstd: zstd::bulk::Compressor<'static>,
    raw: Vec<u8>,
    compressed: Vec<u8>,
    chunk: Vec<u8>,
}

impl std::fmt::Debug for ChunkWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkWriter")
    }
}

/// Bytes of a chunk and of its pages so far.
#[derive(Default)]
struct Totals {
    raw: usize,
    compressed: usize,
}

impl ChunkWriter {
    pub(super) fn new() -> std::io::Result<Self> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
        Ok(Self { zstd, raw: Vec::new(), compressed: Vec::new(), chunk: Vec::new() })
    }

    pub(super) fn write<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        column: &ColumnDescPtr,
        chunk: Chunk<'_>,
    ) -> Result<()> {
        let mut out = TrackedWrite::new(std::mem::take(&mut self.chunk));
        let mut pages = SerializedPageWriter::new(&mut out);
        let mut totals = Totals::default();
        let mut dictionary_bytes = None;
        if let Values::Numbered { dictionary, .. } = chunk.values {
            let page = self.dictionary_page(dictionary)?;
            let spec = self.put(&mut pages, page)?;
            totals.add(spec.uncompressed_size, spec.compressed_size);
            dictionary_bytes = Some(spec.compressed_size);
        }
        let bounds = if chunk.extras == Extras::None { None } else { chunk.values.bounds() };
        let mut offsets = OffsetIndexBuilder::new();
        let spans = chunk.pages(column);
        let index = match &bounds {
            Some(bounds) if spans.len() == 1 => bounds.index(chunk.nulls())?,
            _ => None,
        };
        for span in spans {
            let page = self.data_page(column, &chunk, &span)?;
            let spec = self.put(&mut pages, page)?;
            totals.add(spec.uncompressed_size, spec.compressed_size);
            offsets.append_row_count(span.rows as i64);
            offsets.append_offset_and_size(spec.offset as i64, spec.compressed_size as i32);
        }
        let metadata = chunk
            .metadata(column, bounds)
            .set_total_uncompressed_size(totals.raw as i64)
            .set_total_compressed_size(totals.compressed as i64)
            .set_dictionary_page_offset(dictionary_bytes.map(|_| 0))
            .set_data_page_offset(dictionary_bytes.unwrap_or(0) as i64)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: totals.compressed as u64,
            rows_written: chunk.rows as u64,
            column_index: index,
            metadata,
            bloom_filter: chunk.bloom_filter()?,
            offset_index: Some(offsets.build()),
        };
        let chunk = Bytes::from(out.into_inner()?);
        group.append_column(&chunk, close)?;
        self.chunk = reclaimed(chunk);
        Ok(())
    }

    fn put(&mut self, pages: &mut dyn PageWriter, page: CompressedPage) -> Result<PageWriteSpec> {
        let memory = page.compressed_page().buffer().clone();
        let spec = pages.write_page(page)?;
        self.compressed = reclaimed(memory);
        Ok(spec)
    }

    fn dictionary_page(&mut self, dictionary: &Dictionary) -> Result<CompressedPage> {
        let buf = compress(&mut self.zstd, dictionary.page(), &mut self.compressed)?;
        let page = Page::DictionaryPage {
            buf,
            num_values: dictionary.len() as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        Ok(CompressedPage::new(page, dictionary.page().len()))
    }

    fn data_page(
        &mut self,
        column: &ColumnDescPtr,
        chunk: &Chunk<'_>,
        span: &Span,
    ) -> Result<CompressedPage> {
        self.raw.clear();
        if column.max_rep_level() > 0 {
            levels(&chunk.levels.repetition[span.levels.clone()], column.max_rep_level(), &mut self.raw);
        }
        if column.max_def_level() > 0 {
            levels(&chunk.levels.definition[span.levels.clone()], column.max_def_level(), &mut self.raw);
        }
        chunk.values.encode(span.values.clone(), &mut self.raw);
        let page = Page::DataPage {
            buf: compress(&mut self.zstd, &self.raw, &mut self.compressed)?,
            num_values: if column.max_def_level() > 0 { span.levels.len() } else { span.values.len() } as u32,
            encoding: chunk.values.encoding(),
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        Ok(CompressedPage::new(page, self.raw.len()))
    }
}

/// Takes the memory, which comes back when the page is written.
fn compress(
    zstd: &mut zstd::bulk::Compressor<'_>,
    raw: &[u8],
    memory: &mut Vec<u8>,
) -> std::io::Result<Bytes> {
    let mut compressed = std::mem::take(memory);
    compressed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    zstd.compress_to_buffer(raw, &mut compressed)?;
    Ok(Bytes::from(compressed))
}

/// The memory of bytes that nobody else has.
fn reclaimed(mut bytes: Bytes) -> Vec<u8> {
    bytes.clear();
    Vec::from(bytes)
}

/// Levels after their length, as version 1 data pages have them.
fn levels(values: &[u8], max: i16, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    hybrid::encode(values, hybrid::width(max as u32), out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

impl Totals {
    fn add(&mut self, raw: usize, compressed: usize) {
        self.raw += raw;
        self.compressed += compressed;
    }
}

impl Chunk<'_> {
    /// Values with those that are null, or places of lists that are empty.
    fn entries(&self) -> usize {
        self.levels.definition.len().max(self.values.len())
    }

    fn nulls(&self) -> u64 {
        (self.entries() - self.values.len()) as u64
    }

    /// Cuts the chunk into pages of whole rows.
    fn pages(&self, column: &ColumnDescPtr) -> Vec<Span> {
        let bytes = self.values.bytes();
        if bytes <= PAGE_BYTES {
            return vec![Span { rows: self.rows, levels: 0..self.entries(), values: 0..self.values.len() }];
        }
        self.cut(column, self.rows.div_ceil(bytes.div_ceil(PAGE_BYTES)))
    }

    fn cut(&self, column: &ColumnDescPtr, rows_a_page: usize) -> Vec<Span> {
        let Levels { repetition, definition } = self.levels;
        let begins_row = |&at: &usize| repetition.get(at).is_none_or(|&level| level == 0);
        let mut starts: Vec<usize> = (0..self.entries()).filter(begins_row).step_by(rows_a_page).collect();
        starts.push(self.entries());
        let present = column.max_def_level() as u8;
        let (mut rows, mut values) = (0, 0);
        let page = |page: &[usize]| {
            let levels = page[0]..page[1];
            let count = match definition.get(levels.clone()) {
                Some(definition) => definition.iter().filter(|&&level| level == present).count(),
                None => levels.len(),
            };
            let span =
                Span { rows: rows_a_page.min(self.rows - rows), levels, values: values..values + count };
            rows += span.rows;
            values += count;
            span
        };
        starts.windows(2).map(page).collect()
    }

    fn metadata(&self, column: &ColumnDescPtr, bounds: Option<Bounds>) -> ColumnChunkMetaDataBuilder {
        let mut encodings = vec![Encoding::RLE, self.values.encoding()];
        if matches!(self.values, Values::Numbered { .. }) {
            encodings.push(Encoding::PLAIN);
        }
        let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
        let builder = ColumnChunkMetaData::builder(column.clone())
            .set_compression(Compression::ZSTD(level))
            .set_encodings(encodings)
            .set_num_values(self.entries() as i64);
        match bounds {
            Some(bounds) => builder.set_statistics(bounds.statistics(self.nulls())),
            None => builder,
        }
    }

    fn bloom_filter(&self) -> Result<Option<Sbbf>> {
        let (Values::Numbered { dictionary, .. }, Extras::Bloom) = (&self.values, self.extras) else {
            return Ok(None);
        };
        let mut filter =
            Sbbf::new_with_ndv_fpp(dictionary.len() as u64, super::schema::BLOOM_FALSE_POSITIVES)?;
        for number in 0..dictionary.len() as u32 {
            filter.insert(dictionary.get(number));
        }
        Ok(Some(filter))
    }
}
