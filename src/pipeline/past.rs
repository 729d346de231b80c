//! Requests that are judged and needed no more, kept on for a while: `data.input_keep`.
//!
//! A segment that leaves the input log is moved to `data/past` instead of being deleted, for `tailwater backtest` to
//! read. Nothing here is ever read by a running instance, and nobody is refused because of it: it has what the logs
//! leave of `data.disk`, and gives way to them.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::info;

use crate::log::{Open, SegmentHeader, Storage, segment};

/// See the module.
#[derive(Debug)]
pub(super) struct Past {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    keep_ms: u64,
    /// Oldest first.
    files: Mutex<VecDeque<PastFile>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PastFile {
    number: u32,
    bytes: u64,
    /// No request in it came later.
    until_ms: u64,
}

impl Past {
    /// Takes up what a former life left.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        data: &Path,
        keep_ms: u64,
        now_ms: u64,
    ) -> io::Result<Self> {
        let dir = data.join("past");
        if keep_ms > 0 {
            storage.create_dir_all(&dir)?;
        }
        let found = segment::numbers(&*storage, &dir)?;
        let mut files = VecDeque::with_capacity(found.len());
        let mut until_ms = now_ms;
        for (number, bytes) in found.into_iter().rev() {
            files.push_front(PastFile { number, bytes, until_ms });
            // Opened before the one behind it.
            until_ms = opened_ms(&*storage, &dir, number)?.unwrap_or(until_ms).min(until_ms);
        }
        Ok(Self { storage, dir, keep_ms, files: Mutex::new(files) })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.lock().iter().map(|file| file.bytes).sum()
    }

    /// Takes the segments below `number` from the input log, and adds what they held to `taken`: also if the next
    /// cannot be taken.
    pub(super) fn take_below(
        &self,
        input: &Path,
        number: u32,
        now_ms: u64,
        taken: &mut u64,
    ) -> io::Result<()> {
        if self.keep_ms == 0 {
            return segment::delete_below(&*self.storage, input, number, taken);
        }
        let found = segment::numbers(&*self.storage, input)?;
        for (old, bytes) in found.into_iter().take_while(|(old, _)| *old < number) {
            self.storage.rename(&segment::path(input, old), &segment::path(&self.dir, old))?;
            let mut files = self.files.lock();
            files.retain(|file| file.number != old); // it had both names after a loss of power
            files.push_back(PastFile { number: old, bytes, until_ms: now_ms });
            *taken += bytes;
        }
        Ok(())
    }

    /// Deletes what is too old, and the oldest of what has no room: there is room for `spare` bytes.
    pub(super) fn trim(&self, now_ms: u64, spare: u64) -> io::Result<()> {
        let mut files = self.files.lock();
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        let mut crowded = 0;
        while let Some(oldest) = files.front().copied() {
            let too_old = oldest.until_ms.saturating_add(self.keep_ms) <= now_ms;
            if !too_old && bytes <= spare {
                break;
            }
            match self.storage.remove(&segment::path(&self.dir, oldest.number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // somebody made room
                removed => removed?,
            }
            files.pop_front();
            bytes -= oldest.bytes;
            crowded += u32::from(!too_old);
        }
        if crowded > 0 {
            info!(segments = crowded, "past input is deleted before its time: the disk budget has no room");
        }
        Ok(())
    }
}

fn opened_ms(storage: &dyn Storage, dir: &Path, number: u32) -> io::Result<Option<u64>> {
    let file = storage.open(&segment::path(dir, number), Open::Read)?;
    Ok(SegmentHeader::read(&*file, number)?.ok().map(|header| header.opened_ms))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::log::SimDisk;

    const INPUT: &str = "data/input";
    const HOUR_MS: u64 = 3_600_000;

    /// Segments of 1,000 bytes, opened a minute after each other.
    fn disk(segments: u32) -> SimDisk {
        let disk = SimDisk::new(1);
        for number in 1..=segments {
            let opened_ms = u64::from(number) * 60_000;
            let header =
                SegmentHeader { number, uuid: Uuid::nil(), opened_ms, attributes: bytes::Bytes::new() };
            let mut content = header.encode();
            content.resize(1_000, 0);
            disk.put(&segment::path(Path::new(INPUT), number), content);
        }
        disk
    }

    fn past(disk: &SimDisk, keep_ms: u64, now_ms: u64) -> Past {
        Past::open(disk.storage(), Path::new("data"), keep_ms, now_ms).unwrap()
    }

    /// Takes what lies below `number`; returns how many bytes that were.
    fn take(past: &Past, number: u32, now_ms: u64) -> u64 {
        let mut taken = 0;
        past.take_below(Path::new(INPUT), number, now_ms, &mut taken).unwrap();
        taken
    }

    fn numbers(disk: &SimDisk, dir: &str) -> Vec<u32> {
        let found = segment::numbers(&*disk.storage(), Path::new(dir)).unwrap();
        found.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn without_a_time_segments_are_deleted() {
        let disk = disk(3);
        assert_eq!(take(&past(&disk, 0, 0), 3, 0), 2_000);
        assert_eq!((numbers(&disk, INPUT), numbers(&disk, "data/past")), (vec![3], vec![]));
    }

    #[test]
    fn segments_stay_for_their_time() {
        let disk = disk(4);
        let past = past(&disk, HOUR_MS, 0);
        assert_eq!(take(&past, 2, 60_000), 1_000);
        assert_eq!(take(&past, 4, 120_000), 2_000);
        past.trim(HOUR_MS + 59_999, u64::MAX).unwrap();
        assert_eq!(numbers(&disk, "data/past"), [1, 2, 3]);
        past.trim(HOUR_MS + 60_000, u64::MAX).unwrap();
        assert_eq!(numbers(&disk, "data/past"), [2, 3]);
    }

    #[test]
    fn a_file_that_somebody_has_removed_stops_nothing() {
        let disk = disk(3);
        let past = past(&disk, HOUR_MS, 0);
        take(&past, 3, 0);
        disk.storage().remove(&segment::path(Path::new("data/past"), 1)).unwrap();
        past.trim(0, 0).unwrap();
        assert_eq!((numbers(&disk, "data/past"), past.bytes()), (vec![], 0));
    }

    #[test]
    fn a_segment_that_is_there_and_past_at_once_counts_once() {
        let disk = disk(2);
        take(&past(&disk, HOUR_MS, 0), 2, 0);
        disk.put(&segment::path(Path::new(INPUT), 1), vec![0; 1_000]);
        let again = past(&disk, HOUR_MS, 0);
        take(&again, 2, 0);
        assert_eq!(again.bytes(), 1_000);
    }

    #[test]
    fn the_oldest_give_way_when_room_is_short() {
        let disk = disk(4);
        let past = past(&disk, HOUR_MS, 0);
        take(&past, 5, 0);
        past.trim(0, 2_500).unwrap();
        assert_eq!((numbers(&disk, "data/past"), past.bytes()), (vec![3, 4], 2_000));
        past.trim(0, 0).unwrap();
        assert_eq!((numbers(&disk, "data/past"), past.bytes()), (vec![], 0));
    }

    #[test]
    fn a_new_life_knows_how_old_they_are_and_clears_them_if_they_are_no_longer_wanted() {
        let disk = disk(3);
        take(&past(&disk, HOUR_MS, 0), 4, 0);
        let now_ms = HOUR_MS + 150_000;
        let again = past(&disk, HOUR_MS, now_ms);
        assert_eq!(again.bytes(), 3_000);
        again.trim(now_ms, u64::MAX).unwrap();
        assert_eq!(numbers(&disk, "data/past"), [2, 3], "the second opened 150 s before the hour was over");
        let unwanted = past(&disk, 0, now_ms);
        unwanted.trim(now_ms, u64::MAX).unwrap();
        assert_eq!(numbers(&disk, "data/past"), [] as [u32; 0]);
    }
}
