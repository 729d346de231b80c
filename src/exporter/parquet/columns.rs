//! Writes a gathered row group, column after column in the order of the schema.

use std::io::Write;
use std::ops::Range;

use parquet::data_type::DoubleType;
use parquet::errors::{ParquetError, Result};
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::ColumnDescPtr;

use super::attributes::{Attributes, Column};
use super::chunk::{Chunk, ChunkWriter, Extras, Levels};
use super::lists::{Events, Links};
use super::row_group::RowGroup;
use super::schema;
use super::texts::{NULL, Store, Texts};
use super::values::Values;

/// Writes the columns of one row group.
pub(super) struct Columns<'a, 'w, W: Write> {
    group: SerializedRowGroupWriter<'w, W>,
    chunks: &'a mut ChunkWriter,
    columns: &'a [ColumnDescPtr],
    rows: usize,
    levels: Levels,
    /// The stored values that are not null, of the column being written.
    present: Vec<u32>,
}

impl<'a, 'w, W: Write + Send> Columns<'a, 'w, W> {
    pub(super) fn new(
        group: SerializedRowGroupWriter<'w, W>,
        chunks: &'a mut ChunkWriter,
        columns: &'a [ColumnDescPtr],
    ) -> Self {
        Self { group, chunks, columns, rows: 0, levels: Levels::default(), present: Vec::new() }
    }

    pub(super) fn write(mut self, rows: &RowGroup) -> Result<()> {
        self.rows = rows.rows;
        self.span(rows)?;
        for column in &rows.resources.attributes.promoted {
            self.promoted(column, Some(&rows.resource_of_row))?;
        }
        for column in &rows.attributes.promoted {
            self.promoted(column, None)?;
        }
        self.text(&rows.exception_types, None, Extras::Bounds)?;
        self.map(&rows.attributes, None)?;
        self.numbers(Values::Ints(&rows.dropped_attributes))?;
        self.resource(rows)?;
        self.scope(rows)?;
        self.events(&rows.events)?;
        self.numbers(Values::Ints(&rows.dropped_events))?;
        self.links(&rows.links)?;
        self.numbers(Values::Ints(&rows.dropped_links))?;
        self.piece(rows)?;
        self.group.close()?;
        Ok(())
    }

    fn span(&mut self, rows: &RowGroup) -> Result<()> {
        self.text(&rows.trace_ids, None, Extras::Bloom)?;
        self.text(&rows.span_ids, None, Extras::None)?;
        self.text(&rows.parents, None, Extras::None)?;
        let micros: Vec<i64> = rows.starts.iter().map(|&nanos| micros(nanos)).collect();
        let durations: Vec<i64> =
            rows.starts.iter().zip(&rows.ends).map(|(&start, &end)| duration(start, end)).collect();
        self.numbers(Values::Longs(&micros))?;
        self.numbers(Values::Longs(&rows.starts))?;
        self.numbers(Values::Longs(&rows.ends))?;
        self.numbers(Values::Longs(&durations))?;
        self.text(&rows.names, None, Extras::Bounds)?;
        self.text(&rows.kinds, None, Extras::Bounds)?;
        self.text(&rows.status_codes, None, Extras::Bounds)?;
        self.text(&rows.status_messages, None, Extras::None)?;
        self.text(&rows.trace_states, None, Extras::None)?;
        self.numbers(Values::Ints(&rows.flags))
    }

    fn resource(&mut self, rows: &RowGroup) -> Result<()> {
        let of_row = &rows.resource_of_row;
        self.map(&rows.resources.attributes, Some(of_row))?;
        self.numbers(Values::Ints(&spread(&rows.resources.dropped_attributes, of_row)))?;
        self.text(&rows.resources.schema_urls, Some(of_row), Extras::None)
    }

    fn scope(&mut self, rows: &RowGroup) -> Result<()> {
        let of_row = &rows.scope_of_row;
        self.text(&rows.scopes.names, Some(of_row), Extras::Bounds)?;
        self.text(&rows.scopes.versions, Some(of_row), Extras::None)?;
        self.map(&rows.scopes.attributes, Some(of_row))?;
        self.numbers(Values::Ints(&spread(&rows.scopes.dropped_attributes, of_row)))?;
        self.text(&rows.scopes.schema_urls, Some(of_row), Extras::None)
    }

    fn piece(&mut self, rows: &RowGroup) -> Result<()> {
        let (pieces, of_row) = (&rows.pieces, &rows.piece_of_row);
        let starts: Vec<i64> = pieces.starts.iter().map(|&nanos| micros(nanos)).collect();
        self.numbers(Values::Longs(&spread(&starts, of_row)))?;
        self.numbers(Values::Longs(&spread(&pieces.durations, of_row)))?;
        self.numbers(Values::Ints(&spread(&pieces.spans, of_row)))?;
        self.numbers(Values::Ints(&spread(&pieces.errors, of_row)))?;
        self.text(&pieces.root_services, Some(of_row), Extras::Bounds)?;
        self.text(&pieces.root_names, Some(of_row), Extras::Bounds)?;
        self.numbers(Values::Flags(&rows.roots))?;
        self.text(&pieces.policies, Some(of_row), Extras::Bounds)?;
        self.text(&pieces.reasons, Some(of_row), Extras::Bounds)?;
        self.doubles(&rows.weights)?;
        self.numbers(Values::Flags(&spread(&pieces.wholes, of_row)))?;
        self.numbers(Values::Flags(&spread(&pieces.completes, of_row)))?;
        self.numbers(Values::Flags(&spread(&pieces.lates, of_row)))?;
        self.numbers(Values::Longs(&spread(&pieces.decided, of_row)))
    }

    fn events(&mut self, events: &Events) -> Result<()> {
        self.listed_numbers(&events.row_ends, Values::Longs(&events.times))?;
        self.listed_text(&events.row_ends, &events.names)?;
        self.listed_map(&events.row_ends, &events.attributes)?;
        self.listed_numbers(&events.row_ends, Values::Ints(&events.dropped_attributes))
    }

    fn links(&mut self, links: &Links) -> Result<()> {
        self.listed_text(&links.row_ends, &links.trace_ids)?;
        self.listed_text(&links.row_ends, &links.span_ids)?;
        self.listed_text(&links.row_ends, &links.trace_states)?;
        self.listed_map(&links.row_ends, &links.attributes)?;
        self.listed_numbers(&links.row_ends, Values::Ints(&links.dropped_attributes))?;
        self.listed_numbers(&links.row_ends, Values::Ints(&links.flags))
    }

    /// One number a row.
    fn numbers(&mut self, values: Values<'_>) -> Result<()> {
        self.clear();
        self.write_numbers(values)
    }

    fn promoted(&mut self, column: &Column, owner_of_row: Option<&[u32]>) -> Result<()> {
        match column {
            Column::Text(texts) => self.text(texts, owner_of_row, Extras::Bounds),
            Column::Integer(values) => {
                let value = |owner: usize| values.get(owner).copied().flatten();
                let rows: Vec<Option<i32>> = match owner_of_row {
                    Some(owners) => owners.iter().map(|&owner| value(owner as usize)).collect(),
                    None => (0..self.rows).map(value).collect(),
                };
                self.clear();
                self.levels.definition.extend(rows.iter().map(|row| u8::from(row.is_some())));
                let present: Vec<i32> = rows.into_iter().flatten().collect();
                self.write_numbers(Values::Ints(&present))
            }
        }
    }

    /// One text a row, or none; of the row itself or of its owner.
    fn text(&mut self, texts: &Texts, owner_of_row: Option<&[u32]>, extras: Extras) -> Result<()> {
        let optional = self.column()?.max_def_level() > 0;
        self.clear();
        match owner_of_row {
            None if !optional => return self.chunk(texts, Some(&texts.values), extras),
            None => {
                self.present.extend_from_slice(&texts.values);
                self.present.resize(self.rows, NULL);
            }
            Some(owners) => {
                let stored = |&owner: &u32| texts.values.get(owner as usize).copied().unwrap_or(NULL);
                self.present.extend(owners.iter().map(stored));
            }
        }
        if optional {
            self.levels.definition.extend(self.present.iter().map(|&value| u8::from(value != NULL)));
            self.present.retain(|&value| value != NULL);
        }
        self.chunk(texts, None, extras)
    }

    /// One map a row, of the row itself or of its owner.
    fn map(&mut self, attributes: &Attributes, owner_of_row: Option<&[u32]>) -> Result<()> {
        let kinds = &attributes.kinds;
        self.entries(&attributes.ends, [&attributes.keys, &attributes.values], owner_of_row)?;
        self.entries(&kinds.ends, [&kinds.keys, &kinds.values], owner_of_row)
    }

    /// Columns of the entries of one list a row.
    fn entries<const N: usize>(
        &mut self,
        ends: &[u32],
        columns: [&Texts; N],
        owner_of_row: Option<&[u32]>,
    ) -> Result<()> {
        let full = self.full()?;
        let Some(owners) = owner_of_row else {
            self.lists(lengths(ends), full);
            return columns.into_iter().try_for_each(|texts| self.listed(texts, full, Some(&texts.values)));
        };
        let of_owner: Vec<Range<usize>> = (0..ends.len()).map(|owner| between(ends, owner)).collect();
        let of_row = |&owner: &u32| of_owner[owner as usize].clone();
        self.lists(owners.iter().map(|owner| of_row(owner).len()), full);
        for texts in columns {
            self.present.clear();
            owners.iter().for_each(|owner| self.present.extend_from_slice(&texts.values[of_row(owner)]));
            self.listed(texts, full, None)?;
        }
        Ok(())
    }

    /// Levels of one list a row, of these lengths.
    fn lists(&mut self, lengths: impl Iterator<Item = usize> + Clone, full: u8) {
        let entries = lengths.clone().map(|len| len.max(1)).sum();
        self.levels.fill(entries, 1, full);
        let Levels { repetition, definition } = &mut self.levels;
        let mut at = 0;
        for len in lengths {
            repetition[at] = 0;
            if len == 0 {
                definition[at] = 0;
            }
            at += len.max(1);
        }
    }

    /// Writes a column of lists of which the levels stand. `full`: the level that those have for a value.
    fn listed(&mut self, texts: &Texts, full: u8, stored: Option<&[u32]>) -> Result<()> {
        let of_value = self.full()?;
        if of_value == full {
            return self.chunk(texts, stored, Extras::None);
        }
        for level in &mut self.levels.definition {
            *level = if *level == full { of_value } else { *level };
        }
        let values = stored.unwrap_or(&self.present);
        if !values.contains(&NULL) {
            return self.chunk(texts, stored, Extras::None);
        }
        let places = self.levels.definition.iter_mut().filter(|level| **level == of_value);
        for (level, &value) in places.zip(values) {
            *level -= u8::from(value == NULL);
        }
        if let Some(stored) = stored {
            self.present.clear();
            self.present.extend_from_slice(stored);
        }
        self.present.retain(|&value| value != NULL);
        self.chunk(texts, None, Extras::None)
    }

    /// One text an element of each row's list.
    fn listed_text(&mut self, row_ends: &[u32], texts: &Texts) -> Result<()> {
        self.entries(row_ends, [texts], None)
    }

    /// One number an element of each row's list.
    fn listed_numbers(&mut self, row_ends: &[u32], values: Values<'_>) -> Result<()> {
        let full = self.full()?;
        self.lists(lengths(row_ends), full);
        self.write_numbers(values)
    }

    /// One map an element of each row's list.
    fn listed_map(&mut self, row_ends: &[u32], attributes: &Attributes) -> Result<()> {
        let kinds = &attributes.kinds;
        self.listed_entries(row_ends, &attributes.ends, [&attributes.keys, &attributes.values])?;
        self.listed_entries(row_ends, &kinds.ends, [&kinds.keys, &kinds.values])
    }

    fn listed_entries(&mut self, row_ends: &[u32], ends: &[u32], columns: [&Texts; 2]) -> Result<()> {
        let full = self.full()?;
        self.levels.fill(self.rows + ends.len() + columns[0].values.len(), 2, full);
        let Levels { repetition, definition } = &mut self.levels;
        let mut at = 0;
        for row in 0..self.rows {
            let elements = between(row_ends, row);
            repetition[at] = 0;
            if elements.is_empty() {
                definition[at] = 0;
                at += 1;
            }
            for element in elements.clone() {
                let len = between(ends, element).len();
                repetition[at] = u8::from(element > elements.start);
                if len == 0 {
                    definition[at] = 1;
                }
                at += len.max(1);
            }
        }
        self.levels.truncate(at);
        columns.into_iter().try_for_each(|texts| self.listed(texts, full, Some(&texts.values)))
    }

    /// Writes a column of text: what was gathered of it, or all that is stored, if that is given.
    fn chunk(&mut self, texts: &Texts, stored: Option<&[u32]>, extras: Extras) -> Result<()> {
        let column = self.take_column()?;
        let stored = stored.unwrap_or(&self.present);
        let values = match &texts.store {
            Store::Numbered(dictionary) => Values::Numbered { dictionary, numbers: stored },
            Store::Joined(bytes) => Values::joined(bytes, stored),
        };
        let chunk = Chunk { rows: self.rows, levels: &self.levels, values, extras };
        self.chunks.write(&mut self.group, &column, chunk)
    }

    /// Writes a column of numbers of which the levels stand.
    fn write_numbers(&mut self, values: Values<'_>) -> Result<()> {
        let column = self.take_column()?;
        let bounded = schema::BOUNDED.contains(&column.name()) && column.path().parts().len() == 1;
        let extras = if bounded { Extras::Bounds } else { Extras::None };
        let chunk = Chunk { rows: self.rows, levels: &self.levels, values, extras };
        self.chunks.write(&mut self.group, &column, chunk)
    }

    /// One double a row, with the crate's own writer.
    fn doubles(&mut self, values: &[f64]) -> Result<()> {
        self.take_column()?;
        let mut column = self.group.next_column()?.ok_or_else(no_column)?;
        column.typed::<DoubleType>().write_batch(values, None, None)?;
        column.close()
    }

    fn clear(&mut self) {
        self.levels.truncate(0);
        self.present.clear();
    }

    fn column(&self) -> Result<&'a ColumnDescPtr> {
        self.columns.first().ok_or_else(no_column)
    }

    fn take_column(&mut self) -> Result<ColumnDescPtr> {
        let (column, rest) = self.columns.split_first().ok_or_else(no_column)?;
        self.columns = rest;
        Ok(column.clone())
    }

    /// The definition level of a value that is not null.
    fn full(&self) -> Result<u8> {
        Ok(self.column()?.max_def_level() as u8)
    }
}

fn no_column() -> ParquetError {
    ParquetError::General("more columns are written than the schema has".into())
}

fn between(ends: &[u32], owner: usize) -> Range<usize> {
    let start = owner.checked_sub(1).map_or(0, |before| ends[before]);
    start as usize..ends[owner] as usize
}

/// How many entries each owner has.
fn lengths(ends: &[u32]) -> impl Iterator<Item = usize> + Clone {
    ends.iter().scan(0, |start, &end| Some((end - std::mem::replace(start, end)) as usize))
}

/// What each row's owner has.
fn spread<T: Copy>(values: &[T], owner_of_row: &[u32]) -> Vec<T> {
    owner_of_row.iter().map(|&owner| values[owner as usize]).collect()
}

fn micros(nanos: i64) -> i64 {
    (nanos as u64 / 1_000) as i64
}

/// From a start that is known to an end after it; 0 if there is none.
fn duration(start: i64, end: i64) -> i64 {
    if start == 0 { 0 } else { (end as u64).saturating_sub(start as u64) as i64 }
}
