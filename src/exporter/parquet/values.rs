//! The values of a column chunk, without those that are null.

use std::borrow::Cow;
use std::ops::Range;

use parquet::basic::{BoundaryOrder, Encoding, Type};
use parquet::data_type::ByteArray;
use parquet::errors::Result;
use parquet::file::metadata::ColumnIndexBuilder;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::dictionary::{Dictionary, text};
use super::{delta, hybrid};

/// Longer text bounds nothing: readers would carry it for every file they plan over.
const BOUND_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) enum Values<'a> {
    Numbered { dictionary: &'a Dictionary, numbers: &'a [u32] },
    Joined { bytes: Cow<'a, [u8]>, starts: Cow<'a, [u32]> },
    Ints(&'a [i32]),
    Longs(&'a [i64]),
    Flags(&'a [bool]),
}

/// Lowest and highest value.
#[derive(Clone, Debug)]
pub(super) enum Bounds {
    Texts(Vec<u8>, Vec<u8>),
    /// None if all are null.
    Ints(Option<i32>, Option<i32>),
    Longs(Option<i64>, Option<i64>),
}

impl<'a> Values<'a> {
    /// Values that stand one after the other from these places on; with replacement characters where they are not UTF-8.
    pub(super) fn joined(bytes: &'a [u8], starts: &'a [u32]) -> Self {
        // Each is UTF-8 if all are together, and none begins within a character.
        let whole = simdutf8::basic::from_utf8(bytes);
        if whole.is_ok_and(|text| starts.iter().all(|&start| text.is_char_boundary(start as usize))) {
            return Self::Joined { bytes: Cow::Borrowed(bytes), starts: Cow::Borrowed(starts) };
        }
        let (mut repaired, mut places) = (Vec::with_capacity(bytes.len()), Vec::with_capacity(starts.len()));
        for (n, &start) in starts.iter().enumerate() {
            let value = &bytes[start as usize..end(bytes, starts, n)];
            places.push(repaired.len() as u32);
            repaired.extend_from_slice(text(value).as_bytes());
        }
        Self::Joined { bytes: Cow::Owned(repaired), starts: Cow::Owned(places) }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Numbered { numbers, .. } => numbers.len(),
            Self::Joined { starts, .. } => starts.len(),
            Self::Ints(values) => values.len(),
            Self::Longs(values) => values.len(),
            Self::Flags(values) => values.len(),
        }
    }

    /// What pages are cut by. Numbers of a dictionary are small.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Numbered { .. } | Self::Flags(_) => 0,
            Self::Joined { bytes, .. } => bytes.len(),
            Self::Ints(values) => size_of_val(*values),
            Self::Longs(values) => size_of_val(*values),
        }
    }

    /// How data pages are encoded.
    pub(super) fn encoding(&self) -> Encoding {
        match self {
            Self::Numbered { .. } => Encoding::RLE_DICTIONARY,
            Self::Joined { .. } => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            Self::Ints(_) | Self::Longs(_) => Encoding::DELTA_BINARY_PACKED,
            Self::Flags(_) => Encoding::PLAIN,
        }
    }

    /// Appends a part of the values.
    pub(super) fn encode(&self, part: Range<usize>, out: &mut Vec<u8>) {
        match self {
            Self::Numbered { dictionary, numbers } => {
                let width = hybrid::width(dictionary.len().saturating_sub(1) as u32).max(1);
                out.push(width);
                hybrid::encode(&numbers[part], width, out);
            }
            Self::Joined { bytes, starts } => {
                let start = starts.get(part.start).map_or(bytes.len(), |&start| start as usize);
                let end = starts.get(part.end).map_or(bytes.len(), |&end| end as usize);
                delta::encode_lengths(&starts[part], end as u32, out);
                out.extend_from_slice(&bytes[start..end]);
            }
            Self::Ints(values) => delta::encode_ints(&values[part], out),
            Self::Longs(values) => delta::encode_longs(&values[part], out),
            Self::Flags(values) => {
                let values = &values[part];
                hybrid::pack(values, values.len().next_multiple_of(8), 1, out);
            }
        }
    }

    /// Of text nothing if there is none, or if a bound is too long to be useful.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        match self {
            Self::Numbered { dictionary, .. } => {
                let all = || (0..dictionary.len() as u32).map(|number| dictionary.get(number));
                let (low, high) = (all().min()?, all().max()?);
                let short = low.len() <= BOUND_MAX && high.len() <= BOUND_MAX;
                short.then(|| Bounds::Texts(low.to_vec(), high.to_vec()))
            }
            Self::Ints(values) => {
                Some(Bounds::Ints(values.iter().min().copied(), values.iter().max().copied()))
            }
            Self::Longs(values) => {
                Some(Bounds::Longs(values.iter().min().copied(), values.iter().max().copied()))
            }
            Self::Joined { .. } | Self::Flags(_) => None,
        }
    }
}

/// Where value `n` ends.
fn end(bytes: &[u8], starts: &[u32], n: usize) -> usize {
    starts.get(n + 1).map_or(bytes.len(), |&next| next as usize)
}

impl Bounds {
    pub(super) fn statistics(&self, nulls: u64) -> Statistics {
        let nulls = Some(nulls);
        match self {
            Self::Texts(low, high) => {
                let [low, high] = [low, high].map(|bound| Some(ByteArray::from(bound.clone())));
                Statistics::byte_array(low, high, None, nulls, false)
            }
            Self::Ints(low, high) => Statistics::int32(*low, *high, None, nulls, false),
            Self::Longs(low, high) => Statistics::int64(*low, *high, None, nulls, false),
        }
    }

    /// The page index of a chunk of numbers that is one page.
    pub(super) fn index(&self, nulls: u64) -> Result<Option<ColumnIndexMetaData>> {
        let (kind, low, high) = match self {
            Self::Texts(..) => return Ok(None),
            Self::Ints(low, high) => (
                Type::INT32,
                low.map(|low| low.to_le_bytes().to_vec()),
                high.map(|high| high.to_le_bytes().to_vec()),
            ),
            Self::Longs(low, high) => (
                Type::INT64,
                low.map(|low| low.to_le_bytes().to_vec()),
                high.map(|high| high.to_le_bytes().to_vec()),
            ),
        };
        let mut index = ColumnIndexBuilder::new(kind);
        index.append(low.is_none(), low.unwrap_or_default(), high.unwrap_or_default(), nulls as i64, None);
        index.set_boundary_order(BoundaryOrder::ASCENDING);
        index.build().map(Some)
    }
}
