//! What the last state says of the outbox, so that a file that is gone, cut or renamed does not go unnoticed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::metrics::Amount;
use crate::log::{GroupItem, GroupReader, SegmentHeader, Storage, segment};
use crate::proto;
use crate::trace::Position;

/// See the module. Without a state: nothing.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// There should be a state and none can be read: nobody knows what is missing and who is new.
    pub is_lost: bool,
    pub segments: Vec<Extent>,
    /// Exporters by name and how far their cursors were saved.
    pub cursors: Vec<(String, Position)>,
}

/// A segment as far as it was written.
#[derive(Clone, Debug)]
pub struct Extent {
    pub header: SegmentHeader,
    /// Bytes of the file.
    pub end: u32,
    /// In its records.
    pub amount: Option<Amount>,
}

impl Known {
    pub(super) fn cursor(&self, exporter: &str) -> Option<Position> {
        self.cursors.iter().find(|(name, _)| name == exporter).map(|(_, position)| *position)
    }

    pub(super) fn extent(&self, segment: u32) -> Option<&Extent> {
        self.segments.iter().find(|extent| extent.header.number == segment)
    }

    /// Puts right what can be: names and headers of segments. Returns how many files that were. A header that is not
    /// known is made anew from `like`, which has the attributes in force.
    pub(super) fn repair(
        &self,
        storage: &Arc<dyn Storage>,
        dir: &Path,
        like: impl Fn(u32) -> SegmentHeader,
    ) -> io::Result<usize> {
        let mut repaired = segment::straighten(&**storage, dir, |header| !header.attributes.is_empty())?;
        for extent in &self.segments {
            repaired += usize::from(segment::heal(&**storage, dir, &extent.header)?);
        }
        for unreadable in segment::segments(&**storage, dir)?.unreadable {
            let mut groups = GroupReader::numbered(storage.clone(), dir, unreadable.number);
            let header = like(unreadable.number);
            while let Some(item) = groups.next()? {
                let GroupItem::Group(group) = item else { continue };
                // Only where the records begin is there a place for it.
                if group.at.offset as usize == header.encoded_len() {
                    let opened_ms = group.records.first().map_or(0, |record| record.arrival_ms);
                    let header = SegmentHeader { opened_ms, ..header };
                    repaired += usize::from(segment::heal(&**storage, dir, &header)?);
                }
                break;
            }
        }
        Ok(repaired)
    }

    /// Bytes behind `cursor` that were in the files and are not any more, by segment; `foreign` are the lengths of
    /// what has taken a segment's place, which is lost whether it was known or not.
    pub fn missing(&self, files: &[(u32, u64)], foreign: &[(u32, u64)], cursor: Position) -> Vec<(u32, u64)> {
        let unknown = |number: u32| number >= cursor.segment && self.extent(number).is_none();
        let foreign = foreign.iter().filter(|(number, _)| unknown(*number)).copied();
        let missing = self.segments.iter().filter_map(|extent| {
            let number = extent.header.number;
            let file = files.iter().find(|(file, _)| *file == number).map_or(0, |(_, len)| *len);
            let passed = match number.cmp(&cursor.segment) {
                std::cmp::Ordering::Less => return None,
                std::cmp::Ordering::Equal => u64::from(cursor.offset),
                std::cmp::Ordering::Greater => 0,
            };
            let there = file.max(passed).max(extent.header.encoded_len() as u64);
            Some((number, u64::from(extent.end).saturating_sub(there)))
        });
        missing.filter(|(_, bytes)| *bytes > 0).chain(foreign).collect()
    }
}

impl From<&proto::Extent> for Extent {
    fn from(extent: &proto::Extent) -> Self {
        let header = SegmentHeader {
            number: extent.segment,
            uuid: Uuid::from_slice(&extent.uuid).unwrap_or_default(),
            opened_ms: extent.opened_ms,
            attributes: extent.attributes.clone(),
        };
        let amount = |amount: &proto::Amount| Amount {
            spans: amount.spans,
            records: amount.records,
            bytes: amount.bytes,
        };
        Self { header, end: extent.end, amount: extent.amount.as_ref().map(amount) }
    }
}

impl From<&Extent> for proto::Extent {
    fn from(extent: &Extent) -> Self {
        let header = &extent.header;
        let Amount { spans, records, bytes } = extent.amount.unwrap_or_default();
        Self {
            segment: header.number,
            end: extent.end,
            uuid: Bytes::copy_from_slice(header.uuid.as_bytes()),
            opened_ms: header.opened_ms,
            attributes: header.attributes.clone(),
            amount: extent.amount.map(|_| proto::Amount { spans, records, bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_behind_a_cursor_is_missed() {
        let extent = |number, end| Extent {
            header: SegmentHeader { number, uuid: Uuid::nil(), opened_ms: 0, attributes: Bytes::new() },
            end,
            amount: None,
        };
        let segments = vec![extent(3, 1000), extent(4, 2000), extent(5, 3000)];
        let known = Known { segments, ..Known::default() };
        let whole = [(3, 1000), (4, 2000), (5, 3500)];
        assert_eq!(known.missing(&whole, &[], Position::new(0, 0)), []);
        let cut = [(4, 1500), (5, 20)];
        assert_eq!(known.missing(&cut, &[], Position::new(0, 0)), [(3, 952), (4, 500), (5, 2952)]);
        assert_eq!(known.missing(&cut, &[(7, 99)], Position::new(4, 1900)), [(4, 100), (5, 2952), (7, 99)]);
        assert_eq!(known.missing(&cut, &[], Position::new(6, 0)), []);
    }
}
