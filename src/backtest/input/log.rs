//! An input log, as it was written.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::{Arrival, Arrivals};
use crate::log::{Disk, ReadItem, Reader};
use crate::trace::Position;

pub(super) struct Log {
    reader: Reader,
    ahead: VecDeque<PathBuf>,
    now_ms: u64,
    read: u64,
    lost: u64,
}

impl Log {
    /// One folder after the other.
    pub(super) fn open(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let mut ahead: VecDeque<PathBuf> = folders.iter().cloned().collect();
        let first = ahead.pop_front().context("an input log has a folder")?;
        Ok(Self { reader: reader(&first)?, ahead, now_ms: 0, read: 0, lost: 0 })
    }
}

fn reader(folder: &Path) -> anyhow::Result<Reader> {
    Reader::open(Arc::new(Disk), folder, Position::default())
        .with_context(|| format!("read {}", folder.display()))
}

impl Arrivals for Log {
    fn next(&mut self) -> anyhow::Result<Option<Arrival>> {
        loop {
            match self.reader.next().context("read the input log")? {
                None => match self.ahead.pop_front() {
                    Some(folder) => self.reader = reader(&folder)?,
                    None => return Ok(None),
                },
                Some(ReadItem::Record(record)) => {
                    self.read += record.bytes.len() as u64;
                    // The clock of the machine may have been set back.
                    self.now_ms = self.now_ms.max(record.arrival_ms);
                    let (tenant, body) = (record.tenant, record.body);
                    return Ok(Some(Arrival { at_ms: self.now_ms, tenant, body, weight: None }));
                }
                Some(ReadItem::Damaged { bytes, .. } | ReadItem::TornTail { bytes, .. }) => {
                    self.read += bytes;
                    self.lost += bytes;
                }
                Some(ReadItem::BadHeader { .. }) => {}
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.read
    }

    fn lost_bytes(&self) -> u64 {
        self.lost
    }
}
