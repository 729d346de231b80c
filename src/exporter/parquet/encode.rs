//! A sealed segment's pieces of one tenant as one Parquet file.
//!
//! The same segment makes the same file, byte by byte: nothing here reads a clock or draws a number. Memory holds the sorted
//! list of the pieces, one row group, and the pieces of one trace up to [`TRACE_BYTES`]; rows are in the order of trace ID
//! and start, of a trace beyond that only part by part.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{BloomFilterPosition, EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnDescPtr, ColumnPath, SchemaDescriptor};

use super::chunk::{ChunkWriter, ZSTD_LEVEL};
use super::columns::Columns;
use super::row_group::{PieceInGroup, RowGroup};
use super::schema;
use super::source::{Piece, PieceKey, Pieces, Segment};
use super::span::{Contents, Span};

/// A row group ends at so many rows, at the end of a piece.
const ROWS: usize = 16_384;
/// Or when its rows were read from so many bytes.
const ROW_GROUP_BYTES: usize = 64 << 20;
/// Pieces of one trace are sorted together up to so many bytes of memory, but one at least.
const TRACE_BYTES: usize = 16 << 20;
/// What a piece takes in memory beside its spans, about.
const PIECE_BYTES: usize = 1024;

/// What was read of larger pieces is given back.
const SPARE_ATTRIBUTES: usize = 16_384;
const SPARE_SPANS: usize = 4_096;

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub rows: u64,
    pub bytes: u64,
    /// Attributes that lost to a later one of the same key.
    pub duplicate_keys: u64,
}

/// Why a file was not made.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error("read a piece at {position:?} of the outbox")]
    Read { position: crate::trace::Position, source: io::Error },
    #[error("write the Parquet file")]
    Write(#[from] ParquetError),
    #[error("prepare compression")]
    Compressor(#[source] io::Error),
    #[error("create the Parquet file")]
    Create(#[source] io::Error),
}

/// Writes the pieces listed in `keys` to `sink`.
pub fn encode<W: Write + Send>(
    pieces: &dyn Pieces,
    mut keys: Vec<PieceKey>,
    segment: &Segment,
    sink: W,
) -> Result<Summary, EncodeError> {
    keys.sort_unstable();
    let mut file = File::create(segment, sink)?;
    for trace in keys.chunk_by(|a, b| a.trace_id == b.trace_id) {
        file.trace(pieces, trace)?;
    }
    file.finish()
}

/// A file in the making.
struct File<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    chunks: ChunkWriter,
    columns: Vec<ColumnDescPtr>,
    group: RowGroup,
    /// Memory of the last piece that was read, for the next.
    spare: Contents<'static>,
    summary: Summary,
}

impl<W: Write + Send> File<W> {
    fn create(segment: &Segment, sink: W) -> Result<Self, EncodeError> {
        let schema = schema::message()?;
        let columns = SchemaDescriptor::new(schema.clone()).columns().to_vec();
        let properties = Arc::new(properties(segment, &columns));
        let writer = SerializedFileWriter::new(sink, schema, properties)?;
        let chunks = ChunkWriter::new().map_err(EncodeError::Compressor)?;
        let (group, spare, summary) = (RowGroup::new(), Contents::default(), Summary::default());
        Ok(Self { writer, chunks, columns, group, spare, summary })
    }

    /// Adds one trace's pieces, as many at once as [`TRACE_BYTES`] allow.
    fn trace(&mut self, pieces: &dyn Pieces, keys: &[PieceKey]) -> Result<(), EncodeError> {
        let mut read = Vec::new();
        let mut bytes = 0;
        for key in keys {
            // A piece that fills the bound by itself is not held while the next is read.
            if bytes >= TRACE_BYTES {
                self.pieces(&std::mem::take(&mut read))?;
                bytes = 0;
            }
            let position = key.position;
            let piece = pieces.read(key).map_err(|source| EncodeError::Read { position, source })?;
            let needed = piece.otlp.len() + piece.spans as usize * size_of::<Span<'_>>() + PIECE_BYTES;
            if bytes > 0 && bytes + needed > TRACE_BYTES {
                self.pieces(&std::mem::take(&mut read))?;
                bytes = 0;
            }
            bytes += needed;
            read.push(piece);
        }
        self.pieces(&read)
    }

    fn pieces(&mut self, pieces: &[Piece]) -> Result<(), EncodeError> {
        let mut contents: Vec<Contents<'_>> = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let spare = std::mem::take(&mut self.spare).recycle();
            contents.push(Contents::read(&piece.otlp, spare));
        }
        let mut rows: Vec<(u64, u32, u32)> = Vec::new();
        for (piece, contents) in contents.iter().enumerate() {
            let starts = contents.spans.iter().enumerate();
            rows.extend(starts.map(|(span, found)| (found.start, piece as u32, span as u32)));
        }
        rows.sort_unstable();
        let mut places = self.places(pieces, &contents);
        for (_, piece, span) in rows {
            if self.group.rows >= ROWS || self.group.bytes >= ROW_GROUP_BYTES {
                self.flush()?;
                places = self.places(pieces, &contents);
            }
            let piece = piece as usize;
            let found = &contents[piece].spans[span as usize];
            self.group.push(&pieces[piece], &places[piece], &contents[piece], found);
        }
        let is_small = |contents: &Contents<'_>| {
            contents.attributes.capacity() <= SPARE_ATTRIBUTES && contents.spans.capacity() <= SPARE_SPANS
        };
        self.spare = contents.pop().filter(is_small).map(Contents::recycle).unwrap_or_default();
        Ok(())
    }

    fn places(&mut self, pieces: &[Piece], contents: &[Contents<'_>]) -> Vec<PieceInGroup> {
        pieces.iter().zip(contents).map(|(piece, contents)| self.group.begin_piece(piece, contents)).collect()
    }

    fn flush(&mut self) -> Result<(), EncodeError> {
        if self.group.rows > 0 {
            let group = self.writer.next_row_group()?;
            Columns::new(group, &mut self.chunks, &self.columns).write(&self.group)?;
            self.summary.rows += self.group.rows as u64;
            self.summary.duplicate_keys += self.group.duplicate_keys;
        }
        self.group.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Summary, EncodeError> {
        self.flush()?;
        self.writer.finish()?;
        self.writer.inner_mut().flush().map_err(ParquetError::from)?;
        self.summary.bytes = self.writer.bytes_written() as u64;
        Ok(self.summary)
    }
}

fn properties(segment: &Segment, columns: &[ColumnDescPtr]) -> WriterProperties {
    let entry = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("tailwater {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_bloom_filter_position(BloomFilterPosition::End)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: 0,
            descending: false,
            nulls_first: false,
        }]))
        .set_key_value_metadata(Some(vec![
            entry("tailwater.schema_version", schema::VERSION.to_string()),
            entry("tailwater.segment", segment.uuid.to_string()),
            entry("tailwater.segment_opened_ms", segment.opened_ms.to_string()),
        ]));
    // The other columns are written page by page.
    for column in columns.iter().filter(|column| column.physical_type() == parquet::basic::Type::DOUBLE) {
        let path = ColumnPath::new(column.path().parts().to_vec());
        properties = properties.set_column_dictionary_enabled(path, true);
    }
    properties.build()
}
