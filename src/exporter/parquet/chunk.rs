//! Column chunks of text, written page by page.
//!
//! The crate's own writer hashes every value it is given. Here values come numbered already, a resource's as often as it has
//! spans, so that only levels and numbers are left to pack.

use std::io::Write;
use std::ops::Range;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnChunkMetaDataBuilder, OffsetIndexBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, SerializedRowGroupWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::dictionary::{Dictionary, text};
use super::{delta, hybrid};

/// Bytes of text that a page of joined values is cut near.
const PAGE_BYTES: usize = 1 << 20;
/// Longer values bound nothing: readers would carry them for every file they plan over.
const BOUND_MAX: usize = 64;
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

/// The values that are not null.
#[derive(Clone, Copy, Debug)]
pub(super) enum Values<'a> {
    Numbered { dictionary: &'a Dictionary, numbers: &'a [u32] },
    Joined { bytes: &'a [u8], starts: &'a [u32] },
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
#[derive(Clone, Copy, Debug)]
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
        Ok(Self { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL)?, raw: Vec::new(), compressed: Vec::new() })
    }

    pub(super) fn write<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        column: &ColumnDescPtr,
        chunk: Chunk<'_>,
    ) -> Result<()> {
        let repaired;
        let mut chunk = chunk;
        if let Values::Joined { bytes, starts } = chunk.values
            && !are_text(bytes, starts)
        {
            repaired = repair(bytes, starts);
            chunk.values = Values::Joined { bytes: &repaired.0, starts: &repaired.1 };
        }
        let mut out = TrackedWrite::new(Vec::new());
        let mut pages = SerializedPageWriter::new(&mut out);
        let mut totals = Totals::default();
        let mut dictionary_bytes = None;
        if let Values::Numbered { dictionary, .. } = chunk.values {
            let spec = pages.write_page(self.dictionary_page(dictionary)?)?;
            totals.add(spec.uncompressed_size, spec.compressed_size);
            dictionary_bytes = Some(spec.compressed_size);
        }
        let mut offsets = OffsetIndexBuilder::new();
        for span in chunk.pages(column) {
            let spec = pages.write_page(self.data_page(column, &chunk, &span)?)?;
            totals.add(spec.uncompressed_size, spec.compressed_size);
            offsets.append_row_count(span.rows as i64);
            offsets.append_offset_and_size(spec.offset as i64, spec.compressed_size as i32);
        }
        let metadata = chunk
            .metadata(column)
            .set_total_uncompressed_size(totals.raw as i64)
            .set_total_compressed_size(totals.compressed as i64)
            .set_dictionary_page_offset(dictionary_bytes.map(|_| 0))
            .set_data_page_offset(dictionary_bytes.unwrap_or(0) as i64)
            .build()?;
        let close = ColumnCloseResult {
            bytes_written: totals.compressed as u64,
            rows_written: chunk.rows as u64,
            column_index: None,
            metadata,
            bloom_filter: chunk.bloom_filter()?,
            offset_index: Some(offsets.build()),
        };
        group.append_column(&Bytes::from(out.into_inner()?), close)
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
        let encoding = match chunk.values {
            Values::Numbered { dictionary, numbers } => {
                let width = hybrid::width(dictionary.len().saturating_sub(1) as u32).max(1);
                self.raw.push(width);
                hybrid::encode(&numbers[span.values.clone()], width, &mut self.raw);
                Encoding::RLE_DICTIONARY
            }
            Values::Joined { bytes, starts } => {
                let start = starts.get(span.values.start).map_or(bytes.len(), |&start| start as usize);
                let end = starts.get(span.values.end).map_or(bytes.len(), |&end| end as usize);
                delta::encode_lengths(&starts[span.values.clone()], end as u32, &mut self.raw);
                self.raw.extend_from_slice(&bytes[start..end]);
                Encoding::DELTA_LENGTH_BYTE_ARRAY
            }
        };
        let page = Page::DataPage {
            buf: compress(&mut self.zstd, &self.raw, &mut self.compressed)?,
            num_values: if column.max_def_level() > 0 { span.levels.len() } else { span.values.len() } as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        Ok(CompressedPage::new(page, self.raw.len()))
    }
}

/// Whether each of the joined values is UTF-8: then they are together, and none begins within a character.
fn are_text(bytes: &[u8], starts: &[u32]) -> bool {
    let Ok(text) = simdutf8::basic::from_utf8(bytes) else { return false };
    starts.iter().all(|&start| text.is_char_boundary(start as usize))
}

/// The same values with replacement characters where they are not UTF-8, and where each begins.
fn repair(bytes: &[u8], starts: &[u32]) -> (Vec<u8>, Vec<u32>) {
    let (mut repaired, mut places) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(starts.len()));
    for (n, &start) in starts.iter().enumerate() {
        let end = starts.get(n + 1).map_or(bytes.len(), |&next| next as usize);
        places.push(repaired.len() as u32);
        repaired.extend_from_slice(text(&bytes[start as usize..end]).as_bytes());
    }
    (repaired, places)
}

/// By way of memory that is used again: a page's bound is many times the page.
fn compress(
    zstd: &mut zstd::bulk::Compressor<'_>,
    raw: &[u8],
    compressed: &mut Vec<u8>,
) -> std::io::Result<Bytes> {
    compressed.clear();
    compressed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    zstd.compress_to_buffer(raw, compressed)?;
    Ok(Bytes::copy_from_slice(compressed))
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
    fn value_count(&self) -> usize {
        match self.values {
            Values::Numbered { numbers, .. } => numbers.len(),
            Values::Joined { starts, .. } => starts.len(),
        }
    }

    /// Cuts the chunk into pages of whole rows.
    fn pages(&self, column: &ColumnDescPtr) -> Vec<Span> {
        let entries = self.levels.definition.len().max(self.value_count());
        let bytes = match self.values {
            Values::Joined { bytes, .. } => bytes.len(),
            Values::Numbered { .. } => 0,
        };
        if bytes <= PAGE_BYTES {
            return vec![Span { rows: self.rows, levels: 0..entries, values: 0..self.value_count() }];
        }
        self.cut(column, self.rows.div_ceil(bytes.div_ceil(PAGE_BYTES)))
    }

    fn cut(&self, column: &ColumnDescPtr, rows_a_page: usize) -> Vec<Span> {
        let Levels { repetition, definition } = self.levels;
        let entries = definition.len().max(self.value_count());
        let present = column.max_def_level() as u8;
        let mut pages = Vec::new();
        let mut page = Span { rows: 0, levels: 0..0, values: 0..0 };
        for entry in 0..entries {
            let begins_row = repetition.get(entry).is_none_or(|&level| level == 0);
            if begins_row && page.rows == rows_a_page {
                let next = Span {
                    rows: 0,
                    levels: page.levels.end..page.levels.end,
                    values: page.values.end..page.values.end,
                };
                pages.push(std::mem::replace(&mut page, next));
            }
            page.rows += usize::from(begins_row);
            page.levels.end += 1;
            page.values.end += usize::from(definition.get(entry).is_none_or(|&level| level == present));
        }
        pages.push(page);
        pages
    }

    fn metadata(&self, column: &ColumnDescPtr) -> ColumnChunkMetaDataBuilder {
        let encodings = match self.values {
            Values::Numbered { .. } => vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY],
            Values::Joined { .. } => vec![Encoding::RLE, Encoding::DELTA_LENGTH_BYTE_ARRAY],
        };
        let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
        let builder = ColumnChunkMetaData::builder(column.clone())
            .set_compression(Compression::ZSTD(level))
            .set_encodings(encodings)
            .set_num_values(self.levels.definition.len().max(self.value_count()) as i64);
        match self.bounds() {
            Some((low, high)) => builder.set_statistics(Statistics::byte_array(
                Some(ByteArray::from(low.to_vec())),
                Some(ByteArray::from(high.to_vec())),
                None,
                Some((self.levels.definition.len().saturating_sub(self.value_count())) as u64),
                false,
            )),
            None => builder,
        }
    }

    /// The lowest and the highest value, if both are short enough to be useful.
    fn bounds(&self) -> Option<(&[u8], &[u8])> {
        let Values::Numbered { dictionary, .. } = self.values else { return None };
        if self.extras == Extras::None {
            return None;
        }
        let all = || (0..dictionary.len() as u32).map(|number| dictionary.get(number));
        let (low, high) = (all().min()?, all().max()?);
        (low.len() <= BOUND_MAX && high.len() <= BOUND_MAX).then_some((low, high))
    }

    fn bloom_filter(&self) -> Result<Option<Sbbf>> {
        let (Values::Numbered { dictionary, .. }, Extras::Bloom) = (self.values, self.extras) else {
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
