//! Reads a log of groups, while it is written or when nobody writes it.
//!
//! It yields whole groups only and never looks beyond what is written. A group of which a record is missing
//! or damaged is lost as a whole, and said to be.

use super::reader::{ReadItem, ReadRecord, SegmentReader};
use super::segment::{self, SEGMENT_HEADER, SegmentInfo};
use super::storage::Storage;
use crate::trace::Position;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// The records of one group, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub at: Position,
    /// Where the next group begins: a cursor past this one.
    pub end: Position,
    pub records: Vec<ReadRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupItem {
    Group(Group),
    /// Bytes that are no whole group; `end` is a cursor past them.
    Lost {
        from: Position,
        end: Position,
        bytes: u64,
    },
}

#[derive(Debug)]
struct Current {
    segment: SegmentReader,
    /// It will not grow, and the reader's limit is its end.
    complete: bool,
}

/// Yields whole groups in order.
#[derive(Debug)]
pub struct GroupReader {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    at: Position,
    frontier: watch::Receiver<Position>,
    current: Option<Current>,
    ready: VecDeque<GroupItem>,
}

impl GroupReader {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        dir: &Path,
        from: Position,
        frontier: watch::Receiver<Position>,
    ) -> Self {
        Self { storage, dir: dir.to_owned(), at: from, frontier, current: None, ready: VecDeque::new() }
    }

    /// Reads all groups of one sealed segment and nothing else.
    pub fn segment(storage: Arc<dyn Storage>, segment: &SegmentInfo) -> Self {
        Self::numbered(storage, segment.path.parent().unwrap_or(Path::new("")), segment.number)
    }

    /// The same for the segment of this number in `dir`, if nobody writes it.
    pub fn numbered(storage: Arc<dyn Storage>, dir: &Path, number: u32) -> Self {
        let end = watch::Sender::new(Position::new(number + 1, 0)).subscribe();
        Self::new(storage, dir, Position::new(number, 0), end)
    }

    /// Reads every group in `dir` from `from` on, when nobody writes there.
    pub fn recover(storage: Arc<dyn Storage>, dir: &Path, from: Position) -> Self {
        Self::new(storage, dir, from, watch::Sender::new(Position::MAX).subscribe())
    }

    /// A cursor past everything yielded.
    pub fn position(&self) -> Position {
        self.at
    }

    /// The next group before the frontier; `None`: there is none yet.
    #[allow(clippy::should_implement_trait, reason = "`None` is not the end")]
    pub fn next(&mut self) -> io::Result<Option<GroupItem>> {
        let frontier = *self.frontier.borrow_and_update();
        loop {
            if let Some(item) = self.ready.pop_front() {
                self.at = item.end();
                return Ok(Some(item));
            }
            if self.current.is_none() && !self.open_next(frontier)? {
                return Ok(None);
            }
            let Some(current) = &mut self.current else { continue };
            current.follow(frontier)?;
            let Current { segment, complete } = current;
            let complete = *complete;
            let start = segment.position();
            let gathered = gather(segment, complete, &mut self.ready);
            if gathered.is_err() {
                segment.seek(start.offset); // the group is read again from its beginning
            }
            match gathered? {
                Gathered::Items => {}
                Gathered::End if complete => {
                    self.at = Position::new(segment.position().segment + 1, 0);
                    self.current = None;
                }
                Gathered::End => return Ok(None),
            }
        }
    }

    /// Waits until the frontier moves; `false` when it never will.
    pub async fn changed(&mut self) -> bool {
        self.frontier.changed().await.is_ok()
    }

    /// Opens the segment at the cursor or the next that exists.
    fn open_next(&mut self, frontier: Position) -> io::Result<bool> {
        let next = segment::numbers(&*self.storage, &self.dir)?
            .into_iter()
            .map(|(number, _)| number)
            .find(|number| *number >= self.at.segment);
        let Some(number) = next.filter(|number| Position::new(*number, SEGMENT_HEADER as u32 - 1) < frontier)
        else {
            return Ok(false);
        };
        let (mut segment, fault) = SegmentReader::open(&*self.storage, &self.dir, number)?;
        let foreign = fault.map_or(0, |fault| segment.give_up_if_foreign(&fault));
        if foreign > 0 {
            // The opener of the log has counted it.
            self.at = Position::new(number + 1, 0);
            return self.open_next(frontier);
        }
        if number == self.at.segment {
            segment.skip_to(self.at.offset);
        }
        self.current = Some(Current { segment, complete: false });
        Ok(true)
    }
}

impl Current {
    fn follow(&mut self, frontier: Position) -> io::Result<()> {
        if self.complete {
            return Ok(());
        }
        self.complete = self.segment.position().segment < frontier.segment;
        match self.complete {
            true => self.segment.limit_to_file(),
            false => {
                self.segment.limit_to(u64::from(frontier.offset));
                Ok(())
            }
        }
    }
}

impl GroupItem {
    /// A cursor past it.
    pub fn end(&self) -> Position {
        match self {
            Self::Group(group) => group.end,
            Self::Lost { end, .. } => *end,
        }
    }
}

enum Gathered {
    Items,
    End,
}

/// Reads up to the end of the next group into `ready`. In a segment that still grows, a group without its end is left for later.
fn gather(
    segment: &mut SegmentReader,
    complete: bool,
    ready: &mut VecDeque<GroupItem>,
) -> io::Result<Gathered> {
    let start = segment.position();
    let mut lost_from = None;
    let mut records: Vec<ReadRecord> = Vec::new();
    while let Some(item) = segment.next()? {
        let ReadItem::Record(record) = item else {
            lost_from.get_or_insert(records.first().map_or(start, |first| first.at));
            records.clear();
            continue;
        };
        if record.member as usize != records.len() {
            // Its group's beginning is lost, or it begins a group after one that lost its end.
            lost_from.get_or_insert(records.first().map_or(record.at, |first| first.at));
            records.clear();
            if record.member != 0 {
                continue;
            }
        }
        let more = record.more;
        records.push(record);
        if !more {
            push_group(records, lost_from, ready);
            return Ok(Gathered::Items);
        }
    }
    let end = segment.position();
    if end == start {
        return Ok(Gathered::End);
    }
    if !complete {
        segment.seek(start.offset);
        return Ok(Gathered::End);
    }
    ready.push_back(lost(start, end));
    Ok(Gathered::Items)
}

fn push_group(records: Vec<ReadRecord>, lost_from: Option<Position>, ready: &mut VecDeque<GroupItem>) {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
    let (at, end) = (first.at, last.end);
    if let Some(from) = lost_from {
        ready.push_back(lost(from, at));
    }
    ready.push_back(GroupItem::Group(Group { at, end, records }));
}

fn lost(from: Position, end: Position) -> GroupItem {
    GroupItem::Lost { from, end, bytes: u64::from(end.offset.saturating_sub(from.offset)) }
}
